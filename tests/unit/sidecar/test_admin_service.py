"""sidecar.admin.service: many, slow, silent and rude clients."""

import errno
import socket
import threading
from collections.abc import Iterator

import pytest

from sidecar.admin import service as module
from sidecar.admin.service import MOST_CLIENTS, MOST_REQUEST_BYTES, Service
from sidecar.loop import Loop
from tests.support.clock import eventually


class Echo:
    """Answers a line with that line, many times."""

    times = 1
    welcome = True

    def welcomes(self, client: socket.socket) -> bool:
        return self.welcome

    def is_whole(self, request: bytes) -> bool:
        return b"\n" in request

    def answer(self, request: bytes) -> bytes:
        return request * self.times

    def too_long(self) -> bytes:
        return b"too long\n"


class Server:
    """A service whose loop runs in a thread."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.loop = Loop()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.address = self.listener.getsockname()
        self.service = Service(self.loop, self.listener, self.echo)
        self._wake, self._waker = socket.socketpair()
        self._running = True
        self.loop.watch(self._wake.fileno(), module.READABLE, self._stop)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while self._running:
            self.loop.run_once()

    def _stop(self) -> None:
        self._running = False

    def close(self) -> None:
        self._waker.send(b"x")
        self._thread.join()
        self.service.close()

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address)
        client.settimeout(10)
        return client


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def receive_all(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as file:
        return file.read()


def test_a_request_in_pieces_is_answered(server: Server) -> None:
    """A client on a slow path would get no answer."""
    client = server.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in (b"a", b"b", b"\n"):
        client.sendall(piece)
    assert receive_all(client) == b"ab\n"


def test_silent_clients_keep_nobody_out(server: Server) -> None:
    """Whoever opens sixty-four connections would make the kubelet's probe fail, and the pod restart."""
    silent = [server.connect() for _ in range(MOST_CLIENTS)]
    for _ in range(MOST_CLIENTS * 2):
        probe = server.connect()
        probe.sendall(b"x\n")
        assert receive_all(probe) == b"x\n"
    assert silent[0].recv(1) == b"", "the oldest client was not closed"


def test_a_client_that_does_not_read_delays_nobody(server: Server) -> None:
    """One stuck scraper would stop the main thread."""
    server.echo.times = 4_000_000
    slow = server.connect()
    slow.sendall(b"x\n")
    slow.recv(1, socket.MSG_PEEK)
    server.echo.times = 1
    probe = server.connect()
    probe.sendall(b"y\n")
    assert receive_all(probe) == b"y\n"
    assert receive_all(slow) == b"x\n" * 4_000_000


def test_a_request_without_end_is_refused_and_the_refusal_arrives(server: Server) -> None:
    """Memory would grow with what a client sends; or the client would see a reset and no reason."""
    client = server.connect()
    client.sendall(b"x" * (MOST_REQUEST_BYTES + 100_000))
    assert receive_all(client) == b"too long\n"


def test_a_client_that_stays_is_closed_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that never end would pile up."""
    monkeypatch.setattr(module, "CLIENT_SECONDS", 0.02)
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.01)
    server = Server()
    client = server.connect()
    assert client.recv(1) == b""
    client.close()
    server.close()


def test_a_client_that_got_its_answer_is_forgotten(server: Server) -> None:
    """Every scrape would leave a descriptor behind, until its time is over."""
    for _ in range(3):
        probe = server.connect()
        probe.sendall(b"x\n")
        assert receive_all(probe) == b"x\n"
    assert eventually(lambda: not server.service._clients)


def test_who_is_not_welcome_is_closed(server: Server) -> None:
    """A stranger could ask."""
    server.echo.welcome = False
    assert receive_all(server.connect()) == b""


def test_a_client_that_resets_is_forgotten(server: Server) -> None:
    """One rude client would end the relay."""
    for stage in (b"", b"x", b"x\n"):
        client = server.connect()
        client.sendall(stage)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    probe = server.connect()
    probe.sendall(b"y\n")
    assert receive_all(probe) == b"y\n"


def test_a_closed_service_serves_nobody() -> None:
    """A relay that has ended would still hold its ports, and its clients would wait."""
    server = Server()
    client = server.connect()
    assert eventually(lambda: server.service._clients)
    server.close()
    assert client.recv(1) == b""
    client.close()
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_without_descriptors_it_waits_instead_of_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit on open files the main thread would use a whole CPU."""
    monkeypatch.setattr(module, "ACCEPT_PAUSE_SECONDS", 0.01)
    tries = []

    class Listener(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            tries.append(1)
            if len(tries) == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    loop = Loop()
    with Listener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        service = Service(loop, listener, Echo())
        client = socket.create_connection(listener.getsockname())
        loop.run_once()
        assert len(tries) == 1
        loop.run_once()  # the timer, not the socket
        assert len(tries) == 1
        client.sendall(b"x\n")
        for _ in range(4):
            loop.run_once()
        assert client.recv(9) == b"x\n"
        service.close()
        client.close()
