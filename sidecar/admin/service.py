"""Serves short questions on a listening socket: each client sends one request and gets one answer.

Owns: the clients of one listening socket, each with its buffers and its deadline; bounds on their number, size and time.
Never here: what a request means (unix and web); a blocking call: many or slow clients cost the main thread nothing else.
"""

import socket
import time
from collections.abc import Callable
from typing import Protocol

from sidecar.loop import READABLE, WRITABLE, Loop

MOST_CLIENTS = 64  # one more closes the oldest: whoever holds connections open cannot keep a probe out
MOST_REQUEST_BYTES = 8192
CLIENT_SECONDS = 10.0  # from accept to close
SWEEP_SECONDS = 1.0
ACCEPT_PAUSE_SECONDS = 0.1  # after accept() found no descriptor or memory
READ_BYTES = 4096


class Dialect(Protocol):
    """What a service speaks."""

    def welcomes(self, client: socket.socket) -> bool:
        """Whether this client is served at all."""

    def is_whole(self, request: bytes) -> bool:
        """Whether the request has ended."""

    def answer(self, request: bytes) -> bytes:
        """The answer to a whole request."""

    def too_long(self) -> bytes:
        """The answer to a request of more than MOST_REQUEST_BYTES."""


class Service:
    """One listening socket, which it owns, and its clients."""

    def __init__(self, loop: Loop, listener: socket.socket, dialect: Dialect) -> None:
        self._loop = loop
        self._listener = listener
        self._dialect = dialect
        self._clients: dict[int, _Client] = {}  # by descriptor, the oldest first
        self._sweeping = False
        listener.setblocking(False)
        self._accept_again()

    def close(self) -> None:
        """Stop serving; answers that are not yet sent are lost."""
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        for client in list(self._clients.values()):
            client.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError:  # EMFILE, ENFILE, ENOMEM: the socket would stay readable, and the loop would spin
            self._loop.forget(self._listener.fileno())
            self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_again)
            return
        sock.setblocking(False)
        if not self._dialect.welcomes(sock):
            sock.close()
            return
        if len(self._clients) >= MOST_CLIENTS:
            next(iter(self._clients.values())).close()
        self._clients[sock.fileno()] = _Client(self._loop, sock, self._dialect, self._clients.pop)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _accept_again(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.watch(self._listener.fileno(), READABLE, self._accept)

    def _sweep(self) -> None:
        now = time.monotonic()
        for client in [client for client in self._clients.values() if client.deadline <= now]:
            client.close()
        self._sweeping = bool(self._clients)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)


class _Client:
    """A connection: reads a request, writes the answer, waits until the client closes."""

    def __init__(self, loop: Loop, sock: socket.socket, dialect: Dialect, forget: Callable[[int], object]) -> None:
        self.deadline = time.monotonic() + CLIENT_SECONDS
        self._loop = loop
        self._socket = sock
        self._dialect = dialect
        self._forget = forget
        self._request = b""
        self._answer: memoryview = memoryview(b"")
        loop.watch(sock.fileno(), READABLE, self._guarded(self._read))

    def close(self) -> None:
        """Forget the client; what is unread is discarded."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._forget(self._socket.fileno())
            self._socket.close()

    def _guarded(self, step: Callable[[], None]) -> Callable[[], None]:
        """A step that ends the client where its connection fails."""

        def run() -> None:
            try:
                step()
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self.close()

        return run

    def _read(self) -> None:
        data = self._socket.recv(READ_BYTES)
        self._request += data
        if not data:
            self.close()
        elif self._dialect.is_whole(self._request):
            self._reply(self._dialect.answer(self._request))
        elif len(self._request) > MOST_REQUEST_BYTES:
            self._reply(self._dialect.too_long())

    def _reply(self, answer: bytes) -> None:
        self._request = b""
        self._answer = memoryview(answer)
        self._loop.watch(self._socket.fileno(), WRITABLE, self._guarded(self._write))

    def _write(self) -> None:
        self._answer = self._answer[self._socket.send(self._answer) :]
        if not self._answer:
            # Closing now would reset the connection if the client has sent more than was read, and destroy the answer.
            self._socket.shutdown(socket.SHUT_WR)
            self._loop.watch(self._socket.fileno(), READABLE, self._guarded(self._discard))

    def _discard(self) -> None:
        if not self._socket.recv(READ_BYTES):
            self.close()
