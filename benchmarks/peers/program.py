"""A relay that is a program: found, asked for its version, started on the pod, stopped.

Owns: its process, its user, its directory, and the rules that bring connections to it. It has CAP_NET_RAW and no more.
Never here: a configuration.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import bytecode
from benchmarks.asyncio_relay import listener as transparent_socket
from benchmarks.peers.kinds import DESCRIPTORS, GATEWAY, PORT, captured
from benchmarks.peers.records import Records
from tests.support import rules
from tests.support.clock import DEADLINE, eventually
from tests.support.netns import Namespace, Place
from tests.support.network import Network
from tests.support.users import launcher, nobody_else

ROOT = Path(__file__).parents[2]

# The kernel counts the pages of pipes per user, over the whole machine: what one peer keeps, another would lack. More than the
# highest process id, which nobody_else() goes by.
USERS_APART = 10_000_000
_users = itertools.count(1)


class Program(NamedTuple):
    """A relay that is one command and one file."""

    name: str
    command: Sequence[str]
    ask: Sequence[str]  # the command that prints the version
    file: str = ""  # which the command names; "": it takes none
    text: str = ""  # what is in it
    source: str = ""  # the line that installs it
    needs: Sequence[Path] = ()  # beside the program
    inherits: bool = False  # its listening socket, because it cannot make a transparent one
    records: bool = False  # it writes one for each connection to stdout
    direction: str = GATEWAY  # of the connections that it gets
    notrack: bool = False  # its clients' connections are left out of conntrack

    def missing(self) -> str | None:
        there = _found(self.command[0]) and all(path.exists() for path in self.needs)
        return None if there else self.source

    def version(self) -> str:
        done = subprocess.run(_located(self.ask), capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE, check=True)
        # nginx says it on stderr; Envoy between a hash and the kind of build.
        number = re.search(r"\b\d+\.\d+\.\d+[^/\s]*", done.stdout + done.stderr)
        assert number, f"{self.name}: no version in {done.stdout + done.stderr!r}"
        return number.group()

    @property
    def configuration(self) -> str:
        before = "# FD is a transparent socket, bound to the port\n# NGINX='FD;' " if self.inherits else "# "
        return f"{before}{' '.join(self.command)}\n{self.text}"

    @contextmanager
    def started(self, network: Network) -> Iterator["Process"]:
        assert not self.missing(), f"{self.name}: {self.missing()}"
        with TemporaryDirectory(prefix=f"{self.name}-") as folder, Process(self, network.pod, Path(folder)) as process:
            process.await_listening()
            with ExitStack() as stack:
                stack.callback(rules.remove, network.pod)
                # Who sets no mark is exempted by its user: its connections would be captured again.
                account = {"user": str(process.user), "group": str(process.user)}
                rules.apply(network.pod, {"relay": account, **captured(self.direction, notrack=self.notrack)})
                yield process


class Process:
    """A program at work, as a user whom nothing else runs as."""

    def __init__(self, peer: Program, pod: Namespace, folder: Path) -> None:
        self._pod = pod
        self._name = peer.name
        self._log = folder / "log"
        self._records = Records(pod, self._log) if peer.records else None
        self.user = nobody_else() + USERS_APART * next(_users)
        os.chown(folder, self.user, self.user)
        if peer.file:
            (folder / peer.file).write_text(peer.text)
        # Whatever becomes of the benchmarks, the kernel ends what they have started.
        before = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", *launcher(self.user, "net_raw"), "--pdeathsig=TERM"]
        environment = bytecode.environment()
        with self._log.open("wb") as log, _inherited(pod, peer.inherits) as sockets:
            if sockets:
                environment["NGINX"] = "".join(f"{descriptor};" for descriptor in sockets)
            self._process = pod.popen(
                [*before, *_located(peer.command)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=sockets,
                env=environment,
            )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            self._process.wait()

    def pids(self) -> list[int]:
        return list(_family(self._process.pid))

    def records_lost(self) -> int | None:
        return self._records.lost() if self._records else None

    def await_listening(self) -> None:
        """Its program is given the time that it takes; one that ends says why."""
        if (
            not eventually(lambda: self._process.poll() is not None or listens(self._pod, PORT))
            or self._process.poll() is not None
        ):
            raise RuntimeError(f"{self._name} does not listen: {self._log.read_text()}")


def listens(place: Place, port: int) -> bool:
    """Whether somebody there takes connections to the port; nobody is asked by one."""
    with place.entered():
        tables = "".join(Path("/proc/thread-self/net", name).read_text() for name in ("tcp", "tcp6"))
    return re.search(f":{port:04X} [0-9A-F:]+ 0A ", tables) is not None


@contextmanager
def _inherited(place: Place, wanted: bool) -> Iterator[list[int]]:
    """A transparent socket of this place, for a program that cannot make one."""
    if not wanted:
        yield []
        return
    with place.entered():
        sock = transparent_socket(PORT)
    with sock:
        yield [sock.fileno()]


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _found(program: str) -> str | None:
    """Where it is: PyPI's programs are beside the interpreter, whether or not that is in PATH."""
    if program == "python":
        return sys.executable
    return shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]))


def _located(command: Sequence[str]) -> list[str]:
    return [_found(command[0]) or command[0], *command[1:]]
