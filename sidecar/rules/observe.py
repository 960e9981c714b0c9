"""What becomes of the rules while a relay runs: two sockets that it opens while it may, and what it makes of what they tell.

Owns: those sockets, the one look at the start, and the verdict on rules, ip rules and routes together.
Never here: a program, a change; what a verdict leads to (proxy).
"""

import errno
import socket
from collections.abc import Iterator, Mapping

from sidecar.config import Config
from sidecar.errors import RelayError
from sidecar.netlink import BUFFER_BYTES, parse_messages
from sidecar.rules import iptables, tables
from sidecar.rules.events import OURS, SHARED, Event, digest_of, parse_events
from sidecar.rules.model import PREFIX, Plan
from sidecar.rules.plan import make_plan
from sidecar.rules.routes import (
    OUR_PROTOCOL,
    RTM_DELRULE,
    RTM_NEWRULE,
    Way,
    missing,
    read_route,
    read_rule,
    text,
    ways_of,
)
from sidecar.rules.tables import Rule, Table
from sidecar.rules.view import CHANGED, MISSING, OK, Expected, Held, Verdict, View
from sidecar.rules.watch import watch_routing, watch_rules

NOT_OBSERVABLE = "not observable"
LEGACY_TABLES = ("/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names")
NFPROTO = {4: 2, 6: 10}


class Observation:
    """Opened with CAP_NET_ADMIN, good for the life of the process, whatever it drops. The sockets are its own."""

    def __init__(self, config: Config) -> None:
        """PermissionError without the capability; OSError when nf_tables cannot be read."""
        plans = _plans(config)
        self._ways = frozenset[Way]().union(*(ways_of(plan) for plan in plans.values()))
        self._rules = watch_rules()  # before the look: nothing that changes in between is missed
        self._routing = watch_routing() if self._ways else None
        try:
            self._view = View(_look(), _expected(plans))
            self._gone = missing(self._ways)
        except OSError:
            self._rules.close()
            raise
        self._hidden = _legacy_could_hold_rules()  # as long as nothing is found elsewhere

    def filenos(self) -> list[int]:
        """Readable when hear() has something."""
        return [watcher.fileno() for watcher in (self._rules, self._routing) if watcher]

    def expect(self, config: Config) -> None:
        """Judge by this configuration from now on; its listeners are the same."""
        self._view.expect(_expected(_plans(config)))

    def hear(self) -> None:
        """Take what the kernel has told. OSError when that cannot be had."""
        events: list[Event] | None = []
        for datagram in _told(self._rules):
            if datagram is None:
                events = None  # what was queued is older than what was lost
            elif events is not None:
                events += parse_events(datagram)
        if events is None:
            self._view.lose()
        else:
            self._view.feed(events)
        heard = list(_told(self._routing)) if self._routing else []
        if any(datagram is None or _is_about_ours(datagram) for datagram in heard):
            self._gone = missing(self._ways)

    def verdict(self) -> Verdict:
        """How the rules are, with the ways by which marked packets come to lo."""
        found = self._view.verdict()
        if found.state != MISSING:
            self._hidden = False
        if self._hidden:
            return Verdict(NOT_OBSERVABLE, "", "iptables-legacy could hold them, and tells nobody what it does")
        if found.state == OK and self._gone:
            return Verdict(CHANGED, "", f"missing: {', '.join(map(text, self._gone))}")
        return found


def _told(watcher: socket.socket) -> Iterator[bytes | None]:
    """What has come; None: something was lost."""
    while True:
        try:
            yield watcher.recv(BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None


def _is_about_ours(datagram: bytes) -> bool:
    """A router may change thousands of routes each second."""
    found = [
        read_rule(message) if message.type in (RTM_NEWRULE, RTM_DELRULE) else read_route(message)
        for message in parse_messages(datagram)
    ]
    return any(way is not None and way.protocol == OUR_PROTOCOL for way in found)


def _look() -> dict[Table, Held]:
    """What nf_tables holds of ours now. The record's word is taken for it that the rules are as they were applied."""
    found = {}
    for table in tables.tables():
        if table == OURS:
            rules = tables.rules(*table)
        elif table in SHARED:
            chains = tables.existing(*table, [name for name in iptables.KNOWN_CHAINS if name.startswith(PREFIX)])
            rules = [rule for chain in chains for rule in tables.rules(*table, chain)]
        else:
            continue
        if rules:
            found[table] = _held(rules)
    return found


def _held(rules: list[Rule]) -> Held:
    digests = [digest for rule in rules if (digest := digest_of(rule))]
    return Held(digests[0] if digests else "", ((rule.chain, rule.handle) for rule in rules))


def _plans(config: Config) -> dict[str, Plan]:
    """What this configuration comes to, with each kind of back end that can do it."""
    plans = {}
    for backend in ("nft", "iptables"):
        try:
            plans[backend] = make_plan(config, backend, guarded=True)
        except RelayError:  # it runs all the same: with rules of other hands
            continue
    return plans


def _expected(plans: Mapping[str, Plan]) -> list[Expected]:
    found = []
    for backend, plan in plans.items():
        kinds = {chain.kind for chain in plan.chains}
        shared = frozenset(Table(NFPROTO[family], kind) for family in plan.families for kind in kinds)
        found.append(Expected(plan.digest(), frozenset([OURS]) if backend == "nft" else shared))
    return found


def _legacy_could_hold_rules() -> bool:
    """Whether iptables-legacy has a table for such rules here; what may not be read, it has."""
    for path in LEGACY_TABLES:
        try:
            with open(path, encoding="ascii") as names:
                if set(iptables.TABLES) & set(names.read().split()):
                    return True
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return False
