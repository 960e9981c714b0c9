"""What to probe: for every listener that rules bring connections to, and each family, one connection that they select.

Owns: that choice. Never here: a socket (probe does it); a destination that could be somebody's, only documentation addresses.
"""

import os
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from sidecar.config import Config, Listener
from sidecar.config.network_kinds import HIGHEST_PORT, PortRange
from sidecar.rules.choices import captured, families_of
from sidecar.rules.model import V4, V6
from sidecar.rules.selection import skipped_ports
from sidecar.rules.veth import CANDIDATES

FAMILY = {V4: socket.AF_INET, V6: socket.AF_INET6}
ANY = {V4: "0.0.0.0", V6: "::"}
DOCUMENTATION = {V4: ("192.0.2.1", "198.51.100.1", "203.0.113.1"), V6: ("2001:db8::1", "3fff::1")}
# Ports that need no privilege come first, and so does our own user: an init container may have CAP_NET_ADMIN alone.
LIKELY_PORTS = (8080, *range(1024, 2048), 80, 443)
ORDINARY_USERS = (65534, *range(1000, 1200), 0)
NOGROUP = 65534
NOBODY = -1  # no user is selected that the probe could be


class Trial(NamedTuple):
    """One connection to try."""

    direction: str  # outbound | inbound | gateway
    capture: str  # redirect | tproxy
    family: socket.AddressFamily
    listen: tuple[str, int]  # where the relay listens
    destination: str  # outbound: an address that the rules select, "" for none
    port: int  # one that the rules select, 0 for none
    uid: int  # outbound: whose connection, and of which group
    gid: int


class Outcome(NamedTuple):
    """What came of it."""

    trial: Trial
    verdict: str  # captured | failed | not probed
    detail: str


def trials_of(config: Config) -> list[Trial]:
    """One for each direction and family. What no documentation address or port can show has an empty destination or port 0."""
    families = (V4, V6) if config.rules.ipv6 else (V4,)
    return [
        _outbound(config, listener, family) if listener.direction == "outbound" else _inbound(config, listener, family)
        for listener in captured(config)
        for family in families_of(listener, families)
    ]


def _outbound(config: Config, listener: Listener, family: int) -> Trial:
    rules = config.rules
    uid, gid, ports = _user(config)
    listed, excluded = rules.outbound_cidrs, rules.outbound_exclude_cidrs
    destination = next((address for address in DOCUMENTATION[family] if _selected(address, listed, excluded)), "")
    if rules.outbound_exclude_interfaces:
        destination = ""  # the way there may be one of them
    return Trial(
        "outbound",
        listener.capture,
        FAMILY[family],
        (listener.address or ANY[family], listener.port),
        destination,
        _port(ports, rules.outbound_exclude_ports),
        uid,
        gid,
    )


def _inbound(config: Config, listener: Listener, family: int) -> Trial:
    rules = config.rules
    where = (listener.address or ANY[family], listener.port)
    port = _port(rules.inbound_ports, skipped_ports(config))
    if any(not _selected(neighbour, None, rules.inbound_exclude_cidrs) for neighbour in CANDIDATES[FAMILY[family]]):
        port = 0  # what comes from the neighbour that the probe makes may be excluded
    return Trial(listener.direction, listener.capture, FAMILY[family], where, "", port, 0, 0)


def _user(config: Config) -> tuple[int, int, Sequence[PortRange] | None]:
    """A user whose connections the rules select, with a group, and to which ports; not the relay's own."""
    rules = config.rules
    uids, gids = set(rules.outbound_exclude_uids), set(rules.outbound_exclude_gids)
    if rules.exempt_owner:
        uids.add(config.relay.user.id)
        gids.add(config.relay.group.id)
    listed = {user.id: ports for user, ports in rules.outbound_uid_ports.items() if ports is None or ports}
    others = [uid for uid in rules.outbound_uids or (os.geteuid(), *ORDINARY_USERS) if uid not in uids]
    for uid in (*listed, *others):
        own = os.getegid() if uid == os.geteuid() else uid  # another group than our own takes a privilege
        for gid in (own, NOGROUP):
            if gid not in gids:
                return uid, gid, listed.get(uid, rules.outbound_ports)
    return NOBODY, NOGROUP, rules.outbound_ports


def _port(listed: Sequence[PortRange] | None, excluded: Sequence[PortRange]) -> int:
    """A port that is selected; 0 when none is."""
    candidates: Iterable[int] = LIKELY_PORTS
    if listed is not None:
        candidates = (port for ports in listed for port in range(ports.low, min(ports.high, HIGHEST_PORT) + 1))
    return next((port for port in candidates if not any(ports.low <= port <= ports.high for ports in excluded)), 0)


def _selected(address: str, listed: Sequence[str] | None, excluded: Sequence[str]) -> bool:
    def inside(networks: Sequence[str]) -> bool:
        return any(ip_address(address) in network for network in map(ip_network, networks))

    return (listed is None or inside(listed)) and not inside(excluded)
