"""One measurement: a load through a peer, and what it cost the peer.

Owns: the hosts of a peer, its servers, and the reading of /proc.
Never here: which workloads (workloads), how often (test_workloads).
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import bytecode
from benchmarks.calls import counted
from benchmarks.peers import BESIDE_CLIENT, PEERS, Running
from benchmarks.programs import PAIRS
from benchmarks.workloads import (
    BACKGROUND,
    ECHO_PORT,
    IDLE_CONNECTIONS,
    MB,
    SOURCE_PORT,
    Facts,
    Workload,
    calls_each,
    figures,
)
from tests.support.netns import Namespace
from tests.support.network import SERVER, V4, Network
from tests.support.relay import PROGRAM

LOAD = (sys.executable, "-m", "benchmarks.load")
PATIENCE_SECONDS = 30  # beyond the time that a load was given
TRACED_SECONDS = 0.1, 0.4  # of two loads of which the calls are counted
KIB = 1024
# A churn uses a port for each connection, and the default range ends at about 14,000 of them a second.
PORTS = {
    "net.ipv4.ip_local_port_range": "1024 65535",
    "net.ipv4.ip_local_reserved_ports": f"{ECHO_PORT}-{SOURCE_PORT},15002,15006",
}


class Place:
    """client - gateway with a peer - server, or client and peer - server: all of it is this peer's alone, so that the others
    rest meanwhile."""

    def __init__(self, name: str, stack: ExitStack, *, beside_client: bool = False) -> None:
        self.peer = (BESIDE_CLIENT if beside_client else PEERS)[name]
        self.network = stack.enter_context(Network.made())
        self._near = self.network.pod if beside_client else self.network.client
        for host in (self.network.client, self.network.pod):
            for key, value in PORTS.items():
                host.sysctl(key, value)
        self._servers = stack.enter_context(_serving(self.network.server))
        self.running: Running = stack.enter_context(self.peer.started(self.network))

    def measure(self, workload: Workload, seconds: float) -> dict[str, float]:
        """The figures of one round."""
        if workload.family == "idle":
            return self._idle()
        if workload.family == "process":
            return {"rss_mb": self._rss_bytes() / MB}
        if workload.family == "start":
            return self._start()
        if workload.family == "beside":
            with self._load((*BACKGROUND, "--seconds", str(seconds + 0.5))) as background:
                told = self._run((*workload.load, "--seconds", str(seconds), "--warmup", "0.5"))
                stream = json.loads(background.communicate(timeout=PATIENCE_SECONDS)[0])
            return figures(workload, {**told, "stream_bytes_s": stream["bytes"] / stream["seconds"]}, None)
        if workload.family == "syscalls":
            few, more = (counted(self.running.pids(), partial(self._told, workload, each)) for each in TRACED_SECONDS)
            return calls_each(few, more)
        if workload.family == "open":
            with self._held(workload.idle):
                return {**self._timed(workload, seconds), "rss_mb": self._rss_bytes() / MB}
        if workload.program:
            with PAIRS[workload.program].serving(self.network.server):
                return self._timed(workload, seconds)
        return self._timed(workload, seconds)

    def _timed(self, workload: Workload, seconds: float) -> dict[str, float]:
        """What a load found, and what it cost the peer: the time that its threads ran, and records that its log lost."""
        lost, before = self.running.records_lost(), self._cpu_ns()
        told = self._told(workload, seconds)
        found = figures(workload, told, None if before is None else (self._cpu_ns() or 0) - before)
        return found if lost is None else {**found, "records_lost": (self.running.records_lost() or 0) - lost}

    def _idle(self) -> dict[str, float]:
        before = self._rss_bytes()
        with self._held(IDLE_CONNECTIONS):
            return {"rss_bytes_per_connection": (self._rss_bytes() - before) / IDLE_CONNECTIONS}

    @contextmanager
    def _held(self, count: int) -> Iterator[None]:
        """So many connections are open meanwhile, and nothing comes on them."""
        if not count:
            yield
            return
        with self._load(("hold", "--port", str(ECHO_PORT), "--connections", str(count), "--ask")) as holding:
            assert holding.stdout is not None
            held = int(json.loads(holding.stdout.readline())["open"])
            assert held == count, f"{held} of {count} connections"
            yield
            holding.communicate(timeout=PATIENCE_SECONDS)

    def _start(self) -> dict[str, float]:
        """From the command to the record that connections are taken, with everything at its default."""
        with self.network.pod.entered():
            begun = time.monotonic()
            process = subprocess.Popen(
                [*PROGRAM, "--ports", "15012,15016"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=bytecode.environment(),
            )
        with process:
            assert process.stdout is not None
            while b'"event":"ready"' not in (line := process.stdout.readline()):
                assert line, "it has ended"
            taken = time.monotonic() - begun
            process.terminate()
        return {"start_ms": taken * 1000}

    def _told(self, workload: Workload, seconds: float) -> Facts:
        """What one load counted, of the load generator's or of a program's."""
        if workload.program:
            return PAIRS[workload.program].asked(self._near, workload.load, SERVER[V4], seconds)
        return self._run((*workload.load, "--seconds", str(seconds)))

    def _run(self, words: Sequence[str]) -> Any:
        with self._load(words) as load:
            out, _ = load.communicate(timeout=PATIENCE_SECONDS + float(words[words.index("--seconds") + 1]))
        assert load.returncode == 0, f"{self.peer.name}: {' '.join(words)}: exit status {load.returncode}"
        told = json.loads(out)
        assert not told.get("errors"), f"{self.peer.name}: {' '.join(words)}: {told['errors']}"
        return told

    @contextmanager
    def _load(self, words: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
        with self._near.entered():
            argv = [*LOAD, words[0], "--to", SERVER[V4], *words[1:]]
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with process:
            try:
                yield process
            finally:
                process.kill()

    def _cpu_ns(self) -> int | None:
        """What all threads of the peer have run so far; None without a peer."""
        pids = self.running.pids()
        paths = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(path.read_text().split()[0]) for path in paths) if pids else None

    def _rss_bytes(self) -> int:
        total = 0
        for pid in self.running.pids():
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * KIB
        return total


@contextmanager
def _serving(place: Namespace) -> Iterator[None]:
    with place.entered():
        server = subprocess.Popen([*LOAD, "serve", "0.0.0.0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with server:
        try:
            assert server.stdout is not None
            assert json.loads(server.stdout.readline())["ready"]
            yield
        finally:
            server.kill()
