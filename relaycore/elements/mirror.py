"""Sends a copy of what clients say to a second server, whose answers nobody hears.

    [[element]]
    name = "mirror"
    use = "relaycore.elements.mirror:Mirror"
    options = { to = "10.0.0.9:8080", buffer = "4MiB" }

A mirror that is slow or dead delays nobody: what it does not take waits in the flow's buffer, and a copy that does not fit is
given up as a whole, because a stream with a hole is worth nothing.

Owns: the connections to the mirror, and one thread for each load that serves them while there are some.
Who may touch it: flows, on any thread, by begin(), add() and end(); sockets belong to the thread.
Never here: a flow that waits; a byte that is changed.
"""

import errno
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

from relaycore.element import Answer, Element, Flow, OptionError, Options, Release

PATIENCE = 10.0  # seconds that a mirror has to connect, and to take what is left when the flow has ended
SWEEP = 1.0  # seconds between two looks at who has run out of them
IDLE = 5.0  # seconds without a copy after which the thread ends
MOST_THROWN = 1 << 16

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Copy:
    """Of the requests of one flow."""

    def __init__(self, deadline: float) -> None:
        # Under the lock:
        self.waiting: deque[memoryview] = deque()
        self.size = 0
        self.ended = False
        self.given_up = False
        self.deadline: float | None = deadline
        # The thread's:
        self.sock: socket.socket | None = None
        self.connected = False
        self.shut = False
        self.silent = False  # the mirror says no more


class Mirrors:
    """The copies of one load, and what was counted of them."""

    def __init__(self, options: Options) -> None:
        self.connections = 0  # that the mirror has accepted
        self.dropped = 0  # copies that were given up
        self.clock: Callable[[], float] = time.monotonic
        self._to = options.address("to")
        self._buffer = options.size("buffer", 1 << 20)
        if not self._buffer:
            raise OptionError("buffer", "at least one byte", "0")
        self._total = options.size("total", 64 << 20)
        self._held = 0  # of all copies
        self._mark = options.mark
        self._lock = threading.Lock()
        self._news: set[Copy] = set()
        self._wakeup = -1  # an eventfd, while the thread runs

    def begin(self) -> Copy:
        """The copy of a flow; its connection comes when it can."""
        copy = Copy(self.clock() + PATIENCE)
        with self._lock:
            try:
                self._tell(copy)
            except (OSError, RuntimeError):  # no descriptor or no thread to be had
                self._give_up(copy)
        return copy

    def add(self, copy: Copy, data: bytes) -> bool:
        """More bytes; False when this copy is given up."""
        with self._lock:
            if not copy.given_up and (copy.size + len(data) > self._buffer or self._held + len(data) > self._total):
                self._give_up(copy)
                self._tell(copy)
            if copy.given_up:
                return False
            copy.waiting.append(memoryview(data))
            copy.size += len(data)
            self._held += len(data)
            self._tell(copy)
            return True

    def end(self, copy: Copy) -> None:
        """No more bytes; once or more."""
        with self._lock:
            if not copy.ended and not copy.given_up:
                copy.ended = True
                copy.deadline = self.clock() + PATIENCE
                self._tell(copy)

    def _tell(self, copy: Copy) -> None:
        """The thread hears of it. As long as there are copies, there is a thread."""
        self._news.add(copy)
        if self._wakeup >= 0:
            os.eventfd_write(self._wakeup, 1)
            return
        wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            threading.Thread(target=self._serve, args=(wakeup,), name="mirror", daemon=True).start()
        except RuntimeError:
            os.close(wakeup)
            raise
        self._wakeup = wakeup

    def _give_up(self, copy: Copy) -> None:
        copy.given_up = True
        copy.waiting.clear()
        self._held -= copy.size
        copy.size = 0
        self._news.discard(copy)
        self.dropped += 1

    def _serve(self, wakeup: int) -> None:
        """The thread. A fault in it ends it, and the next copy starts another."""
        try:
            self._serve_copies(wakeup)
        except BaseException:
            with self._lock:
                os.close(wakeup)
                self._wakeup = -1
            raise

    def _serve_copies(self, wakeup: int) -> None:
        """As long as there are copies, and a little longer."""
        copies: set[Copy] = set()
        swept = self.clock()
        with selectors.DefaultSelector() as selector:
            selector.register(wakeup, READ)
            while True:
                ready = {key.data: events for key, events in selector.select(SWEEP if copies else IDLE)}
                if not ready and not copies and self._left(wakeup):
                    return
                if ready.pop(None, 0):
                    os.eventfd_read(wakeup)
                with self._lock:
                    news, self._news = self._news, set()
                copies |= news
                due = news | ready.keys()
                if self.clock() - swept >= SWEEP:
                    swept = self.clock()
                    due |= copies
                for copy in due:
                    if self._is_over(selector, copy, ready.get(copy, 0)):
                        copies.discard(copy)

    def _left(self, wakeup: int) -> bool:
        """Whether nobody needs the thread; from then on it is gone."""
        with self._lock:
            if self._news:
                return False
            os.close(wakeup)
            self._wakeup = -1
            return True

    def _is_over(self, selector: selectors.BaseSelector, copy: Copy, events: int) -> bool:
        """Do for a copy what can be done now; whether that was the last of it."""
        try:
            over = copy.given_up or self._advanced(selector, copy, events)
        except OSError:
            with self._lock:
                if not copy.given_up:
                    self._give_up(copy)
            over = True
        if over and copy.sock is not None:
            _watch(selector, copy.sock, copy, 0)
            if copy.given_up:  # what is cut must not look whole
                copy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            copy.sock.close()
            copy.sock = None
        return over

    def _advanced(self, selector: selectors.BaseSelector, copy: Copy, events: int) -> bool:
        if copy.sock is None:
            copy.sock = self._dialled()
            _watch(selector, copy.sock, copy, WRITE)
        elif not copy.connected and events & WRITE:
            self._connected(copy, copy.sock)
        if copy.connected:
            if events & READ and not copy.silent:
                copy.silent = _is_silent(copy.sock)
            self._flush(copy, copy.sock)
            _watch(selector, copy.sock, copy, (0 if copy.silent else READ) | (WRITE if copy.waiting else 0))
        late = copy.deadline is not None and self.clock() >= copy.deadline
        if late and not copy.shut:
            raise TimeoutError
        return copy.shut and (late or copy.silent)

    def _dialled(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in self._to[0] else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if self._mark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
            error = sock.connect_ex(self._to)
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
        except OSError:
            sock.close()
            raise
        return sock

    def _connected(self, copy: Copy, sock: socket.socket) -> None:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        copy.connected = True
        with self._lock:
            self.connections += 1
            if not copy.ended:
                copy.deadline = None

    def _flush(self, copy: Copy, sock: socket.socket) -> None:
        """Send until the mirror takes no more, or nothing is left."""
        while True:
            with self._lock:
                part = copy.waiting[0] if copy.waiting else None
                ended = copy.ended
            if part is None:
                break
            try:
                count = sock.send(part)
            except BlockingIOError:
                return
            with self._lock:
                if not copy.given_up:
                    copy.size -= count
                    self._held -= count
                    copy.waiting[0] = part[count:]
                    if count == len(part):
                        copy.waiting.popleft()
        if ended and not copy.shut:
            sock.shutdown(socket.SHUT_WR)
            copy.shut = True


class Mirror(Element):
    """The copy begins with the client's first byte. When it is given up, the flow is released."""

    shared: Mirrors

    def __init__(self, flow: Flow, shared: Mirrors) -> None:
        super().__init__(flow, shared)
        self._copy: Copy | None = None

    @classmethod
    def configure(cls, options: Options) -> Mirrors:
        """See Mirrors."""
        return Mirrors(options)

    def request(self, data: bytes) -> Answer:
        """See Element."""
        if self._copy is None:
            self._copy = self.shared.begin()
        return data if self.shared.add(self._copy, data) else Release(data)

    def request_ended(self, held: bytes) -> Answer:
        """See Element."""
        self.closed("")
        return held

    def closed(self, reason: str) -> None:
        """See Element."""
        if self._copy is not None:
            self.shared.end(self._copy)


def _is_silent(sock: socket.socket) -> bool:
    """Throw away what the mirror says; whether that was all."""
    try:
        return not sock.recv(MOST_THROWN)
    except BlockingIOError:
        return False


def _watch(selector: selectors.BaseSelector, sock: socket.socket, copy: Copy, events: int) -> None:
    """Hear of these events of a copy's connection, or of none."""
    known = sock in selector.get_map()
    if events and known:
        selector.modify(sock, events, copy)
    elif events:
        selector.register(sock, events, copy)
    elif known:
        selector.unregister(sock)
