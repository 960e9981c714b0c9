"""The load generator as its tests start it: on loopback, on ports that the kernel chooses.

Owns: its processes.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HOST = "127.0.0.1"
SECONDS = 0.2


class Generator:
    """One `python -m benchmarks.load`."""

    def __init__(self, *arguments: object) -> None:
        argv = [sys.executable, "-m", "benchmarks.load", *map(str, arguments)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> dict[str, Any]:
        """What it says last, after the end of its stdin."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        said = self.process.stdout.readlines()
        assert self.process.wait() == 0
        return json.loads(said[-1]) if said else {}


@contextmanager
def generator(*arguments: object) -> Iterator[Generator]:
    started = Generator(*arguments)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for pipe in (started.process.stdin, started.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def served() -> Iterator[tuple[Generator, list[int]]]:
    """A server on ports of its own."""
    with generator("serve", HOST, "--ports", 0, 0, 0) as server:
        yield server, server.line()["ports"]


def client(role: str, port: int, *options: object) -> dict[str, Any]:
    with generator(role, "--to", HOST, "--port", port, "--seconds", SECONDS, *options) as started:
        return started.end()
