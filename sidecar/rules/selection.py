"""Which connections: what is never captured, and which of the others are.

Owns: the meaning of the selecting keys of [rules], the same for REDIRECT and TPROXY.
Never here: what is then done with a connection (redirect, tproxy).
"""

import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from sidecar.config import Config
from sidecar.config.network_kinds import PortRange
from sidecar.rules.model import BOTH, V4, V6, Action, Match, Rule

SSH_PORT = 22

SYN = Match("syn")
NOT_TCP, NOT_SYN = Match("tcp", negated=True), Match("syn", negated=True)
ON_LO = Match("in_interface", ("lo",))
DST_LOCAL, NOT_DST_LOCAL = Match("dst_local"), Match("dst_local", negated=True)
LISTENING = Match("listening")
RETURN = Action("return")

Matches = tuple[Match, ...]
Actions = tuple[Action, ...]

TCP_ALONE = Rule("TCP alone is relayed", (NOT_TCP,), (RETURN,))
CONNECTED = Match("connected")
OLDER = Rule("connections older than the rules", (NOT_SYN,), (RETURN,))
OWN_ADDRESSES = Rule("localhost and own addresses", (DST_LOCAL,), (RETURN,))
PASSING = Rule("what only passes by: capturing it would make an open relay", (NOT_DST_LOCAL,), (RETURN,))


def own_mark(config: Config) -> list[Rule]:
    """The relay's own connections, by the mark that it sets."""
    if not config.rules.mark:
        return []
    return [Rule("connections of the relay, also when orphaned", (Match("mark", (config.rules.mark,)),), (RETURN,))]


def own_owner(config: Config) -> list[Rule]:
    """The relay's own connections, by whose they are: the second belt, and the only one of a relay that may not set a mark."""
    if not config.rules.exempt_owner:
        return []
    return [
        Rule("the user of the relay", (Match("uid", (config.relay.user.id,)),), (RETURN,)),
        Rule("the group of the relay", (Match("gid", (config.relay.group.id,)),), (RETURN,)),
    ]


def inbound_exemptions(config: Config) -> list[Rule]:
    """Connections to this machine that are never captured."""
    rules = config.rules
    return [
        Rule("ports of the relay, ssh, and excluded ones", (Match("dst_ports", skipped_ports(config)),), (RETURN,)),
        *_excluded(_values("in_interface", rules.inbound_exclude_interfaces)),
        *_excluded(_nets("src_nets", rules.inbound_exclude_cidrs)),
    ]


def inbound_selection(config: Config) -> Matches:
    """Of the others, those that are."""
    listed = () if config.rules.inbound_ports is None else (Match("dst_ports", merged(config.rules.inbound_ports)),)
    return (*listed, LISTENING) if config.rules.only_open_ports else listed


def outbound_exemptions(config: Config) -> list[Rule]:
    """Connections of this machine that are never captured, besides the relay's own."""
    rules = config.rules
    return [
        *_excluded(_values("uid", rules.outbound_exclude_uids)),
        *_excluded(_values("gid", rules.outbound_exclude_gids)),
        *_excluded(_destinations(config)),
        *_excluded(_values("out_interface", rules.outbound_exclude_interfaces)),
    ]


def outbound_captures(config: Config, why: str, family: int, actions: Actions) -> list[Rule]:
    """Of the others, those that are: a rule for each user with ports of its own, and one for everybody else."""
    rules = config.rules
    made = []
    users = tuple(sorted(user.id for user in rules.outbound_uid_ports))
    by_user = [((user.id,), ports) for user, ports in rules.outbound_uid_ports.items()]
    rest = tuple(sorted(set(rules.outbound_uids) - set(users)))
    only_listed = bool(rules.outbound_uids) and not rest
    for uids, ports in [*by_user, *([] if only_listed else [(rest, rules.outbound_ports)])]:
        if users and uids == rest:
            made.append(Rule("users with ports of their own", (Match("uid", users),), (RETURN,), family))
        whose = (Match("uid", uids),) if uids else ()
        for narrowed, nets in each_family(config, family, ("dst_nets", rules.outbound_cidrs)):
            made.append(Rule(why, (*whose, *_listed(ports), *nets), actions, narrowed))
    return made


def gateway_exemptions(config: Config) -> list[Rule]:
    """Passing connections that are never captured: by where they go."""
    return [Rule("excluded", (NOT_DST_LOCAL, match), (RETURN,)) for match in _destinations(config)]


def gateway_selection(config: Config, family: int) -> list[tuple[int, Matches]]:
    """Of the others, those that are."""
    rules = config.rules
    clients = Match("in_interface", tuple(sorted(set(rules.gateway_interfaces))))
    nets = (("src_nets", rules.gateway_cidrs or None), ("dst_nets", rules.outbound_cidrs))
    return [
        (narrowed, (clients, NOT_DST_LOCAL, *_listed(rules.outbound_ports), *matches))
        for narrowed, matches in each_family(config, family, *nets)
    ]


def skipped_ports(config: Config) -> tuple[PortRange, ...]:
    """Ports to which no inbound connection is captured; the default exception for ssh yields to a list that names it."""
    given = "inbound_exclude_ports" in config.rules.given
    return merged([*own_ports(config), *(config.rules.inbound_exclude_ports if given else ())])


def own_ports(config: Config) -> tuple[PortRange, ...]:
    """The ports of the relay itself, and of ssh unless it was listed: whoever repairs the relay must get in."""
    ports = [listener.port for listener in config.listeners]
    ports += [endpoint.port for endpoint in (config.admin.metrics, config.admin.health) if endpoint]
    if not any(listed.low <= SSH_PORT <= listed.high for listed in config.rules.inbound_ports or ()):
        ports.append(SSH_PORT)
    return merged(PortRange(port, port) for port in ports if port)


def merged(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """The same ports in as few ranges as possible, in their order: a set of the kernel takes none twice."""
    united: list[PortRange] = []
    for ports in sorted(ranges):
        if united and ports.low <= united[-1].high + 1:
            united[-1] = PortRange(united[-1].low, max(united[-1].high, ports.high))
        else:
            united.append(ports)
    return tuple(united)


def each_family(config: Config, family: int, *nets: tuple[str, Sequence[str] | None]) -> list[tuple[int, Matches]]:
    """One entry when no networks are listed (None: all), else one for each family that has some in every list."""
    listed = [(kind, networks) for kind, networks in nets if networks is not None]
    if not listed:
        return [(family, ())]
    families = [family] if family != BOTH else [V4, V6] if config.rules.ipv6 else [V4]
    entries = []
    for one in families:
        matches = [match for kind, networks in listed for match in _nets(kind, networks) if family_of_match(match) == one]
        if len(matches) == len(listed):
            entries.append((one, tuple(matches)))
    return entries


def family_of_match(match: Match) -> int:
    """The family that a condition implies: networks belong to one."""
    if match.kind not in ("src_nets", "dst_nets"):
        return BOTH
    return V6 if ":" in match.values[0] else V4


def _excluded(matches: Iterable[Match]) -> list[Rule]:
    return [Rule("excluded", (match,), (RETURN,)) for match in matches]


def _destinations(config: Config) -> list[Match]:
    return [*_ports(config.rules.outbound_exclude_ports), *_nets("dst_nets", config.rules.outbound_exclude_cidrs)]


def _listed(ports: Sequence[PortRange] | None) -> Matches:
    """A condition on ports that are listed, even if none is; nothing for all."""
    return () if ports is None else (Match("dst_ports", merged(ports)),)


def _ports(ports: Sequence[PortRange]) -> list[Match]:
    return [Match("dst_ports", merged(ports))] if ports else []


def _values(kind: str, values: Iterable[int] | Iterable[str]) -> list[Match]:
    distinct = tuple(sorted(set(values)))  # type: ignore[type-var]
    return [Match(kind, distinct)] if distinct else []


def _nets(kind: str, networks: Iterable[str]) -> list[Match]:
    """One condition for each family that has any; no network inside another, which a set of the kernel would refuse."""
    parsed = [ip_network(text) for text in networks]
    v4 = collapse_addresses(net for net in parsed if isinstance(net, IPv4Network))
    v6 = collapse_addresses(net for net in parsed if isinstance(net, IPv6Network))
    return [Match(kind, texts) for texts in (tuple(map(_spelt, v4)), tuple(map(_spelt, v6))) if texts]


def _spelt(net: IPv4Network | IPv6Network) -> str:
    """As libc writes it, and so every program that lists rules: ::ffff:1.2.3.4 where Python has ::ffff:102:304."""
    family = socket.AF_INET if net.version == V4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, net.network_address.packed)}/{net.prefixlen}"
