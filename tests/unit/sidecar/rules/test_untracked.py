"""sidecar.rules.untracked: for any configuration, raw leaves out of conntrack what mangle captures, and nothing else."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sidecar.rules.model import Action, Chain, Match, Rule
from sidecar.rules.plan import make_plan
from tests.support.rules import configured
from tests.unit.sidecar.rules.configurations import configurations

many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
backends = pytest.mark.parametrize("backend", ["nft", "iptables"])
UNTRACK = (Action("notrack"), Action("return"))


def chains(tables: dict[str, Any], backend: str) -> dict[tuple[str, str], Chain]:
    """The chains of a plan, by kind and hook."""
    return {(chain.kind, chain.hook): chain for chain in make_plan(configured(tables), backend).chains}


def captures(rule: Rule) -> bool:
    """Whether a rule of mangle gives a packet to the relay, whatever conntrack knows of it."""
    gives = any(action.kind in ("tproxy", "divert") for action in rule.actions)
    return gives and not any(match.kind.startswith("ct_") for match in rule.matches)


def exempting(chain: Chain) -> list[Rule]:
    """What a chain lets go of before it decides on a first packet."""
    return [
        rule for rule in chain.rules if rule.actions == (Action("return"),) and Match("syn", negated=True) not in rule.matches
    ]


@backends
@many
@given(tables=configurations())
def test_without_the_key_conntrack_sees_everything(backend: str, tables: dict[str, Any]) -> None:
    """A user who asked for nothing would have a table more, and a firewall that no longer knows its connections."""
    assert ("raw" in {kind for kind, _ in chains(tables, backend)}) == bool(tables["rules"].get("notrack"))


@backends
@many
@given(tables=configurations(untracked=True))
def test_raw_selects_what_mangle_selects(backend: str, tables: dict[str, Any]) -> None:
    """A connection would be captured and half of it tracked, or left alone and unknown to the firewall."""
    made = chains(tables, backend)
    raw, mangle = made["raw", "prerouting"], made["mangle", "prerouting"]
    untracked = [rule for rule in raw.rules if rule.actions == UNTRACK]
    assert [rule._replace(actions=()) for rule in untracked] == [
        rule._replace(actions=()) for rule in mangle.rules if captures(rule)
    ]
    assert exempting(raw) == exempting(mangle)
    # What stands before a capture in mangle stands before it in raw.
    for rule in untracked:
        position = [other._replace(actions=()) for other in mangle.rules].index(rule._replace(actions=()))
        before = [other for other in mangle.rules[:position] if other in exempting(mangle)]
        assert [other for other in raw.rules[: raw.rules.index(rule)] if other in exempting(raw)] == before


@backends
@many
@given(tables=configurations(untracked=True))
def test_raw_does_nothing_else(backend: str, tables: dict[str, Any]) -> None:
    """What conntrack knows is not known before it, and nothing of others may be dropped, marked or taken out of it."""
    for (kind, hook), chain in chains(tables, backend).items():
        if kind == "raw":
            assert all(rule.actions in (UNTRACK, (Action("return"),)) for rule in chain.rules)
            assert not any(match.kind.startswith("ct_") for rule in chain.rules for match in rule.matches)
            if hook == "output":
                mark = tables["rules"]["client_mark"]
                assert [rule.matches for rule in chain.rules if rule.actions == UNTRACK] == [(Match("mark", (mark,)),)]
        else:
            assert not any(Action("notrack") in rule.actions for rule in chain.rules)


@backends
@many
@given(tables=configurations(untracked=True))
def test_nothing_is_remembered_of_what_is_not_tracked(backend: str, tables: dict[str, Any]) -> None:
    """`ct mark set` ends the rule at a packet without conntrack: it would not be captured."""
    mangle = chains(tables, backend)["mangle", "prerouting"]
    assert not any(action.kind == "set_ct_mark" for rule in mangle.rules if captures(rule) for action in rule.actions)
