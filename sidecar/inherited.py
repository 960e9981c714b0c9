"""Sockets that a service manager bound for us (LISTEN_FDS, sd_listen_fds(3)).

Owns: the descriptors from 3 on that were announced, until listeners takes them; what is no listening TCP socket is closed here.
Never here: which listener a socket belongs to.
"""

import os
import socket
from collections.abc import Callable, MutableMapping
from typing import NamedTuple

from sidecar.errors import Problem, reason

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START


class Inherited(NamedTuple):
    """A listening TCP socket and the name that it was announced with."""

    name: str
    socket: socket.socket


def take_inherited(environ: MutableMapping[str, str], warn: Callable[[Problem], None]) -> list[Inherited]:
    """The announced sockets, now the caller's. The announcement is removed: no child may take it for its own."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()):
        return []
    if not count.isdecimal() or int(count) > os.sysconf("SC_OPEN_MAX"):
        warn(Problem("environment: LISTEN_FDS", "the number of sockets that were passed", count or "nothing"))
        return []
    inherited = []
    for index in range(int(count)):
        name = names[index] if index < len(names) else ""
        sock = _listening_socket(FIRST_DESCRIPTOR + index, warn)
        if sock:
            inherited.append(Inherited(name, sock))
    return inherited


def _listening_socket(descriptor: int, warn: Callable[[Problem], None]) -> socket.socket | None:
    where = f"environment: LISTEN_FDS: descriptor {descriptor}"
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        warn(Problem(where, "a listening TCP socket", reason(error)))
        return None
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        warn(Problem(where, "a listening TCP socket", "another socket", "it was closed"))
        sock.close()
        return None
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock
