"""What a running relay knows of its rules: what it saw at its start, and what the kernel has told since. Pure.

It may not read rules any more, but it is told of each one that comes or goes, and what we apply is told whole, with its record.

Owns: the words ok, changed, missing and unknown for what is in nf_tables. Never here: a socket; ip rules and routes (observe).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sidecar.rules.events import DEL_RULE, DEL_TABLE, DONE, NEW_RULE, Event
from sidecar.rules.tables import Table

OK: Final = "ok"
CHANGED: Final = "changed"
MISSING: Final = "missing"
UNKNOWN: Final = "unknown"

Place = tuple[str, int]  # of a rule: chain and handle
FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}


class Verdict(NamedTuple):
    """How the rules are, who made them so, and what that means."""

    state: str
    by: str = ""
    detail: str = ""


class Expected(NamedTuple):
    """What the configuration comes to with one kind of back end: the plan's digest, and the tables that then hold a record."""

    digest: str
    tables: frozenset[Table]


class Held:
    """What a table holds of ours."""

    def __init__(self, digest: str = "", places: Iterable[Place] = ()) -> None:
        self.digest = digest
        self.rules = set(places)
        # The rules as they were applied; None: it is not known whether they still are.
        self.whole: frozenset[Place] | None = frozenset(self.rules)

    def intact(self) -> bool:
        """Whether the rules are those that were applied."""
        return self.whole is not None and self.rules == self.whole


class View:
    """Fed with events; a transaction is judged as a whole, at its end."""

    def __init__(self, held: Mapping[Table, Held], expected: Sequence[Expected]) -> None:
        self._held = dict(held)
        self._expected = expected
        self._pending: list[Event] = []
        self._by = ""
        self._lost = False  # messages, since the last one that told something of ours

    def expect(self, expected: Sequence[Expected]) -> None:
        """Another configuration was read."""
        self._expected = expected

    def feed(self, events: Iterable[Event]) -> None:
        """What the kernel told."""
        for event in events:
            if event.kind != DONE:
                self._pending.append(event)
            elif self._pending:
                self._by = event.by
                self._take(self._pending)
                self._pending = []

    def lose(self) -> None:
        """Messages were lost: only what is applied from now on is known."""
        self._pending = []
        self._by = ""
        self._lost = True
        for held in self._held.values():
            held.whole = None

    def verdict(self) -> Verdict:
        """How the rules are now."""
        unclear = [table for table, held in self._held.items() if held.whole is None]
        changed = [table for table, held in self._held.items() if held.whole is not None and not held.intact()]
        if changed:
            return Verdict(CHANGED, self._by, f"{_written(changed)}: other rules than were applied")
        if unclear or (self._lost and not self._held):
            return Verdict(UNKNOWN, self._by, "the kernel told more than could be read")
        if not self._held:
            return Verdict(MISSING, self._by, "no rules of ours are there")
        return self._compared()

    def _compared(self) -> Verdict:
        """What is whole may still be something else than what is wanted."""
        found = {held.digest for held in self._held.values()}
        if not self._expected:
            return Verdict(UNKNOWN, self._by, "there are rules, and this configuration has no plan to compare them with")
        if any(found == {expected.digest} and self._held.keys() == expected.tables for expected in self._expected):
            return Verdict(OK, self._by)
        wanted = " or ".join(sorted({expected.digest for expected in self._expected}))
        if found <= {expected.digest for expected in self._expected}:
            return Verdict(CHANGED, self._by, f"plan {wanted}, but only in {_written(self._held)}")
        told = ", ".join(sorted(digest or "without a record" for digest in found))
        return Verdict(CHANGED, self._by, f"rules of another configuration: plan {told}, wanted {wanted}")

    def _take(self, events: Sequence[Event]) -> None:
        """One transaction."""
        self._lost = False
        for table in dict.fromkeys(event.table for event in events):
            held = self._held.setdefault(table, Held())
            _change(held, [event for event in events if event.table == table])
            if not held.rules:
                del self._held[table]


def _change(held: Held, events: Sequence[Event]) -> None:
    """What a transaction made of one table. What we apply is written whole, with its record; all else only changes it."""
    spoilt = False
    digest = ""
    for event in events:
        place = (event.chain, event.handle)
        if event.kind == DEL_TABLE:
            held.rules.clear()
        elif event.kind == NEW_RULE:
            held.rules.add(place)
            digest = event.digest or digest
        elif event.kind == DEL_RULE and place in held.rules:
            held.rules.remove(place)
        else:
            spoilt = True  # a jump that was there before us; a chain, a set, or what the whole table does
    if digest:
        held.digest, held.whole = digest, frozenset(held.rules)
    elif spoilt and held.whole is not None:
        held.whole = frozenset()


def _written(tables: Iterable[Table]) -> str:
    return ", ".join(sorted(f"{FAMILIES.get(family, family)} {name}" for family, name in tables))
