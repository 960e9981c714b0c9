"""What the two ends of a connection do: send, end, reset, wait; and what they expect of each other.

Owns: the vocabulary of the scripted tests. A test holds the sockets of both ends and plays both parts in one thread, so that
every step is ordered by what was received and by nothing else.
Never: a socket without a time-out.
"""

import errno
import fcntl
import ipaddress
import select
import socket
import struct

from tests.support.clock import DEADLINE, eventually

SIOCOUTQ = 0x5411

Endpoint = tuple[str, int]


def text_of(endpoint: Endpoint) -> str:
    """As the access record writes it: 1.2.3.4:80, [::1]:80."""
    host, port = endpoint[:2]
    return f"[{host}]:{port}" if ipaddress.ip_address(host).version == 6 else f"{host}:{port}"


def local(sock: socket.socket) -> str:
    return text_of(sock.getsockname())


def remote(sock: socket.socket) -> str:
    return text_of(sock.getpeername())


def reset(sock: socket.socket) -> None:
    """Leave with a RST; what is queued to be sent goes nowhere."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the other kernel has not confirmed yet."""
    return int(struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQ, b"\0" * 4))[0])


def delivered(sock: socket.socket) -> None:
    """Wait until everything that was sent is with the other kernel: a reset can no longer destroy it."""
    eventually(lambda: unacknowledged(sock) == 0)
    assert unacknowledged(sock) == 0, "what was sent is not acknowledged"


def receive(sock: socket.socket, count: int) -> bytes:
    """Exactly so many bytes."""
    parts = bytearray()
    while len(parts) < count:
        part = sock.recv(min(count - len(parts), 1 << 20))
        assert part, f"the stream ended after {len(parts)} of {count} bytes"
        parts += part
    return bytes(parts)


def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the FIN."""
    parts = bytearray()
    while part := sock.recv(1 << 20):
        parts += part
    return bytes(parts)


def receive_until_reset(sock: socket.socket) -> bytes:
    """Everything up to the RST; a FIN is a failure: a cut stream must never look finished."""
    parts = bytearray()
    while True:
        try:
            part = sock.recv(1 << 20)
        except ConnectionResetError:
            return bytes(parts)
        assert part, f"a FIN after {len(parts)} bytes where a RST was due"
        parts += part


def expect_reset(sock: socket.socket, *, within: float = DEADLINE) -> None:
    """A RST, in time, with nothing before it."""
    sock.settimeout(within)
    assert receive_until_reset(sock) == b""


def expect_broken(sock: socket.socket) -> None:
    """A RST for one who has already read the other's FIN: the kernel then calls it a broken pipe."""
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(DEADLINE * 1000), "no RST came"
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.EPIPE, errno.ECONNRESET)


def fill(sock: socket.socket, chunk: bytes, *, quiet: float = 0.3) -> int:
    """Send until nobody takes more for `quiet` seconds; how many bytes went."""
    count = 0
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    sock.setblocking(False)
    while poll.poll(quiet * 1000):
        try:
            offset = count % len(chunk)
            count += sock.send(memoryview(chunk)[offset:])
        except BlockingIOError:
            continue
    sock.settimeout(DEADLINE)
    return count


def shrink(sock: socket.socket, *, receive_buffer: int = 0, send_buffer: int = 0) -> None:
    """Small buffers, before connect or listen: a peer that takes little."""
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if send_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
