"""A path through a relay: where clients dial, where origins listen, and every socket that a test opens on the way.

Owns: those sockets; all of them have a time-out, and all are closed with the path.
Never: whether and how connections on the way are captured (world.py).
"""

import contextlib
import select
import socket
from contextlib import ExitStack
from typing import NamedTuple

from tests.support.clock import DEADLINE
from tests.support.netns import Place
from tests.support.network import FAMILY
from tests.support.peers import Endpoint, expect_reset, local, receive_all, shrink, text_of


class Pair(NamedTuple):
    """The two ends of a flow, the socket that dialled and the one that its origin accepted."""

    client: socket.socket
    origin: socket.socket
    name: str  # of the client, as records have it


class Path:
    """One way through a relay: clients are at `near`, origins at `far`."""

    def __init__(self, near: Place, far: Place, family: int, dial_from: str, bind_to: Endpoint) -> None:
        self.near = near
        self.far = far
        self.family = family
        self.dial_from = dial_from
        self._sockets = ExitStack()
        # Bound and not listening: the port is ours, and refuses until listen().
        self._listener = self._open(far)
        self._listener.bind(bind_to)
        self.origin: Endpoint = self._listener.getsockname()[:2]
        self.dial_to = self.origin

    def __enter__(self) -> "Path":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._sockets.close()

    def listen(self, backlog: int = 128, *, receive_buffer: int = 0) -> None:
        """Let the origin accept; the buffer is what its sockets inherit."""
        shrink(self._listener, receive_buffer=receive_buffer)
        self._listener.listen(backlog)

    def unlisten(self) -> None:
        """Give the origin's port up, for a program that wants it."""
        self._listener.close()

    def dial(self, *, port: int = 0, receive_buffer: int = 0, send_buffer: int = 0) -> socket.socket:
        """A client, connected; from this port, or any."""
        client = self._client(port)
        shrink(client, receive_buffer=receive_buffer, send_buffer=send_buffer)
        client.connect(self.dial_to)
        return client

    def dial_in_vain(self, *, port: int = 0, within: float = DEADLINE) -> str:
        """A client that is reset, and how records name it. A relay may be so fast that connect() is already told."""
        client = self._client(port)
        name = local(client)
        client.settimeout(within)
        with contextlib.suppress(ConnectionResetError):
            client.connect(self.dial_to)
            expect_reset(client, within=within)
        return name

    def dial_beside(self) -> None:
        """A connection to the origin from its own machine, past the relay, which nobody waits for."""
        client = self._open(self.far)
        client.setblocking(False)
        client.connect_ex(self.origin)

    def accept(self) -> socket.socket:
        """The next connection that reached the origin."""
        origin, _ = self._listener.accept()
        self._sockets.callback(origin.close)
        origin.settimeout(DEADLINE)
        return origin

    def accept_for(self, client: socket.socket) -> socket.socket:
        """The same, or the error of a client whose connection was reset instead."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(client, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(DEADLINE * 1000)]
        if client.fileno() in ready:
            client.recv(1)
        return self.accept()

    def pair(self, *, receive_buffer: int = 0) -> Pair:
        """A flow: both of its ends."""
        client = self.dial(receive_buffer=receive_buffer)
        return Pair(client, self.accept(), local(client))

    def live_pair(self) -> Pair:
        """A flow that the relay knows to be connected: a byte has gone through. Before, its end would be that of a dial."""
        pair = self.pair()
        pair.client.sendall(b"!")
        assert pair.origin.recv(1) == b"!"
        return pair

    def come_back(self, times: int) -> str:
        """A client that uses one port again and again, and how records name it. The origin ends first, so that the relay's end
        of the client's connection is the one that stays in TIME_WAIT."""
        port = 50000
        for _ in range(times):
            client = self.dial(port=port)
            origin = self.accept()
            origin.sendall(b"bye")
            origin.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"bye"
            client.close()
            assert receive_all(origin) == b""
            origin.close()
        return text_of((self.dial_from, port))

    def _client(self, port: int = 0) -> socket.socket:
        client = self._open(self.near)
        client.bind((self.dial_from, port))  # so that it has a name before it is connected, and whatever becomes of it
        return client

    def _open(self, place: Place) -> socket.socket:
        with place.entered():
            sock = socket.socket(FAMILY[self.family], socket.SOCK_STREAM)
        self._sockets.callback(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(DEADLINE)
        return sock
