"""A file that payloads may be written to: appended to, bounded, and nobody's but its owner's.

Owns: its descriptor. Who may touch it: flows of all workers; each call of append() is one write of the kernel's.
Never here: a file that others can read, a link that is followed, a buffer.
"""

import errno
import os
import stat
import threading

from relaycore.options import Options


class PrivateFile:
    """Opened by the first flow that writes to it, since a check writes nothing; closed with the last one."""

    def __init__(self, options: Options, name: str, largest: int) -> None:
        self._fd = -1
        self._path = options.path(name)
        if not os.path.isdir(os.path.dirname(self._path) or "."):
            raise options.misfit(name, "a file in a directory that there is", self._path)
        if os.path.lexists(self._path) and not stat.S_ISREG(os.lstat(self._path).st_mode):
            raise options.misfit(name, "an ordinary file", self._path)
        self._largest = largest
        self._lock = threading.Lock()
        self.full = False  # it takes no more: it is as large as it may be, or so is the disk, or it cannot be opened

    def append(self, data: bytes) -> bool:
        """Whether it was written; what fits only in part is left out, and all after it. OSError, once: it cannot be opened."""
        with self._lock:
            if self._fd < 0 and not self.full:
                self.full = True  # unless this goes well
                self._fd = self._open()
                self.full = False
            if not self.full:
                try:
                    fits = os.fstat(self._fd).st_size + len(data) <= self._largest
                    self.full = not fits or os.write(self._fd, data) != len(data)
                except OSError:
                    self.full = True
            return not self.full

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "no ordinary file", self._path)
            if status.st_mode & 0o077:
                os.fchmod(fd, 0o600)
        except OSError:
            os.close(fd)
            raise
        return fd

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
