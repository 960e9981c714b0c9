"""What must hold between keys: names and ports that clash, combinations that the kernel cannot do.

Owns: these rules and their messages; each names a combination that works.
Never here: the range of a single key (schema); anything that asks the machine.
"""

from collections.abc import Mapping, Set
from typing import NamedTuple, Protocol

from sidecar.config.network_kinds import family_of
from sidecar.config.schema import Admin, Element, Listener, Relay, Rules


class Tell(Protocol):
    """Where a problem or a warning goes: the key, what was expected, what was found, the next step."""

    def __call__(self, key: str, expected: str, found: str, next_step: str = "") -> None: ...


class Draft(NamedTuple):
    """A configuration whose keys were each taken; those in `unsound` have no value to look at."""

    relay: Relay
    listeners: Mapping[str, Listener]  # by dotted name, "listener[0]"
    elements: Mapping[str, Element]  # likewise
    rules: Rules
    admin: Admin
    interface: str
    unsound: Set[str]


class Claim(NamedTuple):
    """A key that wants to listen on a TCP port."""

    key: str
    address: str  # "": both wildcards
    port: int


def check_together(draft: Draft, refuse: Tell, warn: Tell) -> None:
    """Tell everything that does not go together."""
    listeners = {path: listener for path, listener in draft.listeners.items() if path not in draft.unsound}
    elements = {path: element for path, element in draft.elements.items() if path not in draft.unsound}
    _check_names(listeners, refuse)
    _check_names(elements, refuse)
    if len(listeners) == len(draft.listeners):
        _check_elements(elements, listeners, refuse)
    for path, listener in listeners.items():
        _check_listener(path, listener, draft, refuse)
    _check_ports(listeners, draft, refuse)
    _check_marks(draft, refuse)
    _check_captures(listeners, draft, warn)
    if draft.relay.target and listeners and all(listener.capture != "none" for listener in listeners.values()):
        warn("relay.target", 'a listener with capture = "none" that uses it', "captured listeners only", "it has no effect")
    if draft.interface and listeners and all(listener.direction == "outbound" for listener in listeners.values()):
        refuse("--interface", "an inbound or gateway listener to bind", "outbound ones only", "their connections arrive on lo")


def _check_names(named: Mapping[str, Listener] | Mapping[str, Element], refuse: Tell) -> None:
    first: dict[str, str] = {}
    for path, one in named.items():
        holder = first.setdefault(one.name, path)
        if holder != path:
            refuse(f"{path}.name", "a name of its own", f'"{one.name}", as {holder} has')


def _check_elements(elements: Mapping[str, Element], listeners: Mapping[str, Listener], refuse: Tell) -> None:
    names = [listener.name for listener in listeners.values()]
    for path, element in elements.items():
        for index, name in enumerate(element.listeners):
            if name not in names:
                refuse(f"{path}.listeners[{index}]", f"one of the listeners {', '.join(names)}", f'"{name}"')


def _check_listener(path: str, listener: Listener, draft: Draft, refuse: Tell) -> None:
    if listener.protocol == "udp":
        refuse(f"{path}.protocol", '"tcp"', '"udp"', "UDP is not there yet")
    if listener.port == 0 and listener.capture != "none":
        refuse(f"{path}.port", "a port from 1 to 65535", "0", 'a rule must know the port; 0 works with capture = "none"')
    if listener.capture == "none" and draft.relay.target is None and "relay.target" not in draft.unsound:
        refuse(f"{path}.capture", '"redirect" or "tproxy"', '"none" without a target', "set relay.target or TARGET_ADDR")
    if listener.preserve_client and (listener.capture != "tproxy" or listener.direction == "outbound"):
        found = f'true with capture = "{listener.capture}", direction = "{listener.direction}"'
        works = 'it works with capture = "tproxy" and direction = "inbound" or "gateway"'
        refuse(f"{path}.preserve_client", "false", found, works)


def _check_ports(listeners: Mapping[str, Listener], draft: Draft, refuse: Tell) -> None:
    claims = [Claim(f"{path}.port", listener.address, listener.port) for path, listener in listeners.items()]
    for name in ("metrics", "health"):
        endpoint = None if f"admin.{name}" in draft.unsound else getattr(draft.admin, name)
        if endpoint:
            claims.append(Claim(f"admin.{name}", endpoint.host, endpoint.port))
    for index, claim in enumerate(claims):
        for earlier in claims[:index]:
            if claim.port and claim.port == earlier.port and _overlap(claim.address, earlier.address):
                refuse(claim.key, "a port of its own", f"{claim.port}, as {earlier.key} has")
                break


def _check_marks(draft: Draft, refuse: Tell) -> None:
    """By their marks the rules tell packets from each other."""
    first: dict[int, str] = {}
    for name in sorted(("mark", "local_mark", "capture_mark", "client_mark"), key=lambda name: name in draft.rules.given):
        mark = getattr(draft.rules, name)
        if mark and f"rules.{name}" not in draft.unsound:
            holder = first.setdefault(mark, name)
            if holder != name:
                refuse(f"rules.{name}", "a mark of its own", f"{mark:#x}, as rules.{holder} has")


def _check_captures(listeners: Mapping[str, Listener], draft: Draft, warn: Tell) -> None:
    """What was written and has no effect."""
    directions = {listener.direction for listener in listeners.values() if listener.capture != "none"}
    for direction in ("inbound", "outbound"):
        if direction in directions and getattr(draft.rules, f"{direction}_ports") == () and not draft.rules.outbound_uid_ports:
            warn(f"rules.{direction}_ports", "ports to capture", "none", f"the rules capture nothing {direction}")
    if draft.rules.gateway_interfaces and listeners and "gateway" not in directions:
        warn("rules.gateway_interfaces", 'a [[listener]] with direction = "gateway"', "none", "they have no effect")


def _overlap(one: str, other: str) -> bool:
    """Whether two listening addresses share a connection: "::" is dual-stack, "" is both wildcards."""
    if one == other or one in ("", "::") or other in ("", "::"):
        return True
    return family_of(one) == family_of(other) and bool({"0.0.0.0"} & {one, other})
