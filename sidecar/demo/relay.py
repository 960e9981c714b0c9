"""The relay of the demo, as its users have it: a configuration file, the commands, and what they print.

Owns: the file, the relay's process and its log. Never here: a way in that users do not have.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sidecar
from sidecar.demo.machine import RUN, Machine
from sidecar.errors import Problem, RelayError
from sidecar.users import is_mapped

HOME: Final = RUN / "relay-demo"
CONFIG: Final = HOME / "relay.toml"
LOG: Final = HOME / "relay.log"
MESSAGES: Final = HOME / "messages"
PROGRAM: Final = (sys.executable, "-m", "sidecar")
# Of the environment: what would configure the relay otherwise, or let it speak to whoever started us.
NOT_FOR_IT: Final = (
    *("RELAY_CONFIG", "LOG_LEVEL", "LOG_FORMAT", "TARGET_ADDR"),
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"),
)
RELAY_USER: Final = 1337
PORTS: Final = {"outbound": 15002, "inbound": 15006}  # the defaults, as RELAY_USER is
SECONDS: Final = 20.0  # the limit for a command or a record, which take a fraction of one
LOOK_SECONDS: Final = 0.005
TRIES: Final = 20  # of a second each, for a relay that starts in a tenth of one

Facts = Mapping[str, Any]


class Relay:
    """On the host `app`. As root it becomes another user, who is exempt from the rules; else its mark is what exempts it."""

    def __init__(self, machine: Machine, capture: str, backend: str) -> None:
        self._machine = machine
        self._read = 0  # of the log
        self.as_root = is_mapped(RELAY_USER)
        HOME.mkdir()
        CONFIG.write_text(self._configuration(capture, backend))
        with machine.on("app"), LOG.open("wb") as log, MESSAGES.open("wb") as messages:
            self._process = subprocess.Popen(
                [*PROGRAM, "--config", str(CONFIG)],
                cwd=HOME,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=messages,
                env=_environment(),
            )

    def _configuration(self, capture: str, backend: str) -> str:
        lines = [] if self.as_root else ["[relay]", 'user = "0"', 'group = "0"']
        for direction, port in PORTS.items():
            lines += ["[[listener]]", f'name = "{direction}"', f'direction = "{direction}"', f"port = {port}"]
            lines += [f'capture = "{capture}"']
        lines += ["[rules]", f'backend = "{backend}"']
        lines += [] if self.as_root else ["exempt_owner = false"]
        return "\n".join([*lines, "[log]", 'format = "json"', ""])

    def wait(self) -> str:
        """Until it takes connections."""
        for _ in range(TRIES):
            with contextlib.suppress(RelayError):
                return self.run("wait", "--timeout", "1s")
            self._check()
        raise RelayError(Problem("demo: the relay", "one that is ready", said_last()))

    def _check(self) -> None:
        """RelayError when it has ended."""
        status = self._process.poll()
        if status is not None:
            found = f"exit status {status}; {said_last()}"
            raise RelayError(Problem("demo: the relay", "one that runs", found))

    def stop(self) -> int:
        """Drain; its exit status."""
        self.run("drain")
        return self._process.wait(SECONDS)

    def run(self, *words: str) -> str:
        """What a command printed; RelayError when it failed."""
        with self._machine.on("app"):
            done = subprocess.run(
                [*PROGRAM, *words],
                cwd=HOME,
                capture_output=True,
                text=True,
                timeout=2 * SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
        if done.returncode:
            where = f"demo: relay-sidecar {words[0]}"
            raise RelayError(Problem(where, "success", done.stderr.strip()), exit_status=done.returncode)
        return done.stdout

    def apply_rules(self) -> str:
        return self.run("rules", "apply", "--config", str(CONFIG))

    def counters(self) -> Sequence[Facts]:
        """The rules that have seen a packet."""
        rules = json.loads(self.run("rules", "status", "--json", "--config", str(CONFIG)))["rules"]
        return [rule for rule in rules if rule["packets"]]

    def stats(self) -> Facts:
        return dict(json.loads(self.run("stats", "--json")))

    def record_of(self, client: str, seconds: float) -> Facts | None:
        """The access record of the flow of this client; None when it does not come in time."""
        end = time.monotonic() + seconds
        while True:
            for record in self._records():
                if record["event"] == "access" and record["client"] == client:
                    return record
            if time.monotonic() >= end:
                return None
            self._check()
            time.sleep(LOOK_SECONDS)

    def _records(self) -> list[Facts]:
        """What has been written since."""
        with LOG.open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._read += sum(map(len, whole))
        return [json.loads(line) for line in whole]


def said_last() -> str:
    """The relay's last message."""
    return next(filter(None, reversed(MESSAGES.read_text().splitlines())), "it said nothing")


def package() -> str:
    """Where this very package lies."""
    return os.path.dirname(os.path.dirname(os.path.abspath(sidecar.__file__)))


def _environment() -> dict[str, str]:
    """Ours, with this very package, wherever it lies."""
    path = os.pathsep.join(filter(None, (package(), os.environ.get("PYTHONPATH"))))
    return {**{name: value for name, value in os.environ.items() if name not in NOT_FOR_IT}, "PYTHONPATH": path}
