"""benchmarks.conftest and its test: what is in the file of results, and what becomes of a measurement that fails."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks import conftest, test_workloads
from benchmarks.conftest import Places, Run
from benchmarks.statistics import load
from benchmarks.workloads import WORKLOADS, Workload


class Options:
    """Of a run that was given none, but for its file."""

    def __init__(self, output: Path) -> None:
        self._output = str(output)

    def getoption(self, name: str) -> Any:
        return self._output if name == "--output" else None


class Hosts:
    """Of one peer: who is made, measured and left is written down; one measurement of a peer fails."""

    said: list[str]
    failing: tuple[str, BaseException]

    def __init__(self, name: str, stack: ExitStack, *, beside_client: bool) -> None:
        self._name = f"{name} beside" if beside_client else name
        self.said.append(f"make {self._name}")
        stack.callback(self.said.append, f"leave {self._name}")

    def measure(self, workload: Workload, _seconds: float) -> dict[str, float]:
        self.said.append(f"{workload.name} {self._name}")
        if self.said[-1] == self.failing[0] and self.said.count(self.said[-1]) == 1:
            raise self.failing[1]
        return {"p50_us": 1.0}


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> type[Hosts]:
    monkeypatch.setattr(conftest, "Place", Hosts)
    monkeypatch.setattr(Hosts, "said", [], raising=False)
    monkeypatch.setattr(Hosts, "failing", ("", OSError()), raising=False)
    return Hosts


def measured(path: Path, rounds: int, *row: str) -> list[str]:
    """What was said on the way."""
    run = Run(Options(path))  # type: ignore[arg-type]
    run.rounds = rounds
    names = ["haproxy", "nginx"]
    for name in names:
        run.note_peer(name)
    said: list[str] = []
    places = Places(names)
    try:
        test_workloads.test_workload(row, run, places, said.append)
    finally:
        places.close()
    return said


@pytest.mark.parametrize("error", [RuntimeError("it has ended"), AssertionError("9 errors")])
def test_a_measurement_that_fails_ends_nothing_else(tmp_path: Path, hosts: type[Hosts], error: Exception) -> None:
    """Hours of a run would be lost by one peer at its first row, or by a relay that nobody started again."""
    hosts.failing = "churn-64 haproxy", error
    with pytest.raises(pytest.fail.Exception, match=rf"(?s)churn-64 1/2 haproxy: .*measure.*{error}"):
        measured(tmp_path / "run.json", 2, "churn-64")
    again = ["make haproxy", "churn-64 haproxy"]
    assert hosts.said[:7] == [*again, "leave haproxy", "make nginx", "churn-64 nginx", "churn-64 nginx", *again[:1]]
    assert hosts.said[7:] == [*again[1:], "leave haproxy", "leave nginx"]
    found = load(tmp_path / "run.json").values
    assert found == {("churn-64", "haproxy", "p50_us"): {1: 1.0}, ("churn-64", "nginx", "p50_us"): {0: 1.0, 1: 1.0}}


def test_what_was_measured_before_an_end_is_written(tmp_path: Path, hosts: type[Hosts]) -> None:
    """Who stops a run, or lacks a program of one row, would lose what the row has."""
    hosts.failing = "churn-64 nginx", KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path / "run.json", 1, "churn-64")
    assert list(load(tmp_path / "run.json").values) == [("churn-64", "haproxy", "p50_us")]


def test_a_place_is_made_once_unless_it_has_to_be_fresh(tmp_path: Path, hosts: type[Hosts]) -> None:
    """Each figure would be of a relay that has just started, or memory of one that is old."""
    assert len(measured(tmp_path / "run.json", 2, "churn-64", "bulk-up-1")) == 8
    assert sorted(said for said in hosts.said if said.startswith("make")) == ["make haproxy", "make nginx"]
    del hosts.said[:]
    measured(tmp_path / "run.json", 2, "idle-9000")
    assert hosts.said[:6] == [
        "make haproxy",
        "idle-9000 haproxy",
        "leave haproxy",
        "make nginx",
        "idle-9000 nginx",
        "leave nginx",
    ]
    assert hosts.said.count("make nginx") == 2


def test_a_place_beside_the_client_is_another_one(hosts: type[Hosts]) -> None:
    """A peer on the gateway would be measured where one beside its client was asked for."""
    places = Places(["nginx"])
    for name in ("churn-64", "sidecar-churn-64"):
        with places.of("nginx", WORKLOADS[name]):
            pass
    places.close()
    assert hosts.said == ["make nginx", "make nginx beside", "leave nginx beside", "leave nginx"]


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
