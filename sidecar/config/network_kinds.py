"""Kinds of values that name something on the network: addresses, endpoints, ports, networks, interfaces.

Owns: their spelling and their range. Used by the schema and the flags.
Never here: whether an address, an interface or a name exists on this machine (listeners and proxy ask the kernel).
"""

import re
import socket
from typing import NamedTuple

from sidecar.config.kinds import Kind, Misfit, all_or, pattern, shown, text_of

HIGHEST_PORT = 65535
MOST_PORT_RANGES = 256
INTERFACE = r"(?!\.\.?$)[!-.0-9;-~]{1,15}"  # as the kernel allows it: dev_valid_name, no slash, colon or space


class Endpoint(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PortRange(NamedTuple):
    """All ports from low to high; one port when they are equal."""

    low: int
    high: int

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def family_of(host: str) -> socket.AddressFamily | None:
    """The family of a literal address (a zone, as in fe80::1%eth0, is allowed); None for anything else."""
    bare, _, zone = host.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, bare)
        except (OSError, ValueError):  # ValueError: a NUL
            continue
        return None if "%" in host and (family == socket.AF_INET or not re.fullmatch(INTERFACE, zone)) else family
    return None


def canonical(host: str) -> str:
    """The one spelling of a literal address; anything else as it is."""
    family = family_of(host)
    bare, percent, zone = host.partition("%")
    return host if family is None else socket.inet_ntop(family, socket.inet_pton(family, bare)) + percent + zone


def listen_address() -> Kind[str]:
    """A literal address, or "" for both families."""

    def take(value: object) -> str:
        text = text_of(value)
        if text and family_of(text) is None:
            raise Misfit(shown(text))
        return canonical(text)

    return Kind('an IPv4 or IPv6 address, or "": both families', take)


def endpoint(expected: str, *, names: bool, lowest_port: int) -> Kind[Endpoint | None]:
    """ "host:port" or "[v6]:port"; "" is None. With `names`, the host may be a name instead of an address."""
    spelling = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):(\d{1,5})", re.ASCII)
    host_name = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")

    def take(value: object) -> Endpoint | None:
        text = text_of(value)
        if not text:
            return None
        match = spelling.fullmatch(text)
        if not match or not lowest_port <= int(match[3]) <= HIGHEST_PORT:
            raise Misfit(shown(text))
        bracketed, bare, port = match.groups()
        family = family_of(bracketed or bare)
        good = family == socket.AF_INET6 if bracketed else family == socket.AF_INET or (names and host_name.fullmatch(bare))
        if not good:
            raise Misfit(shown(text))
        return Endpoint(canonical(bracketed or bare), int(port))

    return Kind(expected, take, lambda value: str(value or ""))


def port_ranges() -> Kind[tuple[PortRange, ...]]:
    """An array of ports and ranges: [8080, "11000-11100"]; none overlaps another."""

    def take(value: object) -> tuple[PortRange, ...]:
        if not isinstance(value, list):
            raise Misfit(shown(value))
        if len(value) > MOST_PORT_RANGES:
            raise Misfit(shown(value), expected=f"at most {MOST_PORT_RANGES} entries")
        ranges: list[PortRange] = []
        for index, item in enumerate(value):
            ports = _port_range(item, at=f"[{index}]")
            for earlier in ranges:
                if ports.low <= earlier.high and earlier.low <= ports.high:
                    raise Misfit(
                        f"{ports}, which overlaps {earlier}", expected="ports that no other entry has", at=f"[{index}]"
                    )
            ranges.append(ports)
        return tuple(ranges)

    return Kind('an array of ports (8080) and ranges ("11000-11100")', take, _write_ranges)


def all_or_port_ranges() -> Kind[tuple[PortRange, ...] | None]:
    """ "all" (None), or ports and ranges."""
    return all_or(port_ranges())


def _write_ranges(ranges: tuple[PortRange, ...]) -> object:
    return [ports.low if ports.low == ports.high else str(ports) for ports in ranges]


def _port_range(value: object, at: str) -> PortRange:
    if isinstance(value, int) and not isinstance(value, bool):
        low = high = value
    elif isinstance(value, str) and (match := re.fullmatch(r"(\d{1,5})-(\d{1,5})", value, re.ASCII)):
        low, high = int(match[1]), int(match[2])
    else:
        raise Misfit(shown(value), expected='a port (8080) or a range of ports ("11000-11100")', at=at)
    if not 1 <= low <= high <= HIGHEST_PORT:
        raise Misfit(shown(value), expected=f"ports from 1 to {HIGHEST_PORT}, the lower one first", at=at)
    return PortRange(low, high)


def network() -> Kind[str]:
    """A network in CIDR notation, with no bit set behind its prefix; a single address is a network of its own."""

    def take(value: object) -> str:
        text = text_of(value)
        host, slash, prefix = text.partition("/")
        family = None if "%" in host else family_of(host)
        if family is None or (slash and not re.fullmatch(r"\d{1,3}", prefix, re.ASCII)):
            raise Misfit(shown(text))
        packed = socket.inet_pton(family, host)
        bits = len(packed) * 8
        length = int(prefix) if slash else bits
        if length > bits:
            raise Misfit(shown(text), expected=f"a prefix of at most {bits} bits")
        ones = (1 << bits) - (1 << (bits - length))
        masked = (int.from_bytes(packed, "big") & ones).to_bytes(len(packed), "big")
        canonical = f"{socket.inet_ntop(family, masked)}/{length}"
        if masked != packed:
            raise Misfit(shown(text), expected=f"no bits behind the prefix of {length}", next_step=f'write "{canonical}"')
        return canonical

    return Kind('a network such as "10.0.0.0/8" or "fe80::/10"', take)


def interface() -> Kind[str]:
    """The name of a network interface."""
    return pattern("the name of a network interface, such as eth0", INTERFACE)


def ruled_interface() -> Kind[str]:
    """The same for rules, without what nft or iptables would take for a quote, an option, a negation or a wildcard."""
    expected = "the name of a network interface, of letters, digits, dots, dashes, underscores and at signs"
    return pattern(expected, r"(?!\.\.?$)[A-Za-z0-9._@][A-Za-z0-9._@-]{0,14}")
