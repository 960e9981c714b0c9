"""sidecar.netlink: the form of messages, and what counts as an answer."""

import errno
import random
import socket
import struct

import pytest

from sidecar import netlink
from sidecar.netlink import (
    NETLINK_ROUTE,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    dump,
    message,
    opened,
    order,
    parse_messages,
    text_of,
)

ANSWER = 24


def ended(code: int = 0, kind: int = NLMSG_DONE, flags: int = 2) -> bytes:
    return message(kind, struct.pack("=i", -code), flags)


class Kernel:
    """Answers from a script, a datagram for each recv."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)
        self.asked = 0

    def send(self, _: bytes) -> None:
        self.asked += 1

    def recv(self, _: int) -> bytes:
        return self.datagrams.pop(0)


def test_an_attribute_comes_back_as_it_went() -> None:
    """A name that is no multiple of four bytes would spoil everything that follows it."""
    packed = b"".join(attribute(kind, bytes(kind)) for kind in range(1, 9))
    assert attributes(packed) == {kind: bytes(kind) for kind in range(1, 9)}
    nested = attribute(5 | 0x8000, attribute(1, b"x"))
    assert attributes(attributes(nested)[5]) == {1: b"x"}, "the bit that says `nested` is no part of the type"


def test_a_name_ends_at_its_nul() -> None:
    """Names would be compared with what happens to lie behind them; one in a strange encoding would end the relay."""
    assert (text_of(b"nat\0\0\0"), text_of(b"nat"), text_of(b"\xff\0")) == ("nat", "nat", "\\xff")


def test_a_dump_goes_on_until_it_is_done() -> None:
    """Rules that came in a later datagram would be taken for missing."""
    kernel = Kernel(message(ANSWER, b"a", 2) + message(ANSWER, b"b", 2), message(ANSWER, b"c", 2), ended())
    assert [answer.body[:1] for answer in dump(kernel, 26, b"")] == [b"a", b"b", b"c"]  # type: ignore[arg-type]


def test_a_dump_that_fails_half_way_is_an_error() -> None:
    """Half of the rules would be taken for all: the kernel tells the failure in the message that ends the dump."""
    kernel = Kernel(message(ANSWER, b"a", 2), ended(errno.ENOMEM))
    with pytest.raises(OSError, match="refused") as caught:
        dump(kernel, 26, b"")  # type: ignore[arg-type]
    assert caught.value.errno == errno.ENOMEM


def test_a_dump_torn_at_its_very_end_is_repeated() -> None:
    """What changed while the last datagram was read would be missing."""
    kernel = Kernel(message(ANSWER, b"a", 2), ended(flags=2 | NLM_F_DUMP_INTR), message(ANSWER, b"b", 2), ended())
    assert [answer.body[:1] for answer in dump(kernel, 26, b"")] == [b"b"]  # type: ignore[arg-type]
    assert kernel.asked == 2


def test_an_order_returns_what_came_before_the_acknowledgement() -> None:
    """The number of the generation would be lost, and with it the protection against changes in between."""
    kernel = Kernel(message(ANSWER, b"gen", 0), ended(kind=NLMSG_ERROR))
    assert [answer.body[:3] for answer in order(kernel, 26, b"")] == [b"gen"]  # type: ignore[arg-type]


def test_a_missing_privilege_is_told_as_one() -> None:
    """`rules apply` would not say that CAP_NET_ADMIN is missing."""
    with pytest.raises(PermissionError):
        order(Kernel(ended(errno.EPERM, NLMSG_ERROR)), 26, b"")  # type: ignore[arg-type]


def test_the_real_kernel_refuses_in_time() -> None:
    """A request that the kernel does not know would hang a start for ever."""
    with opened(NETLINK_ROUTE) as conversation, pytest.raises(OSError, match="refused"):
        order(conversation, 0xFFF, b"")


def test_a_watcher_that_may_not_join_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try of an unprivileged relay would cost a descriptor."""
    made = []

    class Refused(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            made.append(self)

        def bind(self, _: object) -> None:
            raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(netlink.socket, "socket", Refused)
    with pytest.raises(PermissionError):
        netlink.listening(NETLINK_ROUTE, [7])
    assert [sock.fileno() for sock in made] == [-1]


def test_spoilt_bytes_never_break_the_parser() -> None:
    """A message of a newer kernel would end the relay."""
    chance = random.Random(7)
    whole = message(ANSWER, attribute(1, b"name") + attribute(2, attribute(3, b"deeper")), 2) * 3
    for _ in range(5000):
        spoilt = bytearray(whole[: chance.randrange(len(whole))])
        for _ in range(min(len(spoilt), chance.randrange(6))):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        for parsed in parse_messages(bytes(spoilt)):
            for value in attributes(parsed.body).values():
                text_of(value)
                attributes(value)
