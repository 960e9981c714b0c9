"""benchmarks.bytecode: what an installed package has."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bytecode import ROOT, environment


def test_a_program_of_the_tree_finds_its_bytecode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A start would be measured that compiles first: twice as long as what users see."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    told = environment()
    argv = [sys.executable, "-v", "-m", "sidecar", "--version"]
    done = subprocess.run(argv, env=told, cwd=tmp_path, capture_output=True, text=True, check=True)
    ours = [line for line in done.stderr.splitlines() if "code object from" in line and str(ROOT / "sidecar") in line]
    assert ours
    assert not [line for line in ours if line.startswith(f"# code object from '{ROOT}") and line.endswith(".py'")]
    assert Path(told["PYTHONPYCACHEPREFIX"]).stat().st_mode & 0o777 == 0o755
