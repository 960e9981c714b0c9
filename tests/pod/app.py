"""The app in the tests' pods. Each connection asks one question, on a line, and gets the answer; then it ends.

    peer                  whom this end sees
    ask HOST PORT         what another app answers to that
    send BYTES            so many bytes of stream()
    push HOST PORT BYTES  sends as many there; then what that server answers

Owns: its ports, which are its arguments. After SIGTERM it takes no connection, finishes what it has begun, and ends.
Never here: an import beyond the standard library: it runs in the image.
"""

import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator

BLOCK = 1 << 16
SECONDS = 60  # for any one step of a connection


def stream(size: int) -> Iterator[bytes]:
    """A stream in which each block is another one: what is lost, doubled or moved shows."""
    for start in range(0, size, BLOCK):
        yield (start.to_bytes(8, "big") * (BLOCK // 8))[: size - start]


class Question(socketserver.StreamRequestHandler):
    """One connection."""

    timeout = SECONDS

    def handle(self) -> None:
        name, *words = self.rfile.readline().decode().split()
        getattr(self, f"answer_{name}")(*words)

    def answer_peer(self) -> None:
        self.wfile.write(self.client_address[0].encode())

    def answer_ask(self, host: str, port: str) -> None:
        with socket.create_connection((host, int(port)), SECONDS) as server, server.makefile("rb") as told:
            server.sendall(b"peer\n")
            self.wfile.write(told.read())

    def answer_send(self, size: str) -> None:
        for block in stream(int(size)):
            self.wfile.write(block)

    def answer_push(self, host: str, port: str, size: str) -> None:
        with socket.create_connection((host, int(port)), SECONDS) as server, server.makefile("rb") as told:
            for block in stream(int(size)):
                server.sendall(block)
            server.shutdown(socket.SHUT_WR)
            self.wfile.write(told.read())


class Server(socketserver.ThreadingTCPServer):
    """One port; server_close() waits for its connections."""

    allow_reuse_address = True
    daemon_threads = False


def main() -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    servers = [Server(("", int(port)), Question) for port in sys.argv[1:]]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ended.wait()
    for server in servers:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
