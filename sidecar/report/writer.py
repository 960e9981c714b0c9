"""Writes lines to a descriptor from a thread of its own, so that a blocked or full log stops nobody.

Owns: the bounded queue, the thread, and the count of lines that were dropped. One producer, the main thread; one consumer.
Never here: what a line says; a write by the producer; a thread before start() (it would keep the capabilities of its moment).
"""

import collections
import os
import select
import threading
from collections.abc import Callable, Iterable

BATCH_LINES = 256  # taken from the queue at once: few writes, and little beyond the queue's own limit


class Writer:
    """put() never blocks. What finds the queue full, or cannot be written, is dropped and counted."""

    def __init__(self, descriptor: int, limit: int, tell_drops: Callable[[int], str]) -> None:
        """The descriptor stays the caller's; tell_drops makes the line that says how many were dropped."""
        self.limit = limit
        self.dropped = 0
        self._descriptor = descriptor
        self._tell_drops = tell_drops
        self._told = 0  # of dropped: what a line has said
        self._failing = False  # the last write did not take everything
        self._torn = False  # what was written so far ends inside a line
        self._lines: collections.deque[bytes] = collections.deque()
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)  # daemon: it may be stuck in write()

    def start(self) -> None:
        """Start writing, also what was put before."""
        self._thread.start()

    def put(self, lines: Iterable[bytes]) -> None:
        """Queue lines, each with its newline."""
        fresh = list(lines)
        with self._change:
            room = max(0, self.limit - len(self._lines))
            self._lines.extend(fresh[:room])
            self.dropped += len(fresh[room:])
            self._change.notify()

    def settle(self, seconds: float) -> None:
        """Wait until the queue is empty, but no longer than that."""
        with self._change:
            self._change.wait_for(lambda: not self._lines, seconds)

    def close(self, seconds: float) -> None:
        """Write what is queued, but wait no longer than that."""
        with self._change:
            self._closing = True
            self._change.notify()
        if self._thread.ident is None:  # never started; one that was may have ended already, as it was told to
            self._thread.start()
        self._thread.join(seconds)

    def _run(self) -> None:
        while batch := self._next_batch():
            self._write(b"".join(batch))

    def _next_batch(self) -> list[bytes]:
        """Up to BATCH_LINES lines as soon as there are some; nothing at the end."""
        with self._change:
            if not self._lines and self.dropped > self._told and not self._failing:  # caught up: writing works again
                self._lines.append(self._tell_drops(self.dropped - self._told).encode())
                self._told = self.dropped
            self._change.wait_for(lambda: self._lines or self._closing)
            batch = [self._lines.popleft() for _ in range(min(BATCH_LINES, len(self._lines)))]
            self._change.notify()
            return batch

    def _write(self, lines: bytes) -> None:
        """All of it, or as much as the descriptor takes; the rest counts as dropped."""
        start = b"\n" if self._torn else b""
        data = start + lines
        written = 0
        try:
            while written < len(data):
                written += self._write_some(data[written:])
        except OSError:  # ENOSPC, EPIPE, EIO: the next lines try again
            pass
        self._failing = written < len(data)
        if written:
            self._torn = not data[:written].endswith(b"\n")
        if self._failing:
            with self._change:
                self.dropped += data.count(b"\n", max(written, len(start)))

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody who shares it made it non-blocking
            select.select([], [self._descriptor], [])
            return 0
