"""sidecar.addresses: what the kernel says is local."""

import errno
import socket
import struct

import pytest

from sidecar import addresses, netlink
from sidecar.addresses import ROUTE, RTA_DST, RTA_TABLE, RTM_NEWROUTE, local_network, own_networks
from sidecar.netlink import ATTRIBUTE, HEADER, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, parse_messages

LOCAL, BROADCAST = 2, 3


def attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes, flags: int = 2) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body + bytes(-len(body) % 4)


def route(destination: str, bits: int, table: int = 255, route_type: int = LOCAL) -> bytes:
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    body = ROUTE.pack(family, bits, 0, 0, min(table, 252) if table > 255 else table, 2, 254, route_type, 0)
    body += attribute(RTA_TABLE, struct.pack("=I", table)) + attribute(RTA_DST, socket.inet_pton(family, destination))
    return message(RTM_NEWROUTE, body)


class Netlink:
    """Answers dumps from a script."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)
        self.dumps = 0

    def send(self, _: bytes) -> None:
        self.dumps += 1

    def recv(self, _: int) -> bytes:
        return self.datagrams.pop(0)

    def settimeout(self, _: float) -> None: ...
    def setsockopt(self, *_: int) -> None:
        raise OSError(errno.ENOPROTOOPT, "an old kernel")

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None: ...


def networks_from(monkeypatch: pytest.MonkeyPatch, *datagrams: bytes) -> tuple[str, ...]:
    monkeypatch.setattr(netlink.socket, "socket", lambda *_: Netlink(*datagrams))
    return own_networks()


def test_the_real_kernel_names_loopback() -> None:
    """Every inbound connection would be refused as foreign, or a loop would not be seen."""
    assert {"127.0.0.0/8", "127.0.0.1/32", "::1/128"} <= set(own_networks())


def test_local_routes_of_table_local_are_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """TPROXY's own `local 0.0.0.0/0 dev lo table 100` would make the whole Internet local, and the relay an open one."""
    first = route("10.0.0.1", 32) + route("10.0.0.255", 32, route_type=BROADCAST) + route("0.0.0.0", 0, table=100)
    second = route("fd00::1", 128) + route("127.0.0.0", 8) + route("10.0.0.1", 32) + route("1.1.1.1", 32, table=1000)
    found = networks_from(monkeypatch, first, second + message(NLMSG_DONE, bytes(4)))
    assert found == ("10.0.0.1/32", "127.0.0.0/8", "fd00::1/128")


def test_a_dump_that_was_interrupted_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that appears during the dump could be missing until the next change."""
    torn = message(RTM_NEWROUTE, ROUTE.pack(2, 0, 0, 0, 254, 0, 0, 1, 0), NLM_F_DUMP_INTR) + message(NLMSG_DONE, bytes(4))
    whole = route("10.0.0.1", 32) + message(NLMSG_DONE, bytes(4))
    assert networks_from(monkeypatch, torn, whole) == ("10.0.0.1/32",)


def test_a_dump_that_is_refused_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay would start with no address of its own, and protect nothing."""
    with pytest.raises(OSError, match="refused") as caught:
        networks_from(monkeypatch, message(NLMSG_ERROR, struct.pack("=i", -errno.EPERM) + bytes(16)))
    assert caught.value.errno == errno.EPERM


def test_truncated_messages_end_the_parse() -> None:
    """A short datagram would be read past its end."""
    whole = route("10.0.0.1", 32)
    for cut in range(len(whole)):
        for parsed in parse_messages(whole[:cut]):
            local_network(parsed)
    assert parse_messages(HEADER.pack(4, RTM_NEWROUTE, 0, 0, 0)) == []


def test_a_watcher_needs_no_privilege_and_can_be_emptied() -> None:
    """The relay could not follow address changes as its own user."""
    with addresses.watch_addresses() as watcher:
        _, groups = watcher.getsockname()
        assert groups == 0x10 | 0x40 | 0x100 | 0x400, "addresses and routes of both families"
        netlink.forget(watcher)


def test_an_overrun_counts_as_a_change() -> None:
    """After lost messages (ENOBUFS) the old addresses would hold for ever."""
    answers = iter([OSError(errno.ENOBUFS, "overrun"), b"x", BlockingIOError()])

    class Watcher:
        def recv(self, _: int) -> bytes:
            answer = next(answers)
            if isinstance(answer, OSError):
                raise answer
            return answer

    netlink.forget(Watcher())  # type: ignore[arg-type]
    assert next(answers, None) is None
