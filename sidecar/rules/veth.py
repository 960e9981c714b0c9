"""A neighbour for the probe: a second network namespace, joined to this one by a veth pair with addresses of nobody.

The namespace has no name and no process. Our descriptors are all that holds it: with them it goes, and with it the pair and the
addresses, however we end.

Owns: that namespace, the pair, the choice of addresses. Never here: how the kernel is told (links).
"""

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple, NoReturn

from sidecar.addresses import ROUTE, RTM_GETROUTE, RTN_LOCAL
from sidecar.links import add_address, await_settled, bring_up, delete_link, index_of, is_running, make_pair, packed_address
from sidecar.netlink import NETLINK_ROUTE, SECONDS, attribute, opened, order
from sidecar.privileges import leave_network

RTA_DST, RTM_F_FIB_MATCH = 1, 0x2000  # linux/rtnetlink.h: the route itself is asked for, not where it leads

# Networks for benchmarks and for documentation. Some machines use one of them after all.
CANDIDATES = {
    socket.AF_INET: ("198.19.255.252", "192.0.2.252", "198.51.100.252", "203.0.113.252"),
    socket.AF_INET6: ("2001:db8:ffff:fffc::", "2001:2:0:fffc::", "3fff:fff:ffff:fffc::"),
}
PREFIX = {socket.AF_INET: 30, socket.AF_INET6: 64}
PIDS = 1_000_000  # that many go into the name of an interface


class Route(NamedTuple):
    """The length of its prefix, which is 0 for the default route, and its type."""

    length: int
    kind: int


NO_ROUTE = Route(0, 0)


class Pair(NamedTuple):
    """The addresses of the two ends."""

    near: str
    far: str


class Neighbour:
    """The second namespace, with as many sockets in it as were asked for: `clients`, by family, not connected.

    `pairs` lacks a family that has no addresses. OSError when a second namespace cannot be had at all.
    """

    def __init__(self, families: Sequence[socket.AddressFamily]) -> None:
        self.pairs: dict[int, Pair] = {}
        with contextlib.ExitStack() as undo:
            self._namespace, self._netlink, self.clients = _made_away(families, undo)
            self._join(f"relay-{os.getpid() % PIDS}", undo)
            for family in set(families):
                with contextlib.suppress(OSError):  # a machine without IPv6
                    self._add_addresses(family)
            self._closing = undo.pop_all()

    def close(self) -> None:
        """Take everything away."""
        self._closing.close()

    def _join(self, name: str, undo: contextlib.ExitStack) -> None:
        """A veth pair, up at both ends."""
        with opened(NETLINK_ROUTE) as netlink:
            make_pair(netlink, name, name, self._namespace)
            self._near = socket.if_nametoindex(name)
            undo.callback(delete_link, self._near)
            self._far = index_of(self.clients[0], name)
            bring_up(self._netlink, self._far)
            await_settled(lambda: is_running(netlink, self._near) and is_running(self._netlink, self._far))

    def _add_addresses(self, family: socket.AddressFamily) -> None:
        pairs = [Pair(str(ip_address(network) + 1), str(ip_address(network) + 2)) for network in CANDIDATES[family]]
        with opened(NETLINK_ROUTE) as netlink:
            pair = next((pair for pair in pairs if not any(_route_to(netlink, address).length for address in pair)), None)
            if pair is None:
                return
            add_address(netlink, self._near, pair.near, PREFIX[family])
            add_address(self._netlink, self._far, pair.far, PREFIX[family])
            # The kernel answers for an IPv6 address a moment after it was added.
            await_settled(
                lambda: all(
                    _route_to(at, own).kind == RTN_LOCAL for at, own in zip((netlink, self._netlink), pair, strict=True)
                )
            )
        self.pairs[family] = pair


def _made_away(
    families: Sequence[socket.AddressFamily], undo: contextlib.ExitStack
) -> tuple[int, socket.socket, list[socket.socket]]:
    """The namespace, a netlink socket and the clients in it: made by a child, which hands them over and ends."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _hand_over(there, families)
    there.close()
    with here:
        _, descriptors, _, _ = socket.recv_fds(here, 1, 2 + len(families))
    _, status = os.waitpid(pid, 0)
    if not descriptors:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(code, os.strerror(code))
    namespace, *others = descriptors
    undo.callback(os.close, namespace)
    netlink, *clients = [undo.enter_context(socket.socket(fileno=descriptor)) for descriptor in others]
    netlink.settimeout(SECONDS)
    return namespace, netlink, clients


def _hand_over(there: socket.socket, families: Sequence[socket.AddressFamily]) -> NoReturn:
    """Of the child: its exit status is an errno."""
    status = errno.ECHILD
    try:
        leave_network()
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
        clients = [socket.socket(family, socket.SOCK_STREAM) for family in families]
        socket.send_fds(there, [b"!"], [namespace, *(sock.fileno() for sock in (netlink, *clients))])
        status = 0
    except OSError as error:
        status = error.errno or status
    finally:
        os._exit(status)


def _route_to(netlink: socket.socket, address: str) -> Route:
    """By which route a packet to the address would go."""
    family, packed = packed_address(address)
    request = ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH) + attribute(RTA_DST, packed)
    try:
        (found,) = order(netlink, RTM_GETROUTE, request)
    except TimeoutError:
        raise
    except OSError:
        return NO_ROUTE
    _, length, _, _, _, _, _, kind, _ = ROUTE.unpack_from(found.body)
    return Route(length, kind)
