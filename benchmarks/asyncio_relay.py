"""A transparent relay as somebody would write it who has Python and an afternoon: asyncio's streams, nothing else.

Owns: a peer of the benchmarks, `python -m benchmarks.asyncio_relay PORT`. TPROXY rules bring connections to the port.
Never here: a trick. It is plain on purpose, and it is honest: bytes and half-closes pass, a slow reader slows the writer down.
"""

import asyncio
import socket
import sys

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


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: under TPROXY its own address is where the client meant to go."""
    host, port = writer.get_extra_info("sockname")
    try:
        origin = await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError):
        writer.transport.abort()
        return
    origin_reader, origin_writer = origin
    try:
        await asyncio.gather(copy(reader, origin_writer), copy(origin_reader, writer))
    except OSError:  # one side was reset: both end, and with them the other direction
        writer.transport.abort()
        origin_writer.transport.abort()
    finally:
        writer.close()
        origin_writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(relay, sock=listener(port), backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
