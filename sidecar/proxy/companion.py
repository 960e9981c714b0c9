"""The companion of `run --with-rules`: a process that keeps the privileges which the relay gives up, to guard the rules.

It is forked before the change of user, waits until the relay listens, applies the rules, repairs them, and takes them away when
the relay ends, however that comes. If it is killed itself, its keeper does that, and the relay learns of it from the pipe.

Owns: that process and the two pipes. Never here: a rule (sidecar.rules); anything that the relay's peers say.
"""

import contextlib
import json
import os
import select
import signal
from collections.abc import Mapping
from typing import Any, NoReturn

from sidecar.config import Config
from sidecar.errors import FAILED, Problem, RelayError

APPLY_SECONDS = 30.0  # it takes a fraction of a second; a lock that another program holds may take longer
REMOVE_SECONDS = 10.0
WORD_BYTES = 65536
GO = b"go\n"

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Companion:
    """The relay's end of it."""

    def __init__(self, config: Config) -> None:
        orders, self._orders = os.pipe()
        self._words, words = os.pipe()
        self._rest = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._orders)
            os.close(self._words)
            _accompany(config, orders, words)
        os.close(orders)
        os.close(words)

    def apply(self) -> Mapping[str, Any]:
        """The relay relays: let the rules be applied, and say how. RelayError when they cannot be."""
        os.write(self._orders, GO)
        while select.select([self._words], [], [], APPLY_SECONDS)[0]:
            for word in self.take():
                if word["event"] == "applied":
                    os.set_blocking(self._words, False)
                    return word
                if word["event"] == "failed":
                    raise RelayError(*(Problem(*problem) for problem in word["problems"]), exit_status=word["exit_status"])
                if word["event"] == "gone":
                    raise RelayError(
                        Problem("--with-rules", "a process that applies the rules", "its end", "whoever killed it")
                    )
        step = "another program may hold the lock of iptables"
        raise RelayError(Problem("--with-rules", f"rules within {APPLY_SECONDS:g} s", "no answer", step))

    def fileno(self) -> int:
        """Readable when take() has something."""
        return self._words

    def take(self) -> list[Mapping[str, Any]]:
        """What it has said since; last of all, once, that it is gone."""
        try:
            data = os.read(self._words, WORD_BYTES)
        except BlockingIOError:
            return []
        if not data:
            return [{"event": "gone"}]
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> None:
        """Let the rules be taken away, and wait until they are."""
        os.close(self._orders)
        os.set_blocking(self._words, True)
        while select.select([self._words], [], [], REMOVE_SECONDS)[0] and os.read(self._words, WORD_BYTES):
            pass
        os.close(self._words)


def _accompany(config: Config, orders: int, words: int) -> NoReturn:
    """The companion's end. It lives as long as the relay's end of `orders`."""

    def told(event: str, fields: Mapping[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(words, json.dumps({"event": event, **fields}).encode() + b"\n")

    status = FAILED
    try:
        os.setsid()  # Ctrl-C is meant for the relay, which then ends us
        signal.set_wakeup_fd(-1)
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it runs programs, and waits for them
        if os.read(orders, len(GO)) == GO:
            from sidecar.rules.guard import Guard

            status = Guard(config, repair=True, probe=True, told=told, parent=orders).run()
    except RelayError as error:
        told("failed", {"problems": error.problems, "exit_status": error.exit_status})
    finally:
        os._exit(status)
