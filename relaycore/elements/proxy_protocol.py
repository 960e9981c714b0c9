"""Tells the origin who its client is: a PROXY header in front of the client's first byte.

    [[element]]
    name = "proxy"
    use = "relaycore.elements.proxy_protocol:ProxyProtocol"
    options = { version = 2 }

Owns: the header, as haproxy's proxy-protocol.txt has it. Who may touch it: a flow, at its opening.
Never here: a byte that follows; a header that is read.
"""

import ipaddress
import struct

from relaycore.element import Element, Open, Options

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = 0x20
PROXY = 0x21
STREAMS = {4: 0x11, 6: 0x21}  # TCP over IPv4, over IPv6

Endpoint = tuple[str, int]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ProxyProtocol(Element):
    """The header is all it does: the flow is released with it."""

    shared: int

    @classmethod
    def configure(cls, options: Options) -> int:
        """The version."""
        return options.integer("version", 1, 2)

    def opened(self) -> Open:
        """See Element."""
        header = header_v1 if self.shared == 1 else header_v2
        return Open(first=header(self.flow.client, self.flow.origin), release=True)


def header_v1(client: Endpoint, origin: Endpoint) -> bytes:
    """A line of text. It has no room for two families: then it says UNKNOWN."""
    source, destination = address_of(client), address_of(origin)
    if source.version != destination.version:
        return b"PROXY UNKNOWN\r\n"
    return f"PROXY TCP{source.version} {source} {destination} {client[1]} {origin[1]}\r\n".encode()


def header_v2(client: Endpoint, origin: Endpoint) -> bytes:
    """The binary one. Of two families it says LOCAL, which means: take the connection for what it is."""
    source, destination = address_of(client), address_of(origin)
    if source.version != destination.version:
        return SIGNATURE + struct.pack("!BBH", LOCAL, 0, 0)
    body = source.packed + destination.packed + struct.pack("!HH", client[1], origin[1])
    return SIGNATURE + struct.pack("!BBH", PROXY, STREAMS[source.version], len(body)) + body


def address_of(endpoint: Endpoint) -> Address:
    """Without its zone, which means nothing on another machine."""
    return ipaddress.ip_address(endpoint[0].partition("%")[0])
