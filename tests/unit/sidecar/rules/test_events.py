"""sidecar.rules.events: what the kernel tells of rules, in its own bytes and in spoilt ones.

The bytes are those of a kernel (6.x), to which nft and iptables-nft-restore had brought rules of ours.
"""

import random
import socket

import pytest

from sidecar.netlink import attribute, message, parse_messages
from sidecar.rules.events import DEL_TABLE, DONE, NEW_RULE, OTHER, OURS, Event, parse_events
from sidecar.rules.tables import HEAD, NFNL_SUBSYS_NFTABLES, Table

NAT = Table(socket.AF_INET, "nat")
DIGEST = "0949935d102b"

NFT_RECORD = bytes.fromhex(
    "98000000060a000c060000007b2e0000010000021200010072656c61795f736964656361720000000b0002007265636f726400000c00"
    "0300000000000000000334000400300001000e000100696d6d6564696174650000001c0002000800010000000000100002000c000200"
    "08000100fffffffb21000700001b72656c61792d736964656361722030393439393335643130326200000000"
)
NFT_DONE = bytes.fromhex("2c0000000f0a0000010000007b2e00000000000208000100000000020800020000002e7b080003006e667400")
IPTABLES_RECORD = (
    bytes.fromhex(
        "c8010000060a000c07000000a22e000002000004080001006e6174001100020052454c41595f5245434f5244000000000c0003000000"
        "0000000000038c0104002c0101000a0001006d617463680000001c0102000c000100636f6d6d656e7400080002000000000004010300"
        "72656c61792d7369646563617220303934393933356431303262206d616465204f55545055542c7461626c65"
    )
    + bytes(212)
    + bytes.fromhex(
        "2c0001000c000100636f756e746572001c0002000c00010000000000000000000c0002000000000000000000300001000e000100696d"
        "6d6564696174650000001c0002000800010000000000100002000c00020008000100fffffffb"
    )
)
JUMP = (
    bytes.fromhex(
        "20020000060a000c1a000000a22e000002000004080001006e6174000b0002004f555450555400000c000300000000000000000dec01"
        "040024000100090001006d6574610000000014000200080002000000001008000100000000012c00010008000100636d700020000200"
        "080001000000000108000200000000000c00030005000100060000002c0101000a0001006d617463680000001c0102000c000100636f"
        "6d6d656e740008000200000000000401030072656c61792d73696465636172"
    )
    + bytes(243)
    + bytes.fromhex(
        "2c0001000c000100636f756e746572001c0002000c00010000000000000000000c0002000000000000000000400001000e000100696d"
        "6d6564696174650000002c0002000800010000000000200002001c00020008000100fffffffd0e00020052454c41595f4f5554000000"
    )
)
IPTABLES_DONE = bytes.fromhex(
    "380000000f0a000002000000a22e00000000000408000100000000040800020000002ea21400030069707461626c65732d6e66742d726500"
)

RECORDED = {"nft": NFT_RECORD, "done": NFT_DONE, "iptables": IPTABLES_RECORD, "jump": JUMP, "done by iptables": IPTABLES_DONE}


def told(kind: int, family: int, *names: bytes) -> bytes:
    """A message about a table, or a chain (1 and 3 are the numbers of their names)."""
    body = HEAD.pack(family, 0, 0) + b"".join(attribute(kind, name + b"\0") for kind, name in zip((1, 3), names, strict=False))
    return message(NFNL_SUBSYS_NFTABLES << 8 | kind, body, 0)


def test_records_tell_which_plan_they_are_of() -> None:
    """Rules that were applied again would be taken for tampered ones, or tampered ones for ours."""
    assert parse_events(NFT_RECORD) == [Event(NEW_RULE, OURS, "record", 3, DIGEST)]
    assert parse_events(IPTABLES_RECORD) == [Event(NEW_RULE, NAT, "RELAY_RECORD", 3, DIGEST)]


def test_the_end_of_a_transaction_names_its_author() -> None:
    """Nobody could find out who took the rules away."""
    (done,) = parse_events(NFT_DONE)
    assert (done.kind, done.by.partition(" (pid ")[0]) == (DONE, "nft")
    (done,) = parse_events(IPTABLES_DONE)
    assert done.by.startswith("iptables-nft-re (pid ")


def test_a_jump_to_our_chain_is_ours() -> None:
    """A flush of the base chain alone would end the capture unnoticed."""
    (jump,) = parse_events(JUMP)
    assert (jump.kind, jump.table, jump.chain, jump.digest) == (NEW_RULE, NAT, "OUTPUT", "")
    assert parse_events(JUMP.replace(b"RELAY_", b"KUBE__")) == [], "alone"
    for theirs in (JUMP.replace(b"RELAY_", b"KUBE__"), JUMP.replace(b"OUTPUT\0", b"OTHERS\0")):
        assert [event.chain for event in parse_events(theirs + IPTABLES_RECORD)] == ["RELAY_RECORD"], "beside one of ours"


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (told(2, 1, b"relay_sidecar"), [Event(DEL_TABLE, OURS)]),
        (told(0, 1, b"relay_sidecar2"), []),
        (told(2, 2, b"relay_sidecar"), []),
        (told(2, 2, b"nat"), []),
        (told(3, 1, b"relay_sidecar", b"record"), [Event(OTHER, OURS, "record")]),
        (told(9, 1, b"relay_sidecar", b"set"), [Event(OTHER, OURS)]),
        (told(5, 2, b"nat", b"RELAY_OUT"), [Event(OTHER, NAT, "RELAY_OUT")]),
        (told(5, 2, b"filter", b"RELAY_OUT"), []),
        (told(5, 2, b"nat", b"DOCKER"), []),
        (told(9, 2, b"nat", b"RELAY_OUT"), []),
    ],
)
def test_what_is_ours_is_told_and_nothing_else(datagram: bytes, expected: list[Event]) -> None:
    """Each change to somebody else's firewall would be told as one to the relay's rules."""
    assert parse_events(datagram) == expected


def test_messages_of_others_are_passed_over_with_ours_between_them() -> None:
    """A transaction that changes theirs and ours would be judged by the first message alone."""
    both = told(2, 2, b"filter") + NFT_RECORD + told(2, 2, b"raw")
    assert [event.digest for event in parse_events(both)] == [DIGEST]


def test_spoilt_bytes_are_no_events_and_no_end() -> None:
    """One odd message of a newer kernel would end the relay."""
    luck = random.Random(5)
    for kind in range(20):
        short = message(NFNL_SUBSYS_NFTABLES << 8 | kind, b"\1", 0)
        assert parse_events(short) == []
        assert len(parse_events(short + NFT_RECORD)) == 1
    for data in RECORDED.values():
        assert len(parse_messages(data)) == 1
        for length in range(len(data)):
            parse_events(data[:length])
            parse_events(length.to_bytes(4, "little") + data[4:length])
        for _ in range(2000):
            spoilt = bytearray(data)
            for _ in range(luck.randrange(1, 9)):
                spoilt[luck.randrange(4, len(spoilt))] = luck.randrange(256)
            parse_events(bytes(spoilt))
    for _ in range(2000):
        parse_events(luck.randbytes(luck.randrange(200)) + b"relay_sidecar")
