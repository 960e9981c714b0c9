"""The ways by which marked packets come to lo: ip rules and a local route, by rtnetlink, without a program.

Owns: those that carry our protocol number, by which the kernel itself remembers whose they are, and the search
for others' that clash.
Never here: a change to a rule or a route without that number.
"""

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sidecar.addresses import ROUTE, RTA_TABLE, RTM_GETROUTE, RTM_NEWROUTE, RTN_LOCAL
from sidecar.errors import Problem
from sidecar.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    attributes,
    dump,
    opened,
    order,
)
from sidecar.rules.model import MARK_MASK, V4, Plan

# linux/rtnetlink.h, linux/fib_rules.h
RTM_DELROUTE, RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 25, 32, 33, 34
RTA_OIF = 4
RT_SCOPE_HOST = 254
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 6, 10, 15, 16, 21
FR_ACT_TO_TBL = 1
FIB_RULE_INVERT = 2
OUR_PROTOCOL = 82  # as `ip rule` and `ip route` show it; /etc/iproute2/rt_protos knows no such number

ABSENT = (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EINVAL)

IPV6_ON_LO = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"

FAMILIES = (socket.AF_INET, socket.AF_INET6)
NUMBER = struct.Struct("=I")
IP = {socket.AF_INET: "ip -4", socket.AF_INET6: "ip -6"}


class PolicyRule(NamedTuple):
    """Packets with this mark are routed by that table."""

    family: int
    priority: int
    mark: int
    mask: int
    table: int


class LocalRoute(NamedTuple):
    """Whatever its address, it is delivered on this machine."""

    family: int
    table: int


Way = PolicyRule | LocalRoute


class Found(NamedTuple):
    """A rule or a route that is there, and the protocol number that tells whose it is."""

    way: Way
    protocol: int
    inverted: bool = False  # a rule for packets without this mark


def ways_of(plan: Plan) -> frozenset[Way]:
    """The ip rules and routes of a plan."""
    if plan.routing is None:
        return frozenset()
    ways: set[Way] = set()
    for number in plan.families:
        family = socket.AF_INET if number == V4 else socket.AF_INET6
        ways.add(LocalRoute(family, plan.routing.table))
        ways |= {PolicyRule(family, plan.routing.priority, mark, MARK_MASK, plan.routing.table) for mark in plan.routing.marks}
    return frozenset(ways)


def ours() -> list[Way]:
    """What of ours is there; the same twice when it is there twice."""
    with opened(NETLINK_ROUTE) as netlink:
        rules = [found.way for found in _rules(netlink) if found.protocol == OUR_PROTOCOL]
        return [*rules, *(found.way for found in _routes(netlink, protocol=OUR_PROTOCOL))]


def doubled() -> list[Way]:
    """Each copy of what of ours is there more than once: one of them looks at more than marks, and we cannot tell which."""
    found = ours()
    return [way for way in found if found.count(way) > 1]


def possible(way: Way) -> bool:
    """Whether lo takes it: where IPv6 is disabled, as in many containers, there are no packets to lead there either."""
    if way.family != socket.AF_INET6:
        return True
    try:
        with open(IPV6_ON_LO, encoding="ascii") as file:
            return file.read().strip() == "0"
    except OSError:  # a kernel without IPv6
        return False


def missing(wanted: Iterable[Way]) -> list[Way]:
    """What of it is not there."""
    return sorted(set(wanted) - set(ours()), key=str)


def stale(wanted: Iterable[Way]) -> list[Way]:
    """What of ours is there and should not be, also for a second time."""
    left = set(wanted)
    extra = []
    for way in ours():
        if way in left:
            left.remove(way)
        else:
            extra.append(way)
    return extra


def add(way: Way) -> None:
    """Put it there, if it is possible(). OSError when the kernel refuses."""
    _order(RTM_NEWRULE if isinstance(way, PolicyRule) else RTM_NEWROUTE, way, NLM_F_CREATE | NLM_F_EXCL)


def delete(way: Way) -> None:
    """Take it away, if it is ours and there."""
    try:
        _order(RTM_DELRULE if isinstance(way, PolicyRule) else RTM_DELROUTE, way, 0)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise


def text(way: Way) -> str:
    """The command of ip(8) that adds it."""
    if isinstance(way, PolicyRule):
        mark = f"fwmark {way.mark:#x}/{way.mask:#x}"
        return f"{IP[_family(way)]} rule add pref {way.priority} {mark} lookup {way.table} protocol {OUR_PROTOCOL}"
    return f"{IP[_family(way)]} route add local default dev lo table {way.table} proto {OUR_PROTOCOL}"


def clashes(wanted: Iterable[Way], marks: Mapping[str, int]) -> list[Problem]:
    """Rules and routes of others that would take our packets, or that our rules would take from them. `marks`: ours, by key."""
    policies = [way for way in wanted if isinstance(way, PolicyRule)]
    table = policies[0].table if policies else 0
    problems = []
    with opened(NETLINK_ROUTE) as netlink:
        rules, routes = _rules(netlink), _routes(netlink, table=table) if table else []
    if any(route.protocol != OUR_PROTOCOL for route in routes):
        step = "choose another rules.route_table"
        problems.append(Problem("rules.route_table", "a table of our own", f"{table}, which holds routes of others", step))
    for found in rules:
        if found.protocol != OUR_PROTOCOL and isinstance(found.way, PolicyRule):
            problems += _clashes_with(found.way, found.inverted, policies, marks)
    return list(dict.fromkeys(problems))


def _clashes_with(
    rule: PolicyRule, inverted: bool, policies: Sequence[PolicyRule], marks: Mapping[str, int]
) -> Iterator[Problem]:
    """What one ip rule of others does to our packets, and ours to theirs."""
    told = f"the ip rule {rule.priority}{' not' if inverted else ''} fwmark {rule.mark:#x}/{rule.mask:#x} lookup {rule.table}"
    if policies and rule.table == policies[0].table:
        step = "choose another rules.route_table"
        yield Problem("rules.route_table", f"{rule.table} to be a table of our own", f"the ip rule {rule.priority}", step)
    if not rule.mask:
        return
    taken = {policy.mark for policy in policies if policy.family == rule.family}
    for key, mark in marks.items():
        matches, everybody = (_matches(rule, inverted, value) for value in (mark, 0))
        # What we send is to be routed as everybody's is; what we capture is to meet our rule first.
        first = any(rule.priority <= policy.priority for policy in policies)
        diverted = matches and first if mark in taken else matches != everybody
        if diverted or rule.mark & MARK_MASK == mark:
            name = "rule_priority" if mark in taken and everybody else key
            free = f"less than {rule.priority}" if name == "rule_priority" else "a mark that nobody else uses"
            yield Problem(f"rules.{name}", free, told, f"choose another rules.{name}")


def _matches(rule: PolicyRule, inverted: bool, mark: int) -> bool:
    return (mark & rule.mask == rule.mark) != inverted


def _rules(netlink: socket.socket) -> list[Found]:
    """Every ip rule."""
    answers = [answer for family in FAMILIES for answer in _listed(netlink, RTM_GETRULE, ROUTE.pack(family, *[0] * 8))]
    return [found for answer in answers if answer.type == RTM_NEWRULE and (found := read_rule(answer))]


def _routes(netlink: socket.socket, *, table: int = 0, protocol: int = 0) -> list[Found]:
    """Routes of one table, or with one protocol number."""
    answers: list[Message] = []
    for family in FAMILIES:
        head = ROUTE.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0)
        answers += _listed(netlink, RTM_GETROUTE, head + (attribute(RTA_TABLE, NUMBER.pack(table)) if table else b""))
    found = [route for answer in answers if answer.type == RTM_NEWROUTE and (route := read_route(answer))]
    # Before Linux 4.20 the kernel lists all.
    return [route for route in found if (route.way.table == table if table else route.protocol == protocol)]


def _listed(netlink: socket.socket, kind: int, body: bytes) -> list[Message]:
    """A kernel without the family, without rules for it, or without the table, lists nothing."""
    try:
        return dump(netlink, kind, body)
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise


def read_rule(answer: Message) -> Found | None:
    """An ip rule, as far as it looks at marks."""
    if len(answer.body) < ROUTE.size:
        return None
    family, _, _, _, table, _, _, _, flags = ROUTE.unpack_from(answer.body)
    parts = attributes(answer.body[ROUTE.size :])
    mark, mask = _number(parts, FRA_FWMARK), _number(parts, FRA_FWMASK)
    protocol = (parts.get(FRA_PROTOCOL) or b"\0")[0]
    rule = PolicyRule(family, _number(parts, FRA_PRIORITY), mark, mask, _number(parts, FRA_TABLE) or table)
    return Found(rule, protocol, bool(flags & FIB_RULE_INVERT))


def read_route(answer: Message) -> Found | None:
    """Any route, as the table that it is in."""
    if len(answer.body) < ROUTE.size:
        return None
    family, _, _, _, table, protocol, _, _, _ = ROUTE.unpack_from(answer.body)
    parts = attributes(answer.body[ROUTE.size :])
    return Found(LocalRoute(family, _number(parts, RTA_TABLE) or table), protocol)


def _number(parts: Mapping[int, bytes], kind: int) -> int:
    value = parts.get(kind, b"")
    return int(NUMBER.unpack(value)[0]) if len(value) == NUMBER.size else 0


def _order(kind: int, way: Way, flags: int) -> None:
    with opened(NETLINK_ROUTE) as netlink:
        order(netlink, kind, _body(way), flags)


def _body(way: Way) -> bytes:
    if isinstance(way, PolicyRule):
        head = ROUTE.pack(way.family, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
        numbers = {FRA_PRIORITY: way.priority, FRA_FWMARK: way.mark, FRA_FWMASK: way.mask, FRA_TABLE: way.table}
        parts = b"".join(attribute(kind, NUMBER.pack(value)) for kind, value in numbers.items())
        return head + parts + attribute(FRA_PROTOCOL, bytes([OUR_PROTOCOL]))
    head = ROUTE.pack(way.family, 0, 0, 0, 0, OUR_PROTOCOL, RT_SCOPE_HOST, RTN_LOCAL, 0)
    lo = socket.if_nametoindex("lo")
    return head + attribute(RTA_TABLE, NUMBER.pack(way.table)) + attribute(RTA_OIF, NUMBER.pack(lo))


def _family(way: Way) -> socket.AddressFamily:
    return socket.AddressFamily(way.family)
