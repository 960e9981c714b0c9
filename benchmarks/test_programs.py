"""The programs that serve as loads: each does what a workload tells it, through nothing, and leaves nothing.

`pytest benchmarks/test_programs.py`, as root. One that is missing fails, and says how to get it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import programs
from benchmarks.peers import PEERS
from benchmarks.programs import PAIRS, PORT
from benchmarks.workloads import WORKLOADS, figures
from tests.support.clock import eventually
from tests.support.network import SERVER, V4, Network
from tests.support.processes import inside, works

PACKAGES = Path(__file__).with_name("debian-packages.txt")


def needs(name: str) -> None:
    if how := PAIRS[name].missing():
        pytest.fail(f"{name} is missing: {how}", pytrace=False)


@pytest.mark.parametrize("name", [name for name, workload in WORKLOADS.items() if workload.program])
def test_a_program_does_what_the_workload_tells_it(name: str) -> None:
    """A run would fail after an hour, or show the figures of another load than its title says."""
    workload = WORKLOADS[name]
    pair = PAIRS[workload.program]
    needs(pair.name)
    with Network.made() as network, PEERS["direct"].started(network):
        with pair.serving(network.server):
            told = pair.asked(network.client, workload.load, SERVER[V4], 0.5)
        assert all(value > 0 for value in figures(workload, told, 1).values())
        assert inside(network.server) == {}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_says_what_it_is(name: str) -> None:
    """Results would not tell what was measured."""
    needs(name)
    pair = PAIRS[name]
    versions = pair.version().split(", ")
    assert [version.split()[0] for version in versions] == list(pair.packages)
    assert all(version.split()[1][0].isdigit() for version in versions)


def test_what_is_missing_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows would not be there, and nobody would know why."""
    monkeypatch.setenv("PATH", "/nowhere")
    told = [pair.missing() or "" for pair in PAIRS.values()]
    assert all(how.startswith("apt-get install ") for how in told)
    assert {package for how in told for package in how.split()[2:]} <= set(PACKAGES.read_text().splitlines())


def test_a_server_that_cannot_start_says_why() -> None:
    """Whoever has another version could not tell what it dislikes."""
    needs("wrk")
    spoilt = PAIRS["wrk"]._replace(files={"nginx.conf": "none;\n"})
    with Network.made() as network:
        with pytest.raises(RuntimeError, match='unknown directive "none"'), spoilt.serving(network.server):
            pass
        assert inside(network.server) == {}


def test_a_client_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure would be made of nothing."""
    monkeypatch.setattr(programs, "PATIENCE_SECONDS", 1)
    for name, words in (("wrk", ()), ("redis-benchmark", ("-n", "1")), ("iperf3", ())):
        needs(name)
        with Network.made() as network, pytest.raises(RuntimeError, match=r"(?i)refused"):
            PAIRS[name].asked(network.client, words, "127.0.0.1", 0.1)


KILLED = """
import sys
from pathlib import Path
from benchmarks.programs import PAIRS
from tests.support.netns import Namespace

place = Namespace("server")
with PAIRS["{name}"].serving(place):
    print(Path("/proc/thread-self/children").read_text(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", PAIRS)
def test_no_server_outlives_the_benchmarks(name: str, tmp_path: Path) -> None:
    """Whoever kills a run would have a server on the machine for ever."""
    needs(name)
    argv = [sys.executable, "-c", KILLED.replace("{name}", name)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # where what is killed leaves its folder
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        process.kill()
    assert len(pids) == 1
    assert eventually(lambda: not works(pids[0])), f"{PORT}: {pids}"
