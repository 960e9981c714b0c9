"""benchmarks.conftest: what is in the file of results besides figures."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.conftest import Run
from benchmarks.statistics import load


class Options:
    """Of a run that was given none, but for its file."""

    def __init__(self, output: Path) -> None:
        self._output = str(output)

    def getoption(self, name: str) -> Any:
        return self._output if name == "--output" else None


def test_a_missing_program_is_in_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows would not be there, and the page would not say why."""
    monkeypatch.setenv("PATH", "/nowhere")
    path = tmp_path / "results.json"
    run = Run(Options(path))  # type: ignore[arg-type]
    assert run.note_program("") is None
    assert run.note_program("wrk") == run.note_program("wrk") == "apt-get install wrk nginx-light"
    run.write()
    (name,), (wrk,) = zip(*load(path).programs.items(), strict=True)
    assert (name, wrk.version, wrk.missing) == ("wrk", "", "apt-get install wrk nginx-light")
    assert "keepalive_requests" in wrk.configuration
