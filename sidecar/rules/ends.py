"""The probe's sockets: listeners in the relay's place, listeners in the app's, and clients.

Owns: how they are made, and as whom. Closed they leave nothing behind. OSError as the kernel gives it.
Never here: a connection's meaning (attempts).
"""

import contextlib
import socket
import struct
from typing import Final

from sidecar.links import family_of
from sidecar.listeners import IP_TRANSPARENT, IPV6_TRANSPARENT
from sidecar.privileges import acting_as

RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: not even TIME_WAIT stays
BACKLOG = 64


def relay_listener(host: str, port: int, *, transparent: bool, both: bool, uid: int, gid: int) -> socket.socket:
    """What the relay would listen with; `both`: an explicit :: takes both families."""
    family = family_of(host)
    with contextlib.ExitStack() as acting:
        with contextlib.suppress(PermissionError):  # as ourselves, then: the rules know answers by their connection too
            acting.enter_context(acting_as(uid, gid))
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        if transparent:
            v4 = family == socket.AF_INET
            sock.setsockopt(socket.SOL_IP if v4 else socket.IPPROTO_IPV6, IP_TRANSPARENT if v4 else IPV6_TRANSPARENT, 1)
        return _listening(sock, host, port)
    except BaseException:
        sock.close()
        raise


def app_listener(host: str, port: int) -> socket.socket:
    """What an app would listen with."""
    sock = socket.socket(family_of(host), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        return _listening(sock, host, port)
    except BaseException:
        sock.close()
        raise


def user_client(family: int, uid: int, gid: int) -> socket.socket:
    """A connection of this user and group."""
    with acting_as(uid, gid):
        sock = socket.socket(family, socket.SOCK_STREAM)
    return as_client(sock)


def as_client(sock: socket.socket) -> socket.socket:
    """One whose packets end at the next router, if nobody captures them."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.SOL_IP, socket.IP_TTL, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
    sock.bind(("", 0))  # a port of its own: those that connect() chooses are shared between destinations
    sock.setblocking(False)
    return without_trace(sock)


def without_trace(sock: socket.socket) -> socket.socket:
    """A connection that is reset when it is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return sock


def _listening(sock: socket.socket, host: str, port: int) -> socket.socket:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(BACKLOG)
    return sock
