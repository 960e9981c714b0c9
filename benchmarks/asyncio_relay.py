"""A transparent relay as somebody would write it who has Python and an afternoon: asyncio's streams, nothing else.

Owns: a peer of the benchmarks, `python -m benchmarks.asyncio_relay PORT [ELEMENT]`. TPROXY rules bring connections to the port.
An element of benchmarks.pass_through is asked about each piece that was read.
Never here: a trick. It is plain on purpose, and it is honest: bytes and half-closes pass, a slow reader slows the writer down.
"""

import asyncio
import functools
import socket
import sys
from collections.abc import Callable
from typing import Any

CHUNK = 1 << 16
BACKLOG = 4096
CONNECT_SECONDS = 10
IP_TRANSPARENT = 19  # linux/in.h


def listener(port: int) -> socket.socket:
    """Takes connections to any address that the rules bring here."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    sock.bind(("0.0.0.0", port))
    return sock


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ask: Callable[[bytes], Any] | None) -> None:
    """One direction, to its end."""
    while data := await reader.read(CHUNK):
        writer.write(ask(data) if ask else data)
        await writer.drain()
    writer.write_eof()


async def relay(kind: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: under TPROXY its own address is where the client meant to go."""
    host, port = writer.get_extra_info("sockname")
    try:
        origin = await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError):
        writer.transport.abort()
        return
    origin_reader, origin_writer = origin
    element = kind and kind(None, None)
    try:
        await asyncio.gather(
            copy(reader, origin_writer, element and element.request), copy(origin_reader, writer, element and element.response)
        )
    except OSError:  # one side was reset: both end, and with them the other direction
        writer.transport.abort()
        origin_writer.transport.abort()
    finally:
        writer.close()
        origin_writer.close()


def element_class(name: str) -> Any:
    """Its imports are no part of the plain relay."""
    from benchmarks import pass_through

    return getattr(pass_through, name)


async def main(port: int, element: str = "") -> None:
    answer = functools.partial(relay, element_class(element) if element else None)
    server = await asyncio.start_server(answer, sock=listener(port), backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
