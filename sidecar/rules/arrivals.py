"""Who has taken a connection, and where it was going: from the accepted socket, or from the kernel's table of sockets.

Owns: these two questions. Never here: a socket of our own; a verdict (attempts).
"""

import contextlib
import socket
import struct
from typing import Final

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and the same number for IPv6
ORIGIN_V4, ORIGIN_V6 = struct.Struct("!2xH4s8x"), struct.Struct("!2xH4x16s4x")  # sockaddr_in, sockaddr_in6
MAPPED = "::ffff:"

Name = tuple[str, int]

GONE: Final = "gone"
QUEUED: Final = "queued"  # nobody has accepted it yet
RELAY: Final = "relay"
OTHER: Final = "other"


def origin_of(accepted: socket.socket, capture: str) -> Name | None:
    """Where its client wanted to go; None when conntrack does not know."""
    own = name_of(accepted.getsockname())
    if capture == "tproxy":
        return own
    try:
        if ":" in own[0]:
            port, packed = ORIGIN_V6.unpack(accepted.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, ORIGIN_V6.size))
            return socket.inet_ntop(socket.AF_INET6, packed), port
        port, packed = ORIGIN_V4.unpack(accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, ORIGIN_V4.size))
        return socket.inet_ntop(socket.AF_INET, packed), port
    except OSError:
        return None


def name_of(address: tuple[str, int]) -> Name:
    """A socket's address, an IPv4 one as such also on a socket for both families."""
    return address[0].removeprefix(MAPPED), address[1]


def taker(client: Name, relay_port: int, relay_uid: int) -> str:
    """At whose end of it the client's connection is, as far as this namespace's own table tells."""
    remotes = {f"{packed}:{client[1]:04X}" for packed in _as_in_table(client[0])}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{table}", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if fields[2] in remotes:
                    if int(fields[1].rpartition(":")[2], 16) == relay_port or (
                        int(fields[7]) == relay_uid and fields[9] != "0"
                    ):
                        return RELAY
                    return OTHER if fields[9] != "0" else QUEUED
    return GONE


def _as_in_table(host: str) -> tuple[str, ...]:
    """An address as proc(5) describes it: words in the machine's order; an IPv4 one also as an IPv6 socket has it."""
    if ":" in host:
        words = struct.unpack("=4I", socket.inet_pton(socket.AF_INET6, host))
        return ("".join(f"{word:08X}" for word in words),)
    (word,) = struct.unpack("=I", socket.inet_pton(socket.AF_INET, host))
    mapped = "".join(f"{part:08X}" for part in struct.unpack("=3I", socket.inet_pton(socket.AF_INET6, "::ffff:0:0")[:12]))
    return f"{word:08X}", f"{mapped}{word:08X}"
