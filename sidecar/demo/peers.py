"""Who talks in the demo: the programs of the app and of the server, and what clients do with them.

Owns: their few lines of protocol, and the look at every byte that arrives.
Never here: a host (machine), a word on the screen.
"""

import os
import signal
import socket
from collections.abc import Callable
from typing import Final

BLOCK: Final = bytes(range(32, 127)) * 11_037  # about a mebibyte that can be read, and repeats with no power of two
REQUEST: Final = b"GET /%s HTTP/1.0\r\nHost: demo\r\n\r\n"
HEAD: Final = b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
PAGE: Final = b"<h1>It works</h1>\n"
READ_BYTES: Final = 65536
BACKLOG: Final = 64
PATIENCE_SECONDS: Final = 20.0  # with a client that says nothing

PAGE_PORT, DOWNLOAD_PORT, COUNT_PORT = 8080, 80, 7000
CLOSED_PORT, CLOSED_APP_PORT = 81, 9999

Answer = Callable[[socket.socket], None]


def serve(port: int, family: int, answer: Answer) -> None:
    """A forked process answers connections to this port of this host, each in a process of its own, until the demo ends."""
    listener = socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=family == socket.AF_INET6)
    with listener:
        if os.fork():
            return
        try:
            silence()  # with --keep we live longer than whoever reads what the demo prints
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            while True:
                client, _ = listener.accept()
                with client:
                    if os.fork() == 0:
                        client.settimeout(PATIENCE_SECONDS)
                        answer(client)
                        os._exit(0)
        finally:
            os._exit(1)


def silence() -> None:
    """Give the terminal up."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)


def give_page(client: socket.socket) -> None:
    """Any request of HTTP is answered by the same page, one for a number by so many bytes."""
    words = client.recv(READ_BYTES).split()
    number = words[1].strip(b"/") if len(words) > 1 else b""
    left = int(number) if number.isdigit() else 0
    client.sendall(HEAD % (left or len(PAGE)))
    if not left:
        client.sendall(PAGE)
    block = memoryview(BLOCK)
    while left:
        part = block[:left]
        client.sendall(part)
        left -= len(part)


def count_bytes(client: socket.socket) -> None:
    """What comes is looked at and counted until its end, and only then answered."""
    total = _matching(client, lambda _: None)
    client.sendall(b"%d" % total)


def read_page(sock: socket.socket) -> bytes:
    """The whole answer."""
    sock.sendall(REQUEST % b"")
    return _rest(sock)


def download(sock: socket.socket, size: int, moved: Callable[[int], None]) -> int:
    """How many bytes came. Every one is looked at; ValueError for a wrong one. `moved` is told the sum from time to time."""
    sock.sendall(REQUEST % (b"%d" % size))
    head = HEAD % size
    if sock.recv(len(head), socket.MSG_WAITALL) != head:
        raise ValueError("the head of the answer is not the one that was sent")
    return _matching(sock, moved)


def _matching(sock: socket.socket, moved: Callable[[int], None]) -> int:
    """How many bytes came until the end; ValueError for one that was not sent."""
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
