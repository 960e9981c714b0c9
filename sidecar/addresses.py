"""What is local in this network namespace, from the kernel's own table, and a socket that tells when it changes.

Owns: the rtnetlink conversation (dump of routing table `local`) and the watching socket. proxy hands the result to the engine.
Never here: a change to addresses or routes; a guess (a dump that fails is an error, since loop protection stands on it).
"""

import contextlib
import socket
import struct
from typing import NamedTuple

# linux/netlink.h, linux/rtnetlink.h
NETLINK_ROUTE = 0
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x01, 0x02, 0x10, 0x300
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RT_TABLE_LOCAL = 255
RTN_LOCAL = 2
RTA_DST, RTA_TABLE = 1, 15
SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 0x10, 0x40, 0x100, 0x400

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
BUFFER_BYTES = 65536  # the kernel fills dumps in pieces of at most 32 KB
DUMP_SECONDS = 5.0  # it answers in microseconds; a limit keeps the start from hanging
DUMP_TRIES = 5  # a dump that changes while it is read is repeated


class Message(NamedTuple):
    """One netlink message."""

    type: int
    flags: int
    body: bytes


def own_networks() -> tuple[str, ...]:
    """All that the kernel delivers locally, as sorted networks: "10.0.0.1/32", "127.0.0.0/8", "::1/128". Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as netlink:
        netlink.settimeout(DUMP_SECONDS)
        # The kernel then lists the asked table alone: a router has a million routes. Before Linux 4.20 it lists all.
        with contextlib.suppress(OSError):
            netlink.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        for _ in range(DUMP_TRIES):
            messages = _dump_routes(netlink)
            if not any(message.flags & NLM_F_DUMP_INTR for message in messages):
                break
    return tuple(sorted({network for message in messages for network in local_network(message)}))


def watch_addresses() -> socket.socket:
    """A non-blocking socket that becomes readable when addresses or routes change. Needs no privilege; the caller owns it."""
    watcher = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
    watcher.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE))
    return watcher


def forget_changes(watcher: socket.socket) -> None:
    """Read the watcher until it is dry. What changed is not looked at: a fresh dump says it, also after an overrun."""
    while True:
        try:
            watcher.recv(BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: messages were lost, which is one more reason for a dump, and clears itself
            continue


def _dump_routes(netlink: socket.socket) -> list[Message]:
    """Every route of table local, of both families."""
    request = ROUTE.pack(socket.AF_UNSPEC, 0, 0, 0, RT_TABLE_LOCAL, 0, 0, 0, 0)
    netlink.send(HEADER.pack(HEADER.size + len(request), RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + request)
    messages: list[Message] = []
    while True:
        for message in parse_messages(netlink.recv(BUFFER_BYTES)):
            if message.type == NLMSG_DONE:
                return messages
            if message.type == NLMSG_ERROR:
                error = -struct.unpack_from("=i", message.body)[0]
                raise OSError(error, "rtnetlink refused to list the local routes")
            messages.append(message)


def parse_messages(datagram: bytes) -> list[Message]:
    """The messages of one datagram; a truncated one ends it."""
    messages = []
    offset = 0
    while offset + HEADER.size <= len(datagram):
        length, kind, flags, _, _ = HEADER.unpack_from(datagram, offset)
        if length < HEADER.size or offset + length > len(datagram):
            break
        messages.append(Message(kind, flags, datagram[offset + HEADER.size : offset + length]))
        offset += _aligned(length)
    return messages


def local_network(message: Message) -> list[str]:
    """The destination of a route of type local in table local, as a network; else nothing."""
    if message.type != RTM_NEWROUTE or len(message.body) < ROUTE.size:
        return []
    family, prefix, _, _, table, _, _, route_type, _ = ROUTE.unpack_from(message.body)
    attributes = _attributes(message.body[ROUTE.size :])
    if RTA_TABLE in attributes:
        table = struct.unpack_from("=I", attributes[RTA_TABLE])[0]
    if table != RT_TABLE_LOCAL or route_type != RTN_LOCAL or family not in (socket.AF_INET, socket.AF_INET6):
        return []
    unspecified = bytes(4 if family == socket.AF_INET else 16)
    return [f"{socket.inet_ntop(family, attributes.get(RTA_DST, unspecified))}/{prefix}"]


def _attributes(data: bytes) -> dict[int, bytes]:
    attributes = {}
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size or offset + length > len(data):
            break
        attributes[kind] = data[offset + ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return attributes


def _aligned(length: int) -> int:
    """NLMSG_ALIGN and RTA_ALIGN: the next multiple of four."""
    return (length + 3) & ~3
