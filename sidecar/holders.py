"""Why a TCP port cannot be had: the message of a socket that cannot bind, and who holds the port.

Owns: these messages, and the reading of /proc/net/tcp, /proc/net/tcp6 and /proc/*/fd. What this user may not see is left out.
Never here: a socket; a guess (a failed look-up is an empty answer).
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from sidecar.errors import FAILED, NO_PRIVILEGE, Problem, RelayError, reason
from sidecar.users import user_of

LISTEN = "0A"  # include/net/tcp_states.h, as /proc/net/tcp prints it


class Holder(NamedTuple):
    """One listening socket on the port."""

    uid: int
    inode: str


@contextlib.contextmanager
def explained(where: str, address: str, port: int) -> Iterator[None]:
    """Turn the OSError of a socket that is to listen there into a message with the likely cause and what to do."""
    try:
        yield
    except OSError as error:
        found, step, status = reason(error), "", FAILED
        if error.errno == errno.EADDRINUSE:
            holder = port_holder(port)
            found += f", held by {holder}" if holder else ""
            step = "stop it, or choose another port"
        elif error.errno == errno.EADDRNOTAVAIL:
            step = "choose an address of this machine"
        elif error.errno == errno.EACCES:
            step, status = "ports below 1024 need CAP_NET_BIND_SERVICE: start as root, or choose another port", NO_PRIVILEGE
        raise RelayError(Problem(where, f"to listen on {address}", found, step), exit_status=status) from None


def port_holder(port: int) -> str:
    """ "nginx (pid 12)", or "a process of user root" when its descriptors are not ours to see; "" when nobody is found."""
    holders = [holder for table in ("tcp", "tcp6") for holder in parse_table(_read(f"/proc/net/{table}"), port)]
    if not holders:
        return ""
    return (
        _process_with({f"socket:[{holder.inode}]" for holder in holders}) or f"a process of user {user_of(holders[0].uid).name}"
    )


def parse_table(table: str, port: int) -> list[Holder]:
    """The listening sockets on a port in the text of /proc/net/tcp or tcp6 (proc(5))."""
    holders = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN and fields[1].endswith(f":{port:04X}"):
            holders.append(Holder(int(fields[7]), fields[9]))
    return holders


def _process_with(links: set[str]) -> str:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            descriptors = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
        except OSError:  # gone, or another user's
            continue
        if links.intersection(descriptors):
            return f"{_read(f'/proc/{pid}/comm').strip()} (pid {pid})"
    return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
