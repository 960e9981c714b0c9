"""REDIRECT: nat looks at a connection's first packet, and conntrack remembers.

Owns: the chains of nat, and of mangle's input, where packets are dropped that a dead relay would have taken.
Never here: which connections (selection); the spelling of nft or iptables.
"""

from collections.abc import Sequence

from sidecar.config import Config
from sidecar.config.network_kinds import PortRange
from sidecar.rules.choices import Port, ports_of, when_dead
from sidecar.rules.model import Action, Chain, Match, Rule
from sidecar.rules.selection import (
    LISTENING,
    OLDER,
    ON_LO,
    OWN_ADDRESSES,
    PASSING,
    RETURN,
    SYN,
    TCP_ALONE,
    inbound_exemptions,
    inbound_selection,
    outbound_captures,
    outbound_exemptions,
    own_mark,
    own_owner,
)


def redirect_chains(config: Config, families: tuple[int, ...], backend: str) -> list[Chain]:
    """The chains for the listeners with capture = "redirect"; none when there are none."""
    inbound = ports_of(config, families, "inbound", "redirect")
    outbound = ports_of(config, families, "outbound", "redirect")
    chains = []
    if inbound:
        chains.append(Chain("nat", "prerouting", tuple(_inbound(config, inbound))))
    if outbound:
        chains.append(Chain("nat", "output", tuple(_outbound(config, outbound))))
    if chains and when_dead(config.rules.on_failure, "redirect", backend) == "drop":
        chains.append(Chain("mangle", "input", tuple(_drop_for_the_dead([*inbound, *outbound]))))
    return chains


def _inbound(config: Config, ports: Sequence[Port]) -> list[Rule]:
    return [
        TCP_ALONE,
        Rule("local connections were decided in OUTPUT", (ON_LO,), (RETURN,)),
        PASSING,
        OLDER,
        *inbound_exemptions(config),
        *(Rule(f"inbound: to {port.listener.name}", inbound_selection(config), _to(port), port.family) for port in ports),
    ]


def _outbound(config: Config, ports: Sequence[Port]) -> list[Rule]:
    rules = [TCP_ALONE, *own_mark(config), *own_owner(config), OWN_ADDRESSES, OLDER, *outbound_exemptions(config)]
    for port in ports:
        rules += outbound_captures(config, f"outbound: to {port.listener.name}", port.family, _to(port))
    return rules


def _to(port: Port) -> tuple[Action, ...]:
    return (Action("redirect", (port.listener.port,)),)


def _drop_for_the_dead(ports: Sequence[Port]) -> list[Rule]:
    """With nobody on the port the kernel resets by nature."""
    rules = []
    for port in ports:
        number = port.listener.port
        redirected = (SYN, Match("dst_ports", (PortRange(number, number),)), Match("ct_dnat"))
        rules += [
            Rule(f"{port.listener.name} is listened on", (*redirected, LISTENING), (RETURN,), port.family),
            Rule(f"nobody listens on {port.listener.name}", redirected, (Action("drop"),), port.family),
        ]
    return rules
