"""Sniff: what a flow is about, however its first bytes are cut; and nothing of them held back."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore.elements.hello import LARGEST, Hello
from relaycore.elements.sniff import Sniff
from relaycore.testing import Drive
from tests.unit.elements.hellos import EVASIVE, hello, in_records, read_by_openssl

HELLO = hello("www.example.org")
REQUEST = b"GET /a HTTP/1.1\r\nUser-Agent: x\r\nHost: Example.ORG:8080\r\n\r\nbody"


def labels(*pieces: bytes) -> dict[str, str]:
    """Of a flow whose client sends these."""
    drive = Drive(Sniff)
    for piece in pieces:
        assert drive.request(piece) == piece, "a byte was held back"
    return dict(drive.labels)


@given(st.lists(st.integers(1, len(HELLO) - 1), max_size=6).map(sorted))
def test_a_name_is_found_however_the_hello_is_cut(cuts: list[int]) -> None:
    """Names would be missing where segments are small."""
    places = [0, *cuts, len(HELLO)]
    pieces = [HELLO[a:b] for a, b in itertools.pairwise(places) if a < b]
    assert labels(*pieces) == {"sni": "www.example.org"}


@pytest.mark.parametrize("at", range(1, len(REQUEST)))
def test_a_host_is_found_wherever_the_head_is_cut(at: int) -> None:
    """Where the end of a head lies in two segments, its host would be missing."""
    assert labels(REQUEST[:at], REQUEST[at:]) == {"host": "example.org:8080"}


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_a_hello_in_many_records_has_its_name(size: int) -> None:
    """Clients that cut their ClientHello to pass middleboxes would have no name."""
    assert labels(in_records(HELLO, size)) == {"sni": "www.example.org"}


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (hello(None), {}),
        (REQUEST, {"host": "example.org:8080"}),
        (b"GET http://user@other.example/x HTTP/1.1\r\nHost: no\r\n\r\n", {"host": "other.example"}),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {}),
        (b"GET / HTTP/1.1\r\nHost: bad name\r\n\r\n", {}),
        (b"SSH-2.0-OpenSSH_9.2\r\n", {}),
        (b"\x16\x03\x01\xff\xff" + b"x" * 100, {}),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01x", {}),
        (HELLO[:60] + b"\xff" * (len(HELLO) - 60), {}),
    ],
)
def test_what_is_known_of_other_beginnings(first: bytes, expected: dict[str, str]) -> None:
    """A wrong name would stand in the log, or an exception end the flow."""
    drive = Drive(Sniff)
    assert drive.request(first) == first
    assert drive.outcome == "on"
    assert dict(drive.labels) == expected


@given(st.binary(min_size=1, max_size=300), st.integers(1, 50))
def test_no_bytes_do_it_harm(data: bytes, size: int) -> None:
    """Anybody could end flows by sending noise."""
    drive = Drive(Sniff)
    for at in range(0, len(data), size):
        assert drive.request(data[at : at + size]) == data[at : at + size]
    assert (drive.outcome, drive.errors) == ("on", [])


@pytest.mark.parametrize("first", [HELLO, REQUEST, b"\x00\x01\x02\x03\x04\x05", b"\x16" * 20_000])
def test_the_flow_is_released_once_all_is_known(first: bytes) -> None:
    """Python would stay in the way of every byte for a label that is long there."""
    drive = Drive(Sniff)
    drive.request(first)
    assert drive.released


@pytest.mark.parametrize("how", EVASIVE)
def test_a_name_that_servers_read_is_read(how: str) -> None:
    """Whoever may not speak to a name would only have to write the ClientHello oddly."""
    found = Hello()
    assert found.feed(EVASIVE[how])
    assert found.is_tls
    assert found.name is not None
    assert found.name.endswith(".org")
    assert read_by_openssl(EVASIVE[how]), "no server takes this: it proves nothing"


def test_a_hello_is_bounded() -> None:
    """A client could have memory kept for each of its connections."""
    found = Hello()
    record = b"\x16\x03\x01\x40\x00" + b"\xff" * 16384
    assert not found.feed(b"\x16\x03\x01\x00\x04\x01" + LARGEST.to_bytes(3, "big"))
    assert not any(found.feed(record) for _ in range(LARGEST // 16384))
    assert found.feed(record)
    assert not found.is_tls
    assert Hello().feed(b"\x16\x03\x01\x00\x04\x01" + (LARGEST + 1).to_bytes(3, "big"))
