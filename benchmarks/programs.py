"""Programs that people run, as loads: wrk and nginx, redis-benchmark and redis-server, iperf3 with itself.

Owns: their commands, their servers, and the reading of what they print.
Never here: a relay, its CPU time (measure), a figure (workloads).
"""

import csv
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks.peers.program import listens
from tests.support.clock import DEADLINE, eventually
from tests.support.netns import Namespace

PORT: Final = 7010
COUNT_A_SECOND: Final = 20_000  # of who knows no time: a third of what a good relay does, and twice what a slow one does
PATIENCE_SECONDS: Final = 60  # beyond the time that a load was given
US: Final = {"us": 1, "ms": 1000, "s": 1_000_000}
# Whatever becomes of the benchmarks, the kernel ends what they have started.
ENDING: Final = ("setpriv", "--pdeathsig=KILL")

Told = dict[str, float]

NGINX = f"""\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  server {{ listen {PORT} backlog=4096; root .; }}
}}
"""


class Pair(NamedTuple):
    """A client with its server."""

    name: str
    packages: Mapping[str, str]  # program: package
    serve: tuple[str, ...]
    ask: tuple[str, ...]  # before a workload's own words; {seconds} are whole ones, {count} is COUNT_A_SECOND of them
    address: tuple[str, ...]  # after those
    read: Callable[[str, Sequence[str]], Told]  # what the client printed, and its command
    files: Mapping[str, str] = {}  # of the server

    def missing(self) -> str | None:
        """How to get what it needs, in one line; None when all is there."""
        packages = [package for program, package in self.packages.items() if shutil.which(program) is None]
        return f"apt-get install {' '.join(packages)}" if packages else None

    def version(self) -> str:
        """What the programs themselves say; nothing may be missing."""
        return ", ".join(f"{program} {_version(program)}" for program in self.packages)

    @property
    def configuration(self) -> str:
        """The commands and what they read, as a reader of the results would use them."""
        commands = (self.serve, (*self.ask, *self.address))
        return "".join(f"# {' '.join(word or repr(word) for word in words)}\n" for words in commands) + self.files.get(
            "nginx.conf", ""
        )

    @contextmanager
    def serving(self, place: Namespace) -> Iterator[None]:
        """Its server, for one load."""
        with TemporaryDirectory(prefix=f"{self.name}-") as folder, Path(folder, "log").open("w+") as log:
            for name, text in self.files.items():
                Path(folder, name).write_text(text)
            process = place.popen([*ENDING, *self.serve], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            with process:
                try:
                    if not eventually(lambda: process.poll() is not None or listens(place, PORT)) or process.poll() is not None:
                        raise RuntimeError(f"{self.name} does not serve: {Path(log.name).read_text()}")
                    yield
                finally:
                    process.kill()

    def asked(self, place: Namespace, words: Sequence[str], host: str, seconds: float) -> Told:
        """What the client found in about so many seconds."""
        whole = math.ceil(seconds)
        told = {"seconds": whole, "count": COUNT_A_SECOND * whole, "host": host, "port": PORT}
        argv = [word.format(**told) for word in (*self.ask, *words, *self.address)]
        process = place.popen([*ENDING, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with process:
            try:
                out = process.communicate(timeout=seconds + PATIENCE_SECONDS)[0].decode()
            except subprocess.TimeoutExpired as late:  # redis-benchmark asks on and on where nobody answers
                raise RuntimeError(f"{' '.join(argv)}: does not end: {(late.output or b'').decode()}") from None
            finally:
                process.kill()
        if process.returncode:
            raise RuntimeError(f"{' '.join(argv)}: exit status {process.returncode}: {out}")
        return self.read(out, argv)


def _version(program: str) -> str:
    """wrk says it after a usage, and nginx on stderr."""
    word = "-v" if program in ("wrk", "nginx") else "--version"
    done = subprocess.run([program, word], capture_output=True, text=True, timeout=DEADLINE, check=False)
    number = re.search(r"\d+\.\d+[.\d]*", done.stdout + done.stderr)
    assert number, f"{program}: no version in {done.stdout + done.stderr!r}"
    return number.group()


def read_wrk(text: str, _argv: Sequence[str] = ()) -> Told:
    """Requests that were answered; an answer that is no 200, or none at all, is an error."""
    wrong = re.search(r"^ *(Socket errors|Non-2xx).*", text, re.M)
    if wrong:
        raise RuntimeError(f"wrk: {wrong.group().strip()}")
    requests = _number(r"(\d+) requests in", text)
    latencies = {name: _duration_us(rf"^ *{percent}% +(\S+)$", text) for name, percent in (("p50_us", 50), ("p99_us", 99))}
    return {"requests": requests, "seconds": requests / _number(r"^Requests/sec: +([\d.]+)", text), **latencies}


def read_redis(text: str, argv: Sequence[str]) -> Told:
    """One line, by the names of the first; as many requests as it was told to make, and their rate."""
    (row,) = csv.DictReader(text.splitlines())
    requests = int(argv[argv.index("-n") + 1])
    latencies = {f"{name}_us": float(row[f"{name}_latency_ms"]) * US["ms"] for name in ("p50", "p99")}
    return {"requests": requests, "seconds": requests / float(row["rps"]), **latencies}


def read_iperf3(text: str, _argv: Sequence[str] = ()) -> Told:
    """What arrived. Its exit status is 0 also when it failed."""
    told = json.loads(text)
    if "error" in told:
        raise RuntimeError(f"iperf3: {told['error']}")
    received = told["end"]["sum_received"]
    return {"bytes": received["bytes"], "seconds": received["seconds"]}


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.M)
    if not found:
        raise RuntimeError(f"expected {pattern!r}, found {text!r}")
    return found.group(1)


def _number(pattern: str, text: str) -> float:
    return float(_found(pattern, text))


def _duration_us(pattern: str, text: str) -> float:
    """As wrk writes it: 217.00us, 0.94ms, 1.10s."""
    number, unit = re.fullmatch(r"([\d.]+)(\D+)", _found(pattern, text)).groups()
    return float(number) * US[unit]


PAIRS: Final[Mapping[str, Pair]] = {
    pair.name: pair
    for pair in (
        Pair(
            "wrk",
            {"wrk": "wrk", "nginx": "nginx-light"},
            ("nginx", "-p", ".", "-e", "stderr", "-c", "nginx.conf"),
            ("wrk", "-t", "1", "-c", "32", "-d", "{seconds}s", "--latency"),
            ("http://{host}:{port}/small",),
            read_wrk,
            {"nginx.conf": NGINX, "small": "x" * 1000},
        ),
        Pair(
            "redis-benchmark",
            {"redis-benchmark": "redis-tools", "redis-server": "redis-server"},
            ("redis-server", "--port", str(PORT), "--save", "", "--protected-mode", "no"),
            ("redis-benchmark", "-h", "{host}", "-p", "{port}", "-t", "get", "-c", "32", "--csv"),
            (),
            read_redis,
        ),
        Pair(
            "iperf3",
            {"iperf3": "iperf3"},
            ("iperf3", "-s", "-p", str(PORT)),
            ("iperf3", "-c", "{host}", "-p", "{port}", "-t", "{seconds}", "-J", "-R"),
            (),
            read_iperf3,
        ),
    )
}
