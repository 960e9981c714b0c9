"""The load programs of load.py as a test sees them: started in a place, asked, ended.

Owns: their processes.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.netns import Place
from tests.support.peers import Endpoint


class Load:
    """One load program."""

    def __init__(self, place: Place, role: str, address: Endpoint, *options: str) -> None:
        host, port = address
        argv = [sys.executable, "-m", "tests.support.load", role, host, str(port), *options]
        self.process = place.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def answer(self) -> dict[str, Any]:
        """The next line that it says; it ends by itself, or the time-out of the test ends both."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the load program ended early"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def proceed(self) -> None:
        """Let clients that hold their connections ask again."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def echo(place: Place, address: Endpoint, *options: str) -> Iterator[Load]:
    """An echo server that listens."""
    with _load(place, "echo", address, *options) as server:
        server.answer()
        yield server


@contextmanager
def clients(place: Place, address: Endpoint, total: int, at_once: int, *options: str) -> Iterator[Load]:
    """Clients on their way; their first answer comes when each has been served or has failed."""
    with _load(place, "clients", address, "--total", str(total), "--at-once", str(at_once), *options) as load:
        yield load


@contextmanager
def _load(place: Place, role: str, address: Endpoint, *options: str) -> Iterator[Load]:
    load = Load(place, role, address, *options)
    try:
        yield load
    finally:
        load.close()
