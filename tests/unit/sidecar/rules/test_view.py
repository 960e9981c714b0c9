"""sidecar.rules.view: what a transaction means for the rules."""

import pytest

from sidecar.rules.events import DEL_RULE, DEL_TABLE, DONE, NEW_RULE, NEW_TABLE, OTHER, OURS, Event
from sidecar.rules.tables import Table
from sidecar.rules.view import Expected, Held, View

NAT, NAT6 = Table(2, "nat"), Table(10, "nat")
PLAN, OLD = "0123456789ab", "ba9876543210"
EXPECTED = [Expected(PLAN, frozenset([OURS])), Expected(PLAN, frozenset([NAT, NAT6]))]


def rule(kind: str, handle: int, table: Table = OURS, chain: str = "nat_output", digest: str = "") -> Event:
    return Event(kind, table, chain, handle, digest)


def applied(first: int, digest: str = PLAN, table: Table = OURS) -> list[Event]:
    """The record and two rules, with handles from `first` on."""
    return [
        rule(NEW_RULE, first, table, "record", digest),
        rule(NEW_RULE, first + 1, table),
        rule(NEW_RULE, first + 2, table),
    ]


def removed(first: int, table: Table = OURS) -> list[Event]:
    return [event._replace(kind=DEL_RULE) for event in applied(first, table=table)]


def done(by: str = "nft (pid 7)") -> Event:
    return Event(DONE, by=by)


@pytest.fixture
def view() -> View:
    """Rules are there, as planned."""
    return View({OURS: Held(PLAN, [("record", 1), ("nat_output", 2), ("nat_output", 3)])}, EXPECTED)


@pytest.fixture
def shared() -> View:
    """The same under iptables; the jumps were there before the look."""
    places = [("record", 1), ("nat_output", 2), ("nat_output", 3)]
    return View({NAT: Held(PLAN, places), NAT6: Held(PLAN, places)}, EXPECTED)


def state(view: View, *events: Event) -> str:
    """After these, in one transaction."""
    view.feed([*events, done()])
    return view.verdict().state


def test_nothing_is_judged_before_the_transaction_ends(view: View) -> None:
    """Every apply would be told as a removal, for a moment."""
    view.feed([*removed(1), Event(DEL_TABLE)])
    assert view.verdict().state == "ok"
    assert state(view) == "missing"


def test_the_author_is_the_one_who_touched_ours(view: View) -> None:
    """The next program that changes anything at all would be blamed."""
    assert state(view, *removed(1), Event(DEL_TABLE)) == "missing"
    view.feed([done("iptables (pid 8)")])
    assert view.verdict().by == "nft (pid 7)"


def test_rules_applied_again_are_as_good_as_before(view: View) -> None:
    """Each repeated `rules apply` would raise an alarm."""
    again = [*removed(1), Event(DEL_TABLE), Event(NEW_TABLE), Event(OTHER, chain="record"), *applied(1)]
    assert state(view, *again) == "ok"
    assert state(view, rule(DEL_RULE, 3)) == "changed", "handles begin anew with a new table"


def test_rules_of_another_configuration_are_not_ok(view: View) -> None:
    """The relay would seem to be captured for, on ports where it does not listen."""
    assert state(view, Event(DEL_TABLE), Event(NEW_TABLE), *applied(1, OLD)) == "changed"
    verdict = view.verdict()
    assert PLAN in verdict.detail
    assert OLD in verdict.detail


@pytest.mark.parametrize(
    "event",
    [
        rule(DEL_RULE, 3),
        rule(DEL_RULE, 1, chain="record", digest=PLAN),
        rule(NEW_RULE, 9),
        Event(OTHER, chain="nat_output"),
        Event(OTHER),
        Event(NEW_TABLE),
    ],
    ids=["a rule less", "no record", "a rule more", "a chain", "a set", "dormant"],
)
def test_any_touch_is_a_change_until_they_are_applied_again(view: View, event: Event) -> None:
    """Traffic would pass the relay by, and it would say ok."""
    assert state(view, event) == "changed"
    assert view.verdict().by == "nft (pid 7)"
    assert state(view, Event(DEL_TABLE), Event(NEW_TABLE), *applied(1)) == "ok"


def test_what_is_undone_is_no_change_any_more(view: View) -> None:
    """A rule that somebody adds for a minute, to count packets, would keep the alarm up for ever."""
    assert state(view, rule(NEW_RULE, 9)) == "changed"
    assert state(view, rule(DEL_RULE, 9)) == "ok"
    assert state(view, rule(DEL_RULE, 3)) == "changed"
    assert state(view, rule(NEW_RULE, 10)) == "changed", "the same rule in another place is not the same"


def test_rules_that_come_after_the_start_are_seen() -> None:
    """On a host where the relay starts first, it would say `missing` for ever."""
    view = View({}, EXPECTED)
    assert view.verdict().state == "missing"
    assert state(view, Event(NEW_TABLE), Event(DEL_TABLE), Event(NEW_TABLE), *applied(1)) == "ok"


def test_iptables_takes_a_transaction_for_each_family(shared: View) -> None:
    """Half of an apply would pass for the whole."""
    view = View({}, EXPECTED)
    assert state(view, *applied(1, table=NAT)) == "changed"
    assert "ip nat" in view.verdict().detail
    assert state(view, *applied(1, table=NAT6)) == "ok"
    assert state(shared, *removed(1, NAT), *applied(11, table=NAT)) == "ok"


def test_a_jump_that_was_there_before_the_look_is_missed_when_it_goes(shared: View) -> None:
    """Without the jump nothing is captured, however many rules the chains hold."""
    assert state(shared, rule(DEL_RULE, 77, NAT, "OUTPUT")) == "changed"
    assert state(shared, *removed(1, NAT), *applied(11, table=NAT)) == "ok"


def test_a_flush_of_one_family_is_a_change_and_of_both_a_removal(shared: View) -> None:
    """IPv4 alone could go uncaptured unnoticed."""
    assert state(shared, *removed(1, NAT)) == "changed"
    assert state(shared, *removed(1, NAT6), rule(DEL_RULE, 78, NAT6, "OUTPUT")) == "missing"


def test_rules_of_both_back_ends_at_once_are_not_ok(view: View) -> None:
    """Connections would be captured by two sets of rules, of which one is stale."""
    assert state(view, *applied(1, table=NAT)) == "changed"


def test_what_was_lost_is_not_known(view: View) -> None:
    """After a flood of messages the relay would go on saying ok, whatever had become of the rules."""
    view.feed([rule(DEL_RULE, 1)])
    view.lose()
    assert view.verdict().state == "unknown"
    assert state(view) == "unknown"
    assert state(view, Event(DEL_TABLE), Event(NEW_TABLE), *applied(1)) == "ok"


def test_half_a_transaction_before_a_loss_proves_nothing(view: View) -> None:
    """Rules would count as applied of which the end, or the removal, was lost."""
    view.feed([Event(DEL_TABLE), Event(NEW_TABLE), *applied(1)])
    view.lose()
    assert state(view) == "unknown"


def test_a_removal_is_seen_after_a_loss_too(view: View) -> None:
    """The worst case would be the one that is never told."""
    view.lose()
    assert state(view, Event(DEL_TABLE)) == "missing"


def test_without_rules_a_loss_is_not_known_either() -> None:
    """`missing` would be said of rules that may have been applied meanwhile."""
    view = View({}, EXPECTED)
    view.lose()
    assert view.verdict().state == "unknown"


def test_without_a_plan_changes_are_told_all_the_same(view: View) -> None:
    """Who writes rules of their own would not learn that they are gone."""
    view.expect([])
    assert view.verdict().state == "unknown"
    assert state(view, rule(NEW_RULE, 9)) == "changed"
    assert state(view, Event(DEL_TABLE)) == "missing"


def test_another_configuration_is_another_expectation(view: View) -> None:
    """After a reload the relay would call the rules of the old file right, and those of the new one wrong."""
    view.expect([Expected(OLD, frozenset([OURS]))])
    assert view.verdict().state == "changed"
    assert state(view, Event(DEL_TABLE), Event(NEW_TABLE), *applied(1, OLD)) == "ok"
