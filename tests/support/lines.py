"""Lines that a program prints, as they come.

Owns: one thread per stream, which reads to the end whatever the test does: a pipe that nobody reads would block its writer.
"""

import threading
from collections.abc import Callable
from typing import IO, Generic, TypeVar

from tests.support.clock import DEADLINE

Line = TypeVar("Line")


class Lines(Generic[Line]):
    """Every line so far, each through `parse`; and a wait for those to come."""

    def __init__(self, stream: IO[bytes], parse: Callable[[str], Line]) -> None:
        self._stream = stream
        self._parse = parse
        self._lines: list[Line] = []
        self._failure = ""
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for raw in self._stream:
            text = raw.decode(errors="replace").rstrip("\n")
            with self._changed:
                try:
                    self._lines.append(self._parse(text))
                except ValueError as error:
                    self._failure = f"{error}: {text}"
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def all(self) -> list[Line]:
        """Those that came so far."""
        with self._changed:
            assert not self._failure, self._failure
            return list(self._lines)

    def wait(self, wanted: Callable[[Line], bool], count: int = 1, *, after: int = 0, within: float = DEADLINE) -> list[Line]:
        """The first `count` lines of this kind, from number `after` on; fewer when no more came in time."""
        found: list[Line] = []
        seen = after

        def complete() -> bool:
            nonlocal seen
            while len(found) < count and seen < len(self._lines):
                found.extend(line for line in [self._lines[seen]] if wanted(line))
                seen += 1
            return len(found) == count or self._ended

        with self._changed:
            self._changed.wait_for(complete, within)
            assert not self._failure, self._failure
        return found

    def rest(self) -> list[Line]:
        """All of them, once the program has ended."""
        self._reader.join(DEADLINE)
        self._stream.close()
        return self.all()
