"""The main thread's event loop: descriptors that became ready, and timers. Nothing in it may block.

Owns: what is polled (through selectors) and a heap of timers on CLOCK_MONOTONIC. proxy runs it; admin registers with it.
Never here: a thread, a flow's bytes (the engine has loops of its own), knowledge of who is calling.
"""

import heapq
import itertools
import selectors
import time
from collections.abc import Callable

READABLE = selectors.EVENT_READ
WRITABLE = selectors.EVENT_WRITE


class Loop:
    """One per process. Callbacks run one after the other, in the thread that calls run_once()."""

    def __init__(self) -> None:
        # poll(2) registers nothing with the kernel, so that watching cannot fail; for so few descriptors epoll gains nothing.
        self._selector = selectors.PollSelector()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()  # timers due at the same time fire in the order they were made

    def watch(self, fileno: int, events: int, callback: Callable[[], object]) -> None:
        """Call back whenever the descriptor is ready, until forget(). The caller keeps owning it. Again: new events."""
        if fileno in self._selector.get_map():
            self._selector.modify(fileno, events, callback)
        else:
            self._selector.register(fileno, events, callback)

    def forget(self, fileno: int) -> None:
        """Stop watching; before the descriptor is closed. Harmless when it is not watched."""
        if fileno in self._selector.get_map():
            self._selector.unregister(fileno)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call back once, so much later. There is no way to cancel: a callback looks whether it still has a reason."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def run_once(self) -> None:
        """Sleep until something is ready or due, then call back for all of it."""
        for selected, _ in self._selector.select(self._sleep()):
            # an earlier callback of this batch may have forgotten it, and closed the descriptor
            if self._selector.get_map().get(selected.fd) is selected:
                selected.data()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        """Forget all; no descriptor that was watched is closed."""
        self._selector.close()

    def _sleep(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
