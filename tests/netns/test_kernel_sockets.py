"""Facts about sockets, pipes and splice that the engine stands on. A kernel that behaves otherwise fails here first."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.clock import DEADLINE, eventually
from tests.support.netns import Namespace
from tests.support.peers import delivered, fill, receive_all, receive_until_reset, reset

SPLICE_F_NONBLOCK = 2
SLOTS = 16

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as left:
        right, _ = listener.accept()
        with right:
            for end in (left, right):
                end.settimeout(DEADLINE)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield left, right


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe2(os.O_NONBLOCK)
    yield read, write
    os.close(read)
    os.close(write)


def readable(sock: socket.socket, mask: int = select.POLLIN) -> int:
    """Wait for one of these events; which ones hold."""
    poll = select.poll()
    poll.register(sock, mask)
    return sum(events for _, events in poll.poll(DEADLINE * 1000))


def splice_in(sock: socket.socket, pipe: tuple[int, int], size: int = 1 << 16) -> int:
    """From the socket into the pipe; a negative errno when it fails."""
    sock.setblocking(False)
    try:
        return os.splice(sock.fileno(), pipe[1], size, flags=SPLICE_F_NONBLOCK)
    except OSError as error:
        return -(error.errno or 0)


def test_splice_stops_at_an_urgent_byte(ends: Ends, pipe: tuple[int, int]) -> None:
    """A relay that only splices would spin at an urgent byte, and lose what follows it at the FIN."""
    left, right = ends
    right.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    left.send(b"before")
    left.send(b"!", socket.MSG_OOB)
    left.send(b"after")
    delivered(left)
    assert splice_in(right, pipe) == len(b"before")
    assert splice_in(right, pipe) == -errno.EAGAIN
    assert readable(right) & select.POLLIN
    left.shutdown(socket.SHUT_WR)
    assert readable(right, select.POLLRDHUP) & select.POLLRDHUP
    assert splice_in(right, pipe) == 0
    assert right.recv(1) == b"!"
    assert splice_in(right, pipe) == len(b"after")


def test_splice_says_again_for_a_full_pipe_too(ends: Ends, pipe: tuple[int, int]) -> None:
    """A relay that reads EAGAIN as "source dry" while its pipe holds bytes would stop moving for ever."""
    left, right = ends
    for _ in range(2 * SLOTS):
        left.send(b"x")
        delivered(left)
        assert readable(right)
        last = splice_in(right, pipe, 1)
    assert last == -errno.EAGAIN
    assert readable(right) & select.POLLIN
    assert len(os.read(pipe[0], 1 << 16)) == SLOTS
    assert splice_in(right, pipe) > 0


def test_errors_do_not_stick(ends: Ends, pipe: tuple[int, int]) -> None:
    """A relay that asks a reset socket twice would pass the reset on as a clean end."""
    left, right = ends
    left.send(bytes(5000))
    delivered(left)
    reset(left)
    assert readable(right, select.POLLHUP) & select.POLLHUP
    assert splice_in(right, pipe) == 5000
    assert splice_in(right, pipe) == -errno.ECONNRESET
    assert splice_in(right, pipe) == 0


def test_a_half_close_is_no_reset(ends: Ends) -> None:
    """IN, RDHUP and HUP together are an ordinary end: only a read says what it was."""
    left, right = ends
    right.shutdown(socket.SHUT_WR)
    left.send(b"answer")
    left.shutdown(socket.SHUT_WR)
    wanted = select.POLLIN | select.POLLRDHUP | select.POLLHUP
    assert eventually(lambda: readable(right, wanted) == wanted)
    assert receive_all(right) == b"answer"


def test_lingering_zero_destroys_what_is_queued(ends: Ends) -> None:
    """A reset passed on too early would take with it bytes that the relay had already accepted."""
    left, right = ends
    queued = fill(left, bytes(1 << 16))
    reset(left)
    assert len(receive_until_reset(right)) < queued


def test_a_failed_write_leaves_the_answer_readable(ends: Ends) -> None:
    """An origin that answers early and leaves must have its answer delivered."""
    left, right = ends
    left.send(b"too large")
    right.send(b"unread, so that close() resets")
    delivered(right)
    left.close()
    assert readable(right, select.POLLHUP) & select.POLLHUP
    with pytest.raises(ConnectionResetError):
        right.send(b"more")
    assert right.recv(100) == b"too large"


def test_splice_into_a_reset_socket_raises_sigpipe() -> None:
    """Workers block all signals: otherwise one broken client would end the process."""
    source = """
import os, signal, socket
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
listener = socket.create_server(("127.0.0.1", 0))
left = socket.create_connection(listener.getsockname())
left.shutdown(socket.SHUT_WR)
read, write = os.pipe()
os.write(write, b"x")
os.splice(read, left.fileno(), 1)
"""
    done = subprocess.run([sys.executable, "-c", source], timeout=60, check=False)
    assert done.returncode == -signal.SIGPIPE


def test_accept_gives_a_connection_that_was_reset_before() -> None:
    """Between the handshake and accept a client may go: accept succeeds all the same, and only a read tells."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        reset(client)
        accepted, _ = listener.accept()
        with accepted, pytest.raises(OSError) as unnamed:
            accepted.getpeername()
        assert unnamed.value.errno == errno.ENOTCONN


def test_a_connection_inherits_the_options_of_its_listener() -> None:
    """The relay sets them once, on its listeners: without inheritance each accepted connection would lack them."""
    options = [
        (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 8),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9),
    ]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for option in options:
            listener.setsockopt(*option)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert [accepted.getsockopt(level, name) for level, name, _ in options] == [value for *_, value in options]


def test_a_listener_for_both_families_shows_mapped_addresses() -> None:
    """Addresses are canonicalised before they are compared, or ::ffff:127.0.0.1 would slip past the check for loops."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
            accepted, peer = listener.accept()
        accepted.close()
    assert peer[0] == "::ffff:127.0.0.1"


@pytest.mark.parametrize(("no_port", "connections"), [(False, 100), (True, 200)])
def test_binding_an_address_without_a_port_uses_each_port_per_destination(no_port: bool, connections: int) -> None:
    """With plain bind(address, 0) a spoofing relay would run out of ports 100 % sooner here."""
    namespace = Namespace("ports", {"net.ipv4.ip_local_port_range": "40000 40099"})
    made: list[socket.socket] = []
    with namespace.entered():
        servers = [socket.create_server((host, 80), backlog=500) for host in ("127.0.0.1", "127.0.0.2")]
        for server in servers:
            for _ in range(100):
                client = socket.socket()
                if no_port:
                    client.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
                try:
                    client.bind(("127.0.0.9", 0))
                    client.connect(server.getsockname())
                    made.append(client)
                except OSError as error:
                    assert error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
                    client.close()
    assert len(made) == connections
    for sock in [*made, *servers]:
        sock.close()
    namespace.close()
