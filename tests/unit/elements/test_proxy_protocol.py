"""PROXY headers: what a server that reads them learns of the client."""

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore.element import OptionError
from relaycore.elements.proxy_protocol import ProxyProtocol
from relaycore.testing import Drive

Endpoint = tuple[str, int]

PORTS = st.integers(1, 65535)
V4 = st.tuples(st.ip_addresses(v=4).map(str), PORTS)
V6 = st.tuples(
    st.builds(
        "{}{}".format,
        st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None),  # the engine makes IPv4 of those
        st.sampled_from(["", "%1", "%77"]),
    ),
    PORTS,
)


def header(version: int, client: Endpoint, origin: Endpoint) -> bytes:
    drive = Drive(ProxyProtocol, options={"version": version}, client=client, origin=origin)
    assert (drive.outcome, drive.released, drive.errors) == ("on", True, [])
    return drive.first


def plain(endpoint: Endpoint) -> tuple[Any, int]:
    return ipaddress.ip_address(endpoint[0].partition("%")[0]), endpoint[1]


def parsed_v1(line: bytes) -> tuple[str, tuple[Any, int], tuple[Any, int]]:
    assert len(line) <= 107
    assert line.endswith(b"\r\n")
    proxy, family, source, destination, from_port, to_port = line[:-2].decode("ascii").split(" ")
    assert proxy == "PROXY"
    return family, (ipaddress.ip_address(source), int(from_port)), (ipaddress.ip_address(destination), int(to_port))


def parsed_v2(data: bytes) -> tuple[int, tuple[Any, int], tuple[Any, int]]:
    assert data[:12] == b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
    command, family, length = struct.unpack_from("!BBH", data, 12)
    assert command == 0x21
    assert len(data) == 16 + length
    size = {0x11: 4, 0x21: 16}[family]
    source, destination, from_port, to_port = struct.unpack_from(f"!{size}s{size}sHH", data, 16)
    assert length == 2 * size + 4
    return family, (ipaddress.ip_address(source), from_port), (ipaddress.ip_address(destination), to_port)


@given(st.one_of(st.tuples(V4, V4), st.tuples(V6, V6)))
def test_a_server_reads_back_who_the_client_is(ends: tuple[Endpoint, Endpoint]) -> None:
    """A server would refuse the connection, or log and allow somebody else."""
    client, origin = ends
    version = plain(client)[0].version
    assert parsed_v1(header(1, client, origin)) == (f"TCP{version}", plain(client), plain(origin))
    assert parsed_v2(header(2, client, origin)) == ({4: 0x11, 6: 0x21}[version], plain(client), plain(origin))


@given(V4, V6, st.booleans())
def test_two_families_are_not_told(four: Endpoint, six: Endpoint, turned: bool) -> None:
    """An address of the wrong family would make the header one that no server reads."""
    client, origin = (six, four) if turned else (four, six)
    assert header(1, client, origin) == b"PROXY UNKNOWN\r\n"
    assert header(2, client, origin) == b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


def test_known_headers() -> None:
    """Writer and reader of these tests could share a misunderstanding."""
    assert header(1, ("192.0.2.1", 40000), ("198.51.100.1", 80)) == b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 80\r\n"
    assert header(1, ("fe80::1%3", 1), ("::1", 80)) == b"PROXY TCP6 fe80::1 ::1 1 80\r\n"
    expected = "0d0a0d0a000d0a515549540a2111000cc0000201c63364019c400050"
    assert header(2, ("192.0.2.1", 40000), ("198.51.100.1", 80)).hex() == expected


@pytest.mark.parametrize("options", [{}, {"version": 3}, {"version": "1"}, {"version": 1, "tls": True}])
def test_options_that_do_not_fit(options: dict[str, Any]) -> None:
    """A version that nobody has chosen would break an origin that expects the other."""
    with pytest.raises(OptionError):
        Drive(ProxyProtocol, options=options)
