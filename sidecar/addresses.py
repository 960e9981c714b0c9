"""What is local in this network namespace, from the kernel's own table, and a socket that tells when it changes.

Owns: the reading of routing table `local`, and the watching of addresses and routes. proxy hands the result to the engine.
Never here: a change to addresses or routes; a guess (a dump that fails is an error, since loop protection stands on it).
"""

import socket
import struct

from sidecar.netlink import NETLINK_ROUTE, Message, attributes, dump, listening, opened

# linux/rtnetlink.h
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RT_TABLE_LOCAL = 255
RTN_LOCAL = 2
RTA_DST, RTA_TABLE = 1, 15
RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE = 5, 7, 9, 11

ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags


def own_networks() -> tuple[str, ...]:
    """All that the kernel delivers locally, as sorted networks: "10.0.0.1/32", "127.0.0.0/8", "::1/128". Raises OSError."""
    with opened(NETLINK_ROUTE) as netlink:
        messages = dump(netlink, RTM_GETROUTE, ROUTE.pack(socket.AF_UNSPEC, 0, 0, 0, RT_TABLE_LOCAL, 0, 0, 0, 0))
    return tuple(sorted({network for message in messages for network in local_network(message)}))


def watch_addresses() -> socket.socket:
    """A non-blocking socket that becomes readable when addresses or routes change. Needs no privilege; the caller owns it."""
    groups = (RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE)
    return listening(NETLINK_ROUTE, groups)


def local_network(message: Message) -> list[str]:
    """The destination of a route of type local in table local, as a network; else nothing."""
    if message.type != RTM_NEWROUTE or len(message.body) < ROUTE.size:
        return []
    family, prefix, _, _, table, _, _, route_type, _ = ROUTE.unpack_from(message.body)
    found = attributes(message.body[ROUTE.size :])
    if RTA_TABLE in found:
        table = struct.unpack_from("=I", found[RTA_TABLE])[0]
    if table != RT_TABLE_LOCAL or route_type != RTN_LOCAL or family not in (socket.AF_INET, socket.AF_INET6):
        return []
    unspecified = bytes(4 if family == socket.AF_INET else 16)
    return [f"{socket.inet_ntop(family, found.get(RTA_DST, unspecified))}/{prefix}"]
