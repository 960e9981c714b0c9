"""Any valid configuration that has rules, for tests that must hold for all of them.

Owns: the strategies. Never here: what must hold.
"""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from hypothesis import strategies as st

from tests.unit.sidecar.rules.choices import LISTENERS

PORT = st.integers(1, 65535)
ID = st.sampled_from([0, 1, 1000, 1337, 65534, 4294967294]) | st.integers(0, 4294967294)
INTERFACE = st.sampled_from(["lo", "eth0", "eth0.100", "to-client", "tun0"]) | st.from_regex(
    r"[A-Za-z0-9_@][A-Za-z0-9._@-]{0,14}", fullmatch=True
)


@st.composite
def port_lists(draw: st.DrawFn) -> list[object]:
    """Ports and ranges; none overlaps another, some touch."""
    bounds = sorted(draw(st.lists(PORT, unique=True, max_size=80)))
    entries: list[object] = []
    while bounds:
        low = bounds.pop(0)
        if bounds and draw(st.booleans()):
            entries.append(f"{low}-{bounds.pop(0)}")
        else:
            entries.append(low)
    return draw(st.permutations(entries))


@st.composite
def networks(draw: st.DrawFn, bits: int) -> str:
    """One network of a family, of any length, also none at all."""
    length = draw(st.integers(0, bits))
    number = draw(st.integers(0, 2**bits - 1)) >> (bits - length) << (bits - length)
    return str(ip_network((number, length)))


NETWORKS = st.lists(networks(32) | networks(128), max_size=6)
INTERFACES = st.lists(INTERFACE, max_size=4)
IDS = st.lists(ID | ID.map(str), max_size=4)
ALL_OR_PORTS = st.just("all") | port_lists()

KEYS: Mapping[str, st.SearchStrategy[Any]] = {
    "ipv6": st.booleans(),
    "inbound_ports": ALL_OR_PORTS,
    "inbound_exclude_ports": port_lists(),
    "inbound_exclude_cidrs": NETWORKS,
    "inbound_exclude_interfaces": INTERFACES,
    "outbound_ports": ALL_OR_PORTS,
    "outbound_exclude_ports": port_lists(),
    "outbound_cidrs": st.just("all") | NETWORKS,
    "outbound_exclude_cidrs": NETWORKS,
    "outbound_exclude_interfaces": INTERFACES,
    "outbound_uids": IDS,
    "outbound_uid_ports": st.dictionaries(ID.map(str), ALL_OR_PORTS, max_size=3),
    "outbound_exclude_uids": IDS,
    "outbound_exclude_gids": IDS,
    "exempt_owner": st.booleans(),
    "only_open_ports": st.booleans(),
    "gateway_cidrs": NETWORKS,
    "route_table": st.integers(1, 252) | st.integers(256, 2**32 - 1),
    "rule_priority": st.integers(1, 32765),
}
MARKS = ("mark", "local_mark", "capture_mark", "client_mark")
CAPTURES = {
    "outbound": st.sampled_from(["", "redirect", "tproxy"]),
    "inbound": st.sampled_from(["", "redirect", "tproxy", "spoof"]),
    "gateway": st.sampled_from(["", "", "tproxy", "spoof"]),
}


@st.composite
def configurations(draw: st.DrawFn, *, untracked: bool = False) -> dict[str, Any]:
    """Tables of a file that both back ends can have rules for; `untracked`: with notrack."""
    captures = {direction: capture for direction, of in CAPTURES.items() if (capture := draw(of))}
    captures = captures or {"outbound": "redirect"}
    if untracked:
        captures = dict.fromkeys({**captures, draw(st.sampled_from(["inbound", "gateway"])): ""}, "tproxy")
    rules = draw(st.fixed_dictionaries({}, optional=dict(KEYS)))
    marks = draw(st.lists(st.integers(1, 0xFFF), min_size=len(MARKS), max_size=len(MARKS), unique=True))
    rules |= dict(zip(MARKS, marks, strict=True))
    if {"inbound", "gateway"} & captures.keys() and set(captures.values()) == {"tproxy"}:
        rules["notrack"] = untracked or draw(st.booleans())
    rules["on_failure"] = draw(st.sampled_from(["auto", "drop"]))
    if "gateway" in captures:
        rules["gateway_interfaces"] = draw(st.lists(INTERFACE, min_size=1, max_size=4))
    names = draw(st.lists(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True), min_size=3, max_size=3, unique=True))
    listeners = []
    for name, (direction, capture) in zip(names, captures.items(), strict=False):
        spoofs = {"capture": "tproxy", "preserve_client": True} if capture == "spoof" else {"capture": capture}
        listeners.append({**LISTENERS[direction], **spoofs, "name": name})
    return {"rules": rules, "listener": listeners}
