"""How ends arrive at the other side of a relay: ours and its peers', each with a fixed server on loopback.

Owns: the table in the README. `pytest benchmarks/test_ends.py -s` prints it. Needs Debian's haproxy, nginx-light and
libnginx-mod-stream; nothing of it needs root.
"""

import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.support.clock import eventually
from tests.support.relay import PROGRAM
from tests.support.requirements import needs_program

SECONDS = 5.0
RESET = struct.pack("ii", 1, 0)
DATA = b"x" * 1000

HAPROXY = """\
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen relay
  bind 127.0.0.1:{port}
  server s 127.0.0.1:{server}
"""
NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events {{}}
stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{server}; }} }}
"""
OURS = """\
relay = {{ target = "127.0.0.1:{server}", drain_timeout = "1s" }}
admin = {{ socket = "", metrics = "", health = "" }}
[[listener]]
name = "relay"
direction = "outbound"
address = "127.0.0.1"
port = {port}
capture = "none"
"""
PEERS: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "relay-sidecar": (OURS, lambda file: [*PROGRAM, "--config", file]),
    "HAProxy": (HAPROXY, lambda file: ["haproxy", "-f", file]),
    "nginx stream": (NGINX, lambda file: ["nginx", "-c", file]),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def relayed(peer: str, server: int, folder: Path) -> Iterator[socket.socket]:
    """A client whose connection the peer carries to the server's port."""
    template, argv = PEERS[peer]
    needs_program(argv("")[0])
    port = free_port()
    file = folder / "configuration"
    file.write_text(template.format(port=port, server=server, folder=folder))
    with subprocess.Popen(argv(str(file)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            assert eventually(lambda: answers(port)), f"{peer} does not listen"
            with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
                yield client
        finally:
            process.terminate()


def seen(sock: socket.socket) -> str:
    """What arrives at the end of a connection."""
    try:
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    except ConnectionResetError:
        return "reset"
    return data.decode() or "end of file"


def accepted(server: socket.socket, data: bytes) -> socket.socket:
    """The connection that carries these bytes; those without any looked whether the peer listens."""
    while True:
        connection, _ = server.accept()
        connection.settimeout(SECONDS)
        if connection.recv(len(data), socket.MSG_WAITALL) == data:
            return connection
        connection.close()


def refused(peer: str, folder: Path) -> str:
    """Nobody listens on the server's port: the client sees"""
    with relayed(peer, free_port(), folder) as client:
        return seen(client)


def reset_by_server(peer: str, folder: Path) -> str:
    """The server resets: the client sees"""
    with socket.create_server(("127.0.0.1", 0)) as server, relayed(peer, server.getsockname()[1], folder) as client:
        client.sendall(DATA)
        connection = accepted(server, DATA)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
        return seen(client)


def reset_by_client(peer: str, folder: Path) -> str:
    """The client resets: the server sees"""
    with socket.create_server(("127.0.0.1", 0)) as server, relayed(peer, server.getsockname()[1], folder) as client:
        client.sendall(DATA)
        with accepted(server, DATA) as connection:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return seen(connection)


def half_close(peer: str, folder: Path) -> str:
    """The client ends its half, and the server answers after that: the client sees"""

    def serve(server: socket.socket) -> None:
        with accepted(server, DATA) as connection:
            while connection.recv(65536):
                pass
            connection.sendall(b"the answer")

    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as server:
        with relayed(peer, server.getsockname()[1], folder) as client:
            served = pool.submit(serve, server)
            client.sendall(DATA)
            client.shutdown(socket.SHUT_WR)
            what = seen(client)
        served.exception(SECONDS)
        return what


ENDS = (refused, reset_by_server, reset_by_client, half_close)


def test_how_ends_arrive(tmp_path: Path) -> None:
    """The README's table would be hearsay."""
    rows = {end: {peer: end(peer, tmp_path) for peer in PEERS} for end in ENDS}
    for end, found in rows.items():
        told = ", ".join(f"{peer}: {what}" for peer, what in found.items())
        sys.stdout.write(f"\n{end.__doc__}\n  {told}\n")
    assert [found["relay-sidecar"] for found in rows.values()] == ["reset", "reset", "reset", "the answer"]
