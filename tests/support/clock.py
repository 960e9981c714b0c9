"""Deadlines. The only place where a test polls, and the only place where one lets time pass.

Owns: the longest wait of a test, the polling interval. Whoever waits for something that has an event (a socket, a line of
output) waits for the event; this is for what the kernel only shows in /proc.
Never: a sleep in the hope that something has happened meanwhile.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Deadlines are asserted at ten times the figure; this one is ten times the second in which everything must be back.
DEADLINE = 10.0

_POLL_INTERVAL = 0.005


def eventually(probe: Callable[[], T], *, within: float = DEADLINE) -> T:
    """Ask until the answer is true and return it; the last answer, true or not, when the time is over."""
    end = time.monotonic() + within
    while not (answer := probe()) and time.monotonic() < end:
        time.sleep(_POLL_INTERVAL)  # tidy: /proc has no event to wait for
    return answer


def observe(seconds: float) -> None:
    """Let time pass to see that nothing happens in it: the absence of an event has no signal."""
    time.sleep(seconds)  # tidy: an absence has no signal


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
