"""Signals as something that the loop can wait for.

Owns: the process's handlers and the pipe that wakes the loop. PID 1 has no default handlers: these are set before all else.
Never here: what a signal does (relay); anything in a handler but being called.
"""

import signal
import socket

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
IGNORED = (signal.SIGUSR2, signal.SIGALRM)  # nothing here sends them: a stray one must not kill without a record
PENDING_SIGNALS = 512  # read at once; equal ones coalesce anyway


class Signals:
    """One per process, made by the main thread."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _woken)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as PID 1 we inherit orphans: the kernel then reaps them

    def fileno(self) -> int:
        """Becomes readable when take() has something."""
        return self._reader.fileno()

    def take(self) -> list[int]:
        """The numbers of the signals that came, in their order."""
        try:
            return list(self._reader.recv(PENDING_SIGNALS))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Give the descriptors back; the handlers stay."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _woken(_number: int, _frame: object) -> None:
    """Its number is in the pipe already (signal.set_wakeup_fd)."""
