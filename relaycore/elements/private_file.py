"""A file that payloads may be written to: appended to, bounded, and nobody's but its owner's.

Owns: its descriptor. Who may touch it: flows of all workers; each call of append() is one write of the kernel's.
Never here: a file that others can read, a link that is followed, a buffer.
"""

import os
import stat
import threading

from relaycore.options import Options


class PrivateFile:
    """Opened when options are taken, closed with the last flow that writes to it."""

    def __init__(self, options: Options, name: str, largest: int) -> None:
        self._fd = -1
        path = options.path(name)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._fd = os.open(path, flags, 0o600)
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise options.misfit(name, "an ordinary file", path)
            if status.st_mode & 0o077:
                os.fchmod(self._fd, 0o600)
        except OSError as error:
            raise options.misfit(name, "a file that the relay can write", f"{path}: {error.strerror}") from error
        self._largest = largest
        self._lock = threading.Lock()
        self.full = False  # it takes no more: it is as large as it may be, or so is the disk

    def append(self, data: bytes) -> bool:
        """Whether it was written. What fits only in part is left out, and everything after it."""
        with self._lock:
            if not self.full:
                try:
                    fits = os.fstat(self._fd).st_size + len(data) <= self._largest
                    self.full = not fits or os.write(self._fd, data) != len(data)
                except OSError:
                    self.full = True
            return not self.full

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
