"""`pytest benchmarks`: what can be chosen, and where results go.

Owns: the options, the places of a run, and the file of results, which is written after each workload: an interrupted run keeps
what it has.
Never here: a measurement (measure).
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import Place
from benchmarks.peers import PEERS, Peer
from benchmarks.programs import PAIRS, Pair
from benchmarks.workloads import QUICK, WORKLOADS, Workload, rows

TWO_THREADS = "-2"  # the end of a peer's name
ROUNDS, QUICK_ROUNDS = 5, 3
SECONDS, QUICK_SECONDS = 3.0, 1.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    rounds = f"rounds of each workload, interleaved (default: {ROUNDS}; --quick: {QUICK_ROUNDS})"
    group.addoption("--rounds", type=int, help=rounds)
    group.addoption("--seconds", type=float, help=f"how long a load runs (default: {SECONDS:g}; --quick: {QUICK_SECONDS:g})")
    group.addoption("--quick", action="store_true", help=f"under three minutes, one thread each: {', '.join(QUICK)}")
    group.addoption("--workloads", help="these alone, by the first words of their names, as in bulk,churn-64 (default: all)")
    group.addoption("--peers", help=f"these alone, besides direct and relay-sidecar: {', '.join(PEERS)} (default: all)")
    group.addoption("--output", default="build/benchmarks.json", help="the file of results (default: %(default)s)")


def chosen_workloads(config: pytest.Config) -> list[str]:
    """By --workloads, else by --quick, else all."""
    beginnings = config.getoption("--workloads")
    if beginnings:
        words = [f"{word}-" for word in beginnings.split(",")]
        return [name for name in WORKLOADS if f"{name}-".startswith(tuple(words))]
    return list(QUICK if config.getoption("--quick") else WORKLOADS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        chosen = rows(chosen_workloads(metafunc.config))
        metafunc.parametrize("row", chosen, ids=[row[0] if len(row) == 1 else WORKLOADS[row[0]].family for row in chosen])


class Run:
    """The file of results, and what all of a run have in common."""

    def __init__(self, config: pytest.Config) -> None:
        quick = config.getoption("--quick")
        self.rounds: int = config.getoption("--rounds") or (QUICK_ROUNDS if quick else ROUNDS)
        self.seconds: float = config.getoption("--seconds") or (QUICK_SECONDS if quick else SECONDS)
        self._path = Path(config.getoption("--output"))
        self._begun = time.monotonic()
        self._results: list[dict[str, Any]] = []
        self._peers: dict[str, Any] = {}
        self._programs: dict[str, Any] = {}

    def note_peer(self, name: str) -> bool:
        """Write down which it is; whether it can be had."""
        self._peers[name] = _facts(PEERS[name])
        return self._peers[name]["missing"] is None

    def note_program(self, name: str) -> str | None:
        """Write down which they are; how to get what is missing. "" is none."""
        if name and name not in self._programs:
            self._programs[name] = _facts(PAIRS[name])
        return self._programs[name]["missing"] if name else None

    def add(self, workload: str, peer: str, number: int, figures: dict[str, float]) -> None:
        self._results.append({"workload": workload, "peer": peer, "round": number, "figures": figures})

    def write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"format": 1, "machine": machine(), "seconds": self.seconds, "rounds": self.rounds}
        text = json.dumps({**facts, "peers": self._peers, "programs": self._programs, "results": self._results}, indent=1)
        self._path.write_text(text + "\n")


def _facts(what: Peer | Pair) -> dict[str, Any]:
    missing = what.missing()
    return {"version": None if missing else what.version(), "configuration": what.configuration, "missing": missing}


def machine() -> dict[str, Any]:
    """Where figures come from, and hold."""
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    models = {name.strip(): value.strip() for name, value in lines.items()}
    return {
        "kernel": platform.release().partition("-")[0],  # what follows names who built it
        "cpus": len(os.sched_getaffinity(0)),
        "model": models.get("model name", platform.machine()),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "congestion": "reno",
    }


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    return Run(pytestconfig)


class Places:
    """The peers that can be had, each on hosts of its own, from the first time that it is wanted there."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._kept: dict[tuple[str, bool], tuple[Place, ExitStack]] = {}

    @contextmanager
    def of(self, name: str, workload: Workload) -> Iterator[Place]:
        """For one measurement. After one that failed the place is left: its relay may have ended, or hold connections."""
        key = name, workload.beside_client
        kept, hosts = (None, ExitStack()) if workload.fresh else self._kept.pop(key, (None, ExitStack()))
        with hosts:
            place = kept or Place(name, hosts, beside_client=workload.beside_client)
            yield place
            if not workload.fresh:
                self._kept[key] = place, hosts.pop_all()

    def close(self) -> None:
        """Leave all of them, whatever one of them says to it."""
        with ExitStack() as together:
            for _, hosts in self._kept.values():
                together.push(hosts)


@pytest.fixture(scope="session")
def places(run: Run, pytestconfig: pytest.Config, say: Any) -> Iterator[Places]:
    wanted = pytestconfig.getoption("--peers")
    names = [name for name in PEERS if not wanted or name in ("direct", "relay-sidecar", *wanted.split(","))]
    if pytestconfig.getoption("--quick"):
        names = [name for name in names if not name.endswith(TWO_THREADS)]
    there = [name for name in names if run.note_peer(name)]
    for name in names:
        if name not in there:
            say(f"{name}: missing: {PEERS[name].missing()}")
    with closing(Places(there)) as made:
        yield made


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Any:
    """Say something at once, past pytest's capture: a run takes minutes."""
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(line)

    return write
