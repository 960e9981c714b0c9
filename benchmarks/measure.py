"""One measurement: a load through a peer, and what it cost the peer.

Owns: the hosts of a peer, its servers, and the reading of /proc.
Never here: which workloads (workloads), how often (test_workloads).
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers import Peer, Running
from benchmarks.workloads import BACKGROUND, IDLE_CONNECTIONS, Workload, figures
from tests.support.netns import Namespace
from tests.support.network import SERVER, V4, Network

LOAD = (sys.executable, "-m", "benchmarks.load")
PATIENCE_SECONDS = 30  # beyond the time that a load was given
KIB = 1024


class Place:
    """client - gateway with a peer - server: all of it is this peer's alone, so that the others rest meanwhile."""

    def __init__(self, peer: Peer, stack: ExitStack) -> None:
        self.peer = peer
        self.network = stack.enter_context(Network.made())
        self._servers = stack.enter_context(_serving(self.network.server))
        self.running: Running = stack.enter_context(peer.started(self.network))

    def measure(self, workload: Workload, seconds: float) -> dict[str, float]:
        """The figures of one round."""
        if workload.family == "idle":
            return self._idle(workload)
        if workload.family == "beside":
            with self._load((*BACKGROUND, "--seconds", str(seconds + 1))) as background:
                told = self._run((*workload.load, "--seconds", str(seconds), "--warmup", "0.5"))
                background.kill()
            return figures(workload, told, None)
        before = self._cpu_ns()
        told = self._run((*workload.load, "--seconds", str(seconds)))
        return figures(workload, told, None if before is None else (self._cpu_ns() or 0) - before)

    def _idle(self, workload: Workload) -> dict[str, float]:
        before = self._rss_bytes()
        with self._load((*workload.load, "--connections", str(IDLE_CONNECTIONS))) as holding:
            assert holding.stdout is not None
            count = int(json.loads(holding.stdout.readline())["open"])
            grown = self._rss_bytes() - before
            holding.communicate(timeout=PATIENCE_SECONDS)
        assert count == IDLE_CONNECTIONS, f"{count} of {IDLE_CONNECTIONS} connections"
        return {"rss_bytes_per_connection": grown / count}

    def _run(self, words: Sequence[str]) -> Any:
        with self._load(words) as load:
            out, _ = load.communicate(timeout=PATIENCE_SECONDS + float(words[words.index("--seconds") + 1]))
        assert load.returncode == 0, f"{self.peer.name}: {' '.join(words)}: exit status {load.returncode}"
        told = json.loads(out)
        assert not told.get("errors"), f"{self.peer.name}: {' '.join(words)}: {told['errors']}"
        return told

    @contextmanager
    def _load(self, words: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
        with self.network.client.entered():
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
