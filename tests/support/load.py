"""Many short connections from two small programs: an echo server and its clients, each one epoll.

Owns: nothing of the tests; it runs as `python -m tests.support.load` inside a place, so that the descriptors and the work of
thousands of connections are not in the test's own process. It speaks JSON lines: what it reached is a line on stdout.
Never: a random byte. Each connection sends its own number, so an answer that belongs to another one is found out.
"""

import argparse
import errno
import json
import resource
import select
import socket
import sys
from collections import Counter

PAYLOAD_BYTES = 64
_BATCH = 1024


def _payload(number: int) -> bytes:
    return b"%063d\n" % number


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setblocking(False)
    return sock


class Clients:
    """`total` connections, at most `at_once` of them open; those that are held stay open after their first answer."""

    def __init__(self, host: str, port: int, total: int, at_once: int, hold: bool) -> None:
        self._address = (host, port)
        self._total = total
        self._at_once = at_once
        self._hold = hold
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, bytes]] = {}
        self._started = 0
        self._waiting = 0
        self._served = 0
        self._errors: Counter[str] = Counter()

    def run(self) -> None:
        self._fill()
        while self._waiting:
            for fd, events in self._epoll.poll(-1, _BATCH):
                self._handle(fd, events)
            self._fill()
        _say(served=self._served, held=len(self._open), errors=self._errors)

    def again(self) -> None:
        """One more question on each connection that is held, then close them."""
        self._hold = False
        self._waiting = len(self._open)
        for fd in self._open:
            self._epoll.modify(fd, select.EPOLLOUT)
        self.run()

    def _fill(self) -> None:
        while self._started < self._total and (self._hold or len(self._open) < self._at_once):
            payload = _payload(self._started)
            self._started += 1
            self._waiting += 1
            sock = _socket(self._address[0])
            result = sock.connect_ex(self._address)
            if result not in (0, errno.EINPROGRESS):
                self._errors[errno.errorcode[result]] += 1
                self._waiting -= 1
                sock.close()
                continue
            self._open[sock.fileno()] = (sock, payload)
            self._epoll.register(sock, select.EPOLLOUT)

    def _handle(self, fd: int, events: int) -> None:
        sock, payload = self._open[fd]
        try:
            if events & select.EPOLLOUT and not events & select.EPOLLIN:
                if sock.send(payload) != PAYLOAD_BYTES:
                    raise ConnectionError(errno.ENOBUFS, "a short send")
                self._epoll.modify(fd, select.EPOLLIN)
                return
            if sock.recv(2 * PAYLOAD_BYTES) != payload:
                raise ConnectionError(errno.EBADMSG, "another answer, or none")
            self._served += 1
        except OSError as error:
            self._errors[errno.errorcode[error.errno or 0]] += 1
            self._end(fd)
            return
        self._waiting -= 1
        if self._hold:
            self._epoll.modify(fd, 0)
        else:
            self._end(fd, waiting=False)

    def _end(self, fd: int, *, waiting: bool = True) -> None:
        sock, _ = self._open.pop(fd)
        self._waiting -= waiting
        sock.close()


def serve(host: str, port: int, once: bool) -> None:
    """Echo until stdin ends; with `once`, close each connection after its first answer."""
    listener = _socket(host)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(8192)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    epoll.register(sys.stdin, select.EPOLLIN | select.EPOLLHUP)
    peers: dict[int, socket.socket] = {}
    _say(ready=True)
    while True:
        for fd, _ in epoll.poll(-1, _BATCH):
            if fd == sys.stdin.fileno():
                return
            if fd == listener.fileno():
                try:
                    peer, _ = listener.accept()
                except OSError:
                    continue  # gone before it was accepted
                peer.setblocking(False)
                peers[peer.fileno()] = peer
                epoll.register(peer, select.EPOLLIN)
                continue
            try:
                data = peers[fd].recv(1 << 16)
                peers[fd].sendall(data)
            except OSError:
                data = b""
            if not data or once:
                peers.pop(fd).close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Load for the tests")
    parser.add_argument("role", choices=["echo", "clients"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--once", action="store_true", help="echo: close after the first answer")
    parser.add_argument("--total", type=int, default=1, help="clients: how many connections")
    parser.add_argument("--at-once", type=int, default=1, help="clients: how many of them at a time")
    parser.add_argument("--hold", action="store_true", help="clients: keep them all, ask again at a line on stdin")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if options.role == "echo":
        serve(options.host, options.port, options.once)
        return
    clients = Clients(options.host, options.port, options.total, options.at_once, options.hold)
    clients.run()
    if options.hold:
        sys.stdin.readline()
        clients.again()


if __name__ == "__main__":
    main()
