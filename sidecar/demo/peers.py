"""Who talks in the demo: the programs of the app and of the server, and what clients do with them.

Owns: their few lines of protocol, and the look at every byte that arrives.
Never here: a host (machine), a word on the screen.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

BLOCK: Final = bytes(range(251)) * 4177  # about a mebibyte, which repeats with no power of two
PAGE: Final = b"<h1>It works</h1>\n"
READ_BYTES: Final = 65536
BACKLOG: Final = 64

PAGE_PORT, DOWNLOAD_PORT, COUNT_PORT = 8080, 80, 7000
CLOSED_PORT, CLOSED_APP_PORT = 81, 9999

Answer = Callable[[socket.socket], None]


def serve(port: int, family: int, answer: Answer) -> None:
    """A forked process answers connections to this port of this host, one after the other, until the demo ends."""
    listener = socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=family == socket.AF_INET6)
    with listener:
        if os.fork():
            return
        try:
            silence()  # with --keep we live longer than whoever reads what the demo prints
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    answer(client)
        finally:
            os._exit(1)


def silence() -> None:
    """Give the terminal up."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)


def give_page(client: socket.socket) -> None:
    """Any request is answered by the same page."""
    client.recv(READ_BYTES)
    head = f"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}\r\n\r\n"
    client.sendall(head.encode() + PAGE)


def give_bytes(client: socket.socket) -> None:
    """The request is how many."""
    left = int(client.recv(READ_BYTES))
    block = memoryview(BLOCK)
    while left:
        part = block[:left]
        client.sendall(part)
        left -= len(part)


def count_bytes(client: socket.socket) -> None:
    """What comes is counted until its end, and only then answered."""
    client.sendall(b"%d" % sum(len(data) for data in iter(lambda: client.recv(READ_BYTES), b"")))


def read_page(sock: socket.socket) -> bytes:
    """The whole answer."""
    sock.sendall(b"GET / HTTP/1.0\r\nHost: app\r\n\r\n")
    return _rest(sock)


def download(sock: socket.socket, size: int, moved: Callable[[int], None]) -> int:
    """How many bytes came. Every one is looked at; ValueError for a wrong one. `moved` is told the sum from time to time."""
    sock.sendall(b"%d" % size)
    block = bytearray(len(BLOCK))
    view = memoryview(block)
    total = filled = 0
    while count := sock.recv_into(view[filled:]):
        filled += count
        total += count
        if filled == len(block):
            _compare(block, total)
            filled = 0
            moved(total)
    _compare(block[:filled], total)
    return total


def _compare(block: bytearray, total: int) -> None:
    if not BLOCK.startswith(block):
        raise ValueError(f"one of the bytes before {total} is not the one that was sent")


def count_after_end(sock: socket.socket, size: int) -> int:
    """Send so many bytes, end our half, and only then read: what the other side counted."""
    block = memoryview(BLOCK)
    for start in range(0, size, len(BLOCK)):
        sock.sendall(block[: size - start])
    sock.shutdown(socket.SHUT_WR)
    return int(_rest(sock))


def _rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(READ_BYTES), b""))
