"""Signals as something to poll, for a process that has no loop.

Owns: the process's handlers for the signals that end it. The relay has its own (proxy.signals).
Never here: anything in a handler but being called.
"""

import os
import signal
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def wake_by_ending() -> int:
    """A descriptor from which the number of a signal can be read once one has come that ends us."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in ENDING:
        signal.signal(number, lambda *_: None)
    return wake
