"""Who may connect to what, and when: lists of rules that deny, and lists that allow.

    use = "relaycore.elements.access:Access"

A flow that a rule of `deny` matches is refused; where there are rules of `allow`, so is one that none of them matches. A rule
matches when all that it names does. Nothing is dialled for a flow that is refused, unless the name in a ClientHello decides.

Owns: the rules of one load. Who may touch it: the chain; nobody changes them.
Never here: a ClientHello held back for a flow that no rule with `sni` concerns; a name asked of DNS.
"""

import ipaddress
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from relaycore.element import HOLD, REJECT, RELEASE, Answer, Element, Flow, Options, Verdict
from relaycore.elements.hello import Hello
from relaycore.options import Network

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\*")
UNKNOWN = "?"  # a name that may still come; no name is written so


class Rule(NamedTuple):
    """What is empty matches everything."""

    where: str
    clients: Sequence[Network]
    origins: Sequence[Network]
    ports: Sequence[range]
    names: Sequence[str]
    hours: tuple[int, int] | None  # minutes of the day, from and until; over midnight if from is later
    days: Sequence[int]

    @classmethod
    def of(cls, options: Options, where: str) -> "Rule":
        """As it is written. OptionError."""
        hours = options.pattern("hours", HOURS, 'hours such as "08:00-17:30"', "")
        match = HOURS.fullmatch(hours)
        names = [name.lower() for name in options.texts("sni")]
        for index, name in enumerate(names):
            if not PATTERN.fullmatch(name):
                raise options.misfit(f"sni[{index}]", '"example.org", "*.example.org" or "*"', name)
        days = options.texts("days")
        for index, day in enumerate(days):
            if day not in DAYS:
                raise options.misfit(f"days[{index}]", "one of " + ", ".join(DAYS), day)
        return cls(
            where,
            options.networks("clients"),
            options.networks("origins"),
            options.ports("ports"),
            names,
            (int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])) if match else None,
            [DAYS.index(day) for day in days],
        )

    def matches(self, flow: Flow, name: str | None, at: time.struct_time) -> bool | None:
        """None: the name will tell."""
        if not _among(flow.client[0], self.clients) or not _among(flow.origin[0], self.origins):
            return False
        if self.ports and not any(flow.origin[1] in ports for ports in self.ports):
            return False
        if not self._is_now(at):
            return False
        if not self.names:
            return True
        return None if name == UNKNOWN else name is not None and any(_fits(name, pattern) for pattern in self.names)

    def _is_now(self, at: time.struct_time) -> bool:
        minute = at.tm_hour * 60 + at.tm_min
        day = at.tm_wday
        if self.hours:
            begin, end = self.hours
            if begin < end:
                inside = begin <= minute < end
            else:
                inside = minute >= begin or minute < end
                day = (day - 1) % 7 if minute < end else day  # the night belongs to the day on which it began
            if not inside:
                return False
        return not self.days or day in self.days


class Rules(NamedTuple):
    """Of one load."""

    deny: Sequence[Rule]
    allow: Sequence[Rule]
    shadow: bool
    utc: bool
    now: Callable[[], float] = time.time

    def refusal(self, flow: Flow, name: str | None) -> str | None:
        """The rule that refuses the flow; "" for none; None when the name will tell."""
        at = (time.gmtime if self.utc else time.localtime)(self.now())
        unsure = False
        for rule in self.deny:
            match = rule.matches(flow, name, at)
            if match:
                return rule.where
            unsure |= match is None
        allowed = [rule.matches(flow, name, at) for rule in self.allow]
        if self.allow and True not in allowed:
            if None not in allowed:
                return "allow"
            unsure = True
        return None if unsure else ""


class Access(Element):
    """Refuses, or with `shadow` says that it would."""

    @classmethod
    def configure(cls, options: Options) -> Rules:
        """The rules."""
        deny = [Rule.of(table, f"deny[{index}]") for index, table in enumerate(options.tables("deny"))]
        allow = [Rule.of(table, f"allow[{index}]") for index, table in enumerate(options.tables("allow"))]
        return Rules(deny, allow, options.boolean("shadow", False), options.boolean("utc", False))

    def __init__(self, flow: Flow, shared: Any) -> None:
        super().__init__(flow, shared)
        self._hello = Hello()
        self._seen = 0

    def opened(self) -> Verdict | None:
        """Most is known now."""
        refusal = self.shared.refusal(self.flow, UNKNOWN)
        return None if refusal is None else self._decide(refusal)

    def request(self, data: bytes) -> Answer:
        """Held until the name is known, or cannot come."""
        fresh = data[self._seen :]
        self._seen = len(data)
        return self._named() if self._hello.feed(fresh) else HOLD

    def request_ended(self, held: bytes) -> Answer:
        """No name will come."""
        return self._named()

    def _named(self) -> Verdict:
        return self._decide(self.shared.refusal(self.flow, self._hello.name) or "")

    def _decide(self, refusal: str) -> Verdict:
        if not refusal:
            return RELEASE
        self.flow.label("access", "would deny" if self.shared.shadow else "denied")
        self.flow.label("access_rule", refusal)
        return RELEASE if self.shared.shadow else REJECT


def _among(address: str, networks: Sequence[Network]) -> bool:
    if not networks:
        return True
    number = ipaddress.ip_address(address)
    return any(number in network for network in networks)


def _fits(name: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern
