"""System calls of the running relay that fail, by strace.

Owns: the strace process. It attaches to every thread of the relay and lets go of them at the end.
Never: a call that is both failed and executed: an injected error replaces the call.
"""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.lines import Lines
from tests.support.netns import Place
from tests.support.relay import Relay


class Injection:
    """What strace has done so far."""

    def __init__(self, lines: Lines[str]) -> None:
        self._lines = lines

    def count(self) -> int:
        """Calls that failed instead of being made."""
        return sum("(INJECTED)" in line for line in self._lines.all())


@contextmanager
def injected(relay: Relay, call: str, error: str, *, every: int) -> Iterator[Injection]:
    """One in `every` of these calls fails with this error."""
    argv = [
        "strace",
        "-f",
        "-p",
        str(relay.process.pid),
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error={error}:when={every}+{every}",
    ]
    process = Place().popen(argv, stderr=subprocess.PIPE)
    assert process.stderr is not None
    lines: Lines[str] = Lines(process.stderr, str)
    try:
        assert lines.wait(lambda line: "attached" in line), f"strace: {lines.all()}"
        yield Injection(lines)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
