"""benchmarks.bytecode: what an installed package has."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bytecode import ROOT, environment


def test_a_program_of_the_tree_finds_its_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start would be measured that compiles first: twice as long as what users see."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "/nowhere")
    told = environment()
    argv = [sys.executable, "-v", "-m", "sidecar", "--version"]
    done = subprocess.run(argv, env=told, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [line.rpartition(" ")[2].strip("'") for line in done.stderr.splitlines() if line.startswith("# code object from ")]
    assert [place for place in found if f"{told['PYTHONPATH']}/sidecar/" in place]
    assert [place for place in found if place.endswith(".py")] == [], "of the standard library neither"
    assert Path(told["PYTHONPATH"]).stat().st_mode & 0o777 == 0o755
