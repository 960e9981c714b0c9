"""From what is there to what is wanted, whole or not at all. apply, revert and remove are the same move to different ends.

Owns: Situation, all that is ours in this network namespace, and the order in which it changes: the way to lo first, for without
marks it does nothing; then the rules, a transaction for each program; then what is left of before.
Never here: why it changes, who is asked (keeper); a rule, chain, route or table that is not ours.
"""

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sidecar.config import Config
from sidecar.errors import NO_PRIVILEGE, Problem, RelayError, reason
from sidecar.rules import marks as foreign_marks
from sidecar.rules import routes
from sidecar.rules.backends import BACKENDS, Backend, choose
from sidecar.rules.held import EMPTY, Holding, differences
from sidecar.rules.model import Plan
from sidecar.rules.plan import make_plan
from sidecar.rules.programs import ProgramFailed
from sidecar.rules.routes import Way
from sidecar.users import is_mapped


class Situation(NamedTuple):
    """All that is ours in this network namespace, or is to be: by back end, and the ways by which marked packets come to lo."""

    held: Mapping[str, Holding]
    ways: frozenset[Way]
    doubled: frozenset[Way] = frozenset()  # somebody has put another one beside ours


NOTHING = Situation({}, frozenset())


class Wanted(NamedTuple):
    """What a configuration comes to on this machine."""

    backend: Backend
    plan: Plan
    situation: Situation


def wanted(config: Config, *, guarded: bool = False, try_out: bool = True) -> Wanted:
    """Choose the back end and make the plan. RelayError when there can be none, or the kernel would not take it."""
    with refusals_told():
        backend = choose(config.rules.backend)
        made = _made(config, backend, guarded=guarded)
        if not try_out:
            return made
        try:
            backend.try_out(made.situation.held[backend.name])
        except ProgramFailed as error:
            if error.exit_status == NO_PRIVILEGE or (config.rules.backend, backend.name) != ("auto", "nft"):
                raise
            made = _made(config, choose("iptables"), guarded=guarded)
            made.backend.try_out(made.situation.held[made.backend.name])
        return made


def explained(config: Config, error: ProgramFailed) -> RelayError:
    """iptables says "Invalid argument" to a rule about a user that the user namespace does not know."""
    user = config.relay.user.id
    if not config.rules.exempt_owner or is_mapped(user):
        return error
    step = f"user {user} is unknown in this user namespace: rules.exempt_owner = false leaves it to the mark"
    return RelayError(*(problem._replace(next_step=step) for problem in error.problems), exit_status=error.exit_status)


def _made(config: Config, backend: Backend, *, guarded: bool) -> Wanted:
    plan = make_plan(config, backend.kind, guarded=guarded)
    ways = frozenset(way for way in routes.ways_of(plan) if routes.possible(way))
    return Wanted(backend, plan, Situation({backend.name: backend.rendered(plan)}, ways))


def present() -> Situation:
    """What is there now."""
    with refusals_told():
        held = _held()
        there = {name: holding for name, holding in held.items() if holding.places}
        return Situation(there, frozenset(routes.ours()), frozenset(routes.doubled()))


def _held(target: Situation = NOTHING) -> dict[str, Holding]:
    """By back end. Where iptables-legacy has tables that we may not read, nothing of ours is there unless it is the target."""
    held = {}
    for name, backend in BACKENDS.items():
        try:
            held[name] = backend.held()
        except RelayError:
            if name != "iptables-legacy" or name in target.held:
                raise
            held[name] = EMPTY
    return held


def move_to(target: Situation) -> None:
    """Make it so, whatever is there of ours. After a RelayError half-way, move to what was there before."""
    with refusals_told():
        for way in routes.doubled():
            routes.delete(way)
        for way in routes.missing(target.ways):
            routes.add(way)
        now = _held(target)
        for name in [*target.held, *(name for name in now if name not in target.held)]:
            holding = target.held.get(name, EMPTY)
            if holding.places or now[name].digest:
                BACKENDS[name].put(holding)
        for way in routes.stale(target.ways):
            routes.delete(way)


def check_clashes(config: Config, now: Situation, target: Situation) -> None:
    """RelayError when something of others has our names, or their ip rules or routes would take our packets, or ours theirs."""
    rules = config.rules
    names = ["mark", *(["local_mark", "capture_mark"] if target.ways else []), *(["client_mark"] if rules.notrack else [])]
    marks = {name: getattr(rules, name) for name in names if getattr(rules, name)}
    with refusals_told():
        found = [*routes.clashes(target.ways, marks), *foreign_marks.clashes(marks)]
    step = "remove it, or whatever put it there"
    found += [Problem(place, "nothing, or our own", "chains that we did not make", step) for place in foreign(now)]
    if found:
        raise RelayError(*found)


def compare(now: Situation, target: Situation) -> list[str]:
    """What move_to() would change, a line each; nothing when all is as wanted."""
    lines: list[str] = []
    for name in [*target.held, *(name for name in now.held if name not in target.held)]:
        lines += differences(now.held.get(name, EMPTY), target.held.get(name, EMPTY))
    changed = [f"  + {routes.text(way)}" for way in sorted(target.ways - now.ways, key=str)]
    changed += [f"  - {routes.text(way)}" for way in sorted((now.ways - target.ways) | now.doubled, key=str)]
    return [*lines, *(["ip rules and routes: changed", *changed] if changed else [])]


def of_ours(now: Situation) -> Situation:
    """The same, without what foreign() names."""
    return now._replace(held={name: holding for name, holding in now.held.items() if holding.digest})


def foreign(now: Situation) -> list[str]:
    """What has our name, but was not put there by us."""
    return [f"{place}: not ours" for holding in now.held.values() if not holding.digest for place in holding.places]


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """The kernel's refusals as messages."""
    try:
        yield
    except PermissionError as error:
        step = "run it as root, or give the container this capability"
        raise RelayError(
            Problem("netlink", "CAP_NET_ADMIN in this network namespace", reason(error), step), exit_status=NO_PRIVILEGE
        ) from None
    except OSError as error:
        if error.errno == errno.ENETDOWN:
            raise RelayError(Problem("lo", "an interface that is up", reason(error), "ip link set lo up")) from None
        raise RelayError(Problem("netlink", "rules and routes of this network namespace", reason(error))) from None
