"""Netlink, whichever part of the kernel is at the other end: messages packed and parsed, and the ways to ask and to listen.

Owns: the form of messages and attributes, the time limit, and what is an error. Used by addresses and by the rules.
Never here: what a message of rtnetlink or nfnetlink means.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12

# linux/netlink.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x01, 0x02, 0x04, 0x10, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400  # of a request to make something
SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
NLA_TYPE_MASK = 0x3FFF  # the two highest bits tell how it is packed, not what it is

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
ERROR = struct.Struct("=i")  # nlmsgerr begins with -errno; so does the end of a dump
BUFFER_BYTES = 65536  # the kernel fills dumps in pieces of at most 32 KB
SECONDS = 5.0  # it answers in microseconds; a limit keeps a start from hanging
DUMP_TRIES = 5  # a dump that changes while it is read is repeated


class Message(NamedTuple):
    """One netlink message."""

    type: int
    flags: int
    body: bytes


@contextlib.contextmanager
def opened(protocol: int) -> Iterator[socket.socket]:
    """A socket for dump() and order(), one after the other. An OSError in one of them ends the conversation."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as netlink:
        netlink.settimeout(SECONDS)
        # rtnetlink then lists only what was asked for: a router has a million routes. Before Linux 4.20 it lists all.
        with contextlib.suppress(OSError):
            netlink.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        yield netlink


def listening(protocol: int, groups: Sequence[int]) -> socket.socket:
    """A non-blocking socket that becomes readable when something happens in one of these groups; the caller owns it."""
    watcher = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    try:
        watcher.bind((0, sum(1 << (group - 1) for group in groups)))
    except OSError:
        watcher.close()
        raise
    return watcher


def forget(watcher: socket.socket) -> None:
    """Read a watcher until it is dry. What changed is not looked at: a fresh dump says it, also after an overrun."""
    while True:
        try:
            watcher.recv(BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: messages were lost, which is one more reason for a dump, and clears itself
            continue


def dump(netlink: socket.socket, kind: int, body: bytes) -> list[Message]:
    """Everything that a request of this kind lists. OSError with the kernel's errno."""
    for _ in range(DUMP_TRIES):
        netlink.send(message(kind, body, NLM_F_REQUEST | NLM_F_DUMP))
        answers = list(_until(netlink, NLMSG_DONE))
        if not any(answer.flags & NLM_F_DUMP_INTR for answer in answers):
            break
    return [answer for answer in answers if answer.type != NLMSG_DONE]


def order(netlink: socket.socket, kind: int, body: bytes, flags: int = 0) -> list[Message]:
    """One request, carried out or OSError with the kernel's errno; what it answered."""
    netlink.send(message(kind, body, NLM_F_REQUEST | NLM_F_ACK | flags))
    return [answer for answer in _until(netlink, NLMSG_ERROR) if answer.type != NLMSG_ERROR]


def _until(netlink: socket.socket, last: int) -> Iterator[Message]:
    """Answers up to one of type `last`, included."""
    while True:
        for answer in parse_messages(netlink.recv(BUFFER_BYTES)):
            if answer.type in (NLMSG_ERROR, NLMSG_DONE):
                _raise_refusal(answer)
            yield answer
            if answer.type == last:
                return


def _raise_refusal(answer: Message) -> None:
    """OSError if an acknowledgement, or the end of a dump, says so."""
    code = ERROR.unpack_from(answer.body)[0] if len(answer.body) >= ERROR.size else 0
    if code < 0:
        raise OSError(-code, f"netlink: refused: {os.strerror(-code)}")


def message(kind: int, body: bytes, flags: int, sequence: int = 1) -> bytes:
    """One message, filled up to where another may follow."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + _filled(body)


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


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, filled up to where another may follow."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + _filled(value)


def attributes(data: bytes) -> dict[int, bytes]:
    """What follows the fixed part of a message, or is nested in an attribute; a truncated one ends it."""
    found = {}
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size or offset + length > len(data):
            break
        found[kind & NLA_TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return found


def text_of(data: bytes) -> str:
    """A name: as far as its NUL, in whatever bytes it was given."""
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _aligned(length: int) -> int:
    """NLMSG_ALIGN and NLA_ALIGN: the next multiple of four."""
    return (length + 3) & ~3
