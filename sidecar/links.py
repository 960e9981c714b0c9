"""Network interfaces of our own: pairs of veth, their addresses and routes, by rtnetlink.

Owns: how the kernel is told, and the waiting until it has done so. Whoever made an interface takes it away.
Never here: a change to an interface that somebody else made; which addresses are free.
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable

from sidecar.addresses import ROUTE, RTM_NEWROUTE
from sidecar.netlink import NETLINK_ROUTE, NLM_F_CREATE, NLM_F_EXCL, attribute, opened, order

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR = 16, 17, 18, 20
RTA_GATEWAY = 5
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
IFLA_IFNAME, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 3, 18, 28, 1, 2, 1
IFF_UP, IFF_RUNNING = 0x01, 0x40
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 2
LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, which flags to change
ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
SIOCGIFINDEX = 0x8933
INTERFACE = struct.Struct("=16si20x")  # ifreq: name, index

SECONDS_TO_SETTLE, LOOK_SECONDS = 1.0, 0.001


def make_pair(netlink: socket.socket, name: str, peer_name: str, peer_namespace: int) -> None:
    """A pair of veth: one end here and up, the other in the namespace of this descriptor and down."""
    named, peer_named = (attribute(IFLA_IFNAME, each.encode() + b"\0") for each in (name, peer_name))
    peer = LINK.pack(0, 0, 0, 0, 0) + peer_named + attribute(IFLA_NET_NS_FD, struct.pack("=I", peer_namespace))
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer))
    kind = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"veth") + data)
    order(netlink, RTM_NEWLINK, LINK.pack(0, 0, 0, IFF_UP, IFF_UP) + named + kind, NLM_F_CREATE | NLM_F_EXCL)


def index_of(sock: socket.socket, name: str) -> int:
    """The number of an interface in the namespace of this socket."""
    return int(INTERFACE.unpack(fcntl.ioctl(sock, SIOCGIFINDEX, INTERFACE.pack(name.encode(), 0)))[1])


def bring_up(netlink: socket.socket, index: int) -> None:
    """Not an end of a pair before it has its peer."""
    order(netlink, RTM_NEWLINK, LINK.pack(0, 0, index, IFF_UP, IFF_UP))


def is_running(netlink: socket.socket, index: int) -> bool:
    """Whether it can send. Before, it loses what it is to send without a word."""
    (found,) = order(netlink, RTM_GETLINK, LINK.pack(0, 0, index, 0, 0))
    return bool(LINK.unpack_from(found.body)[3] & IFF_RUNNING)


def add_address(netlink: socket.socket, index: int, address: str, prefix: int) -> None:
    """It serves at once: nobody is asked whether it is a duplicate."""
    family, packed = packed_address(address)
    body = ADDRESS.pack(family, prefix, IFA_F_NODAD, 0, index)
    order(netlink, RTM_NEWADDR, body + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed), NLM_F_CREATE | NLM_F_EXCL)


def add_default_route(netlink: socket.socket, gateway: str) -> None:
    """Whatever has no other route goes there."""
    family, packed = packed_address(gateway)
    body = ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0)
    order(netlink, RTM_NEWROUTE, body + attribute(RTA_GATEWAY, packed), NLM_F_CREATE | NLM_F_EXCL)


def delete_link(index: int) -> None:
    """At once, and its peer with it: the end of a namespace takes the kernel a moment."""
    with contextlib.suppress(OSError), opened(NETLINK_ROUTE) as netlink:
        order(netlink, RTM_DELLINK, LINK.pack(0, 0, index, 0, 0))


def await_settled(done: Callable[[], bool]) -> None:
    """What the kernel does by and by. TimeoutError if it does not."""
    end = time.monotonic() + SECONDS_TO_SETTLE
    while not done():
        if time.monotonic() >= end:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        time.sleep(LOOK_SECONDS)


def packed_address(address: str) -> tuple[socket.AddressFamily, bytes]:
    """Its family, and its bytes."""
    family = family_of(address)
    return family, socket.inet_pton(family, address)


def family_of(address: str) -> socket.AddressFamily:
    """Of an address that is one: nothing else is looked at."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
