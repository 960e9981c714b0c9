"""The real relay-sidecar as a process: started, watched, stopped, and held to what must be true after every case.

Owns: the process, its configuration file, its directory, and the reading of what it prints.
Never: a look inside. What a test knows of the relay it knows from its records, its admin socket and /proc.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.support.clock import DEADLINE, eventually, observe
from tests.support.lines import Lines
from tests.support.netns import Place
from tests.support.peers import Endpoint
from tests.support.toml import to_toml

Record = dict[str, Any]
Table = Mapping[str, Any]

PROGRAM = (sys.executable, "-m", "sidecar")
UID = 1337
# Ports that every relay of the tests would want; the rules leave them alone, so they too must know.
NO_ENDPOINTS = {"metrics": "", "health": ""}

# An idle relay uses under 1 % of a CPU; ten times that, over half a second.
_IDLE_SHARE = 0.10
_IDLE_WINDOW = 0.5


def relay_user() -> str:
    """Whom the relay becomes: 1337 when root starts it, or whoever runs the tests."""
    return str(UID if os.geteuid() == 0 else os.geteuid())


class Counted(NamedTuple):
    """Its counters, summed over its listeners."""

    live: int
    opened: int
    closed: Mapping[str, int]  # by reason
    dial_errors: Mapping[str, int]  # by the name of the error
    counters: Mapping[str, int]
    lost_records: int  # that nobody will read, because the log did not take them


class Relay:
    """One process, from its start to the check of what it left behind. A test that fails inside `with` skips that check."""

    def __init__(
        self,
        place: Place,
        listeners: Sequence[Table],
        tables: Mapping[str, Table] | None = None,
        *,
        launcher: Sequence[str] = (),
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        stdout: int | IO[bytes] = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
        elements: Sequence[Table] = (),
        code: str = "",
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="relay-"))
        # The relay's own user reads the configuration again at SIGHUP, and makes the directory of its admin socket.
        self.directory.chmod(0o755)
        os.chown(self.directory, int(relay_user()), -1)
        self.config_path = self.directory / "relay.toml"
        self.config: dict[str, Any] = {
            "relay": {"user": relay_user(), "group": relay_user(), "workers": 2},
            "log": {"format": "json"},
            "admin": {"socket": str(self.directory / "run" / "admin.sock"), **NO_ENDPOINTS},
        }
        for name, table in (tables or {}).items():
            self.config[name] = {**self.config.get(name, {}), **table}
        self.config["listener"] = list(listeners)
        if elements:
            self.config["element"] = list(elements)
        self.code_path = self.directory / "code.py"
        self.code_path.write_text(code)
        self.write_config(to_toml(self.config))
        self.process = place.popen(
            [*launcher, *PROGRAM, "--config", str(self.config_path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            pass_fds=pass_fds,
        )
        assert self.process.stderr is not None
        self.messages: Lines[str] = Lines(self.process.stderr, str)
        self._records = Lines(self.process.stdout, json.loads) if self.process.stdout else None
        self._sockets_when_ready = 0
        self.expected_status = 0

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory)

    def write_config(self, text: str) -> None:
        """What the next SIGHUP finds."""
        self.config_path.write_text(text)

    def write_code(self, text: str) -> None:
        """What elements are loaded from next: `use = "./code.py:Class"`. In one step, so that nobody reads half of it."""
        fresh = self.code_path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.code_path)

    # What it says.

    @property
    def records(self) -> Lines[Record]:
        """What it printed on stdout."""
        assert self._records is not None, "this relay prints elsewhere"
        return self._records

    def await_records(self, count: int, *, within: float = DEADLINE, **fields: Any) -> list[Record]:
        """The first `count` records with these fields."""
        found = self.records.wait(lambda record: fields.items() <= record.items(), count, within=within)
        assert len(found) == count, f"{len(found)} of {count} records with {fields}; stderr: {self.messages.all()}"
        return found

    def address_of(self, listener: str) -> Endpoint:
        """Where this listener listens."""
        addresses = {entry["name"]: entry["addresses"] for entry in self.ask("stats")["listeners"]}
        host, _, port = addresses[listener][0].rpartition(":")
        return host.strip("[]"), int(port)

    def access(self, **fields: Any) -> Record:
        """The access record with these fields; a flow has one, when it has ended."""
        return self.await_records(1, event="access", **fields)[0]

    def await_message(self, *words: str, after: int = 0) -> str:
        """The first line on stderr, from number `after` on, with all these words."""
        found = self.messages.wait(lambda line: all(word in line for word in words), after=after)
        assert found, f"no message with {words}; stderr: {self.messages.all()}"
        return found[0]

    def await_ready(self) -> None:
        """Wait until it takes connections; the sockets that it holds then are those that it may hold at the end."""
        if self._records:
            self.await_records(1, event="ready")
        else:
            assert eventually(self._answers), self.messages.all()
        self._sockets_when_ready = self.sockets()

    def ask(self, command: str, **arguments: object) -> Any:
        """What its admin socket answers; the subcommands of relay-sidecar ask there too."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(self.config["admin"]["socket"])
            sock.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with sock.makefile("rb") as lines:
                answer = json.loads(lines.readline())
        assert answer["ok"], answer
        return answer["result"]

    def counted(self) -> Counted:
        """What it has counted up to now, over all listeners."""
        stats = self.ask("stats")
        return Counted(
            live=stats["live"],
            opened=sum(listener["opened"] for listener in stats["listeners"]),
            closed=sum((Counter(listener["closed"]) for listener in stats["listeners"]), Counter()),
            dial_errors=stats["dial_errors"],
            counters=stats["counters"],
            lost_records=stats["log_records_dropped"] + stats["counters"]["records_lost"],
        )

    def flows(self) -> list[Record]:
        """The flows that live now."""
        return list(self.ask("flows", limit=0)["flows"])

    def await_flows(self, count: int) -> None:
        """Wait until so many flows live."""
        eventually(lambda: self.counted().live == count)
        assert self.counted().live == count

    # What /proc says of it.

    def descriptors(self) -> list[str]:
        """What its descriptors are: socket:[1], pipe:[2], anon_inode:[eventpoll], …"""
        links = []
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                links.append(str(entry.readlink()))
            except FileNotFoundError:
                continue  # closed since it was listed
        return links

    def descriptor_kinds(self) -> Mapping[str, int]:
        """How many descriptors it has of each kind: socket, pipe, anon_inode."""
        return Counter(link.partition(":")[0] for link in self.descriptors())

    def at_rest(self) -> bool:
        """Whether it holds no more sockets than when it became ready."""
        return self.sockets() <= self._sockets_when_ready

    def sockets(self) -> int:
        return self.descriptor_kinds()["socket"]

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def assert_idle(self) -> None:
        """Nothing to do, nothing done, once what was begun is finished: a relay that spins never comes to that."""
        assert eventually(self._was_idle), f"never under {_IDLE_SHARE:.0%} of a CPU, without work"

    def _was_idle(self) -> bool:
        before = self.cpu_seconds()
        observe(_IDLE_WINDOW)
        return self.cpu_seconds() - before <= _IDLE_SHARE * _IDLE_WINDOW

    # Its end.

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stopped meanwhile, every thread of it."""
        self.signal(signal.SIGSTOP)
        assert eventually(self._stands_still)
        yield
        self.signal(signal.SIGCONT)

    def _stands_still(self) -> bool:
        states = [
            path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        ]
        return set(states) == {"T"}

    def exit_status(self, *, within: float = DEADLINE) -> int:
        return self.process.wait(within)

    def finish(self) -> None:
        """Stop it, unless the test did, and check what must hold after every case."""
        if self.process.poll() is None:
            self._assert_settled()
            self.signal(signal.SIGTERM)
        assert self.exit_status() == self.expected_status, self.messages.rest()
        assert not [line for line in self.messages.rest() if "Traceback" in line], self.messages.rest()

    def _assert_settled(self) -> None:
        """No flow and no descriptor is left, and each flow has ended for exactly one reason."""
        assert eventually(self.at_rest), f"descriptors left: {self.descriptors()}"
        self.await_flows(0)
        counted = self.counted()
        assert sum(counted.closed.values()) == counted.opened, counted
        if self._records and self.config["log"].get("access", True):
            self.await_records(counted.opened - counted.lost_records, event="access")

    def _answers(self) -> bool:
        try:
            return bool(self.ask("state")["state"] == "ready")
        except OSError:
            return False
