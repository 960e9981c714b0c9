"""Apply and remove among rules of others: nothing but ours comes, nothing but ours goes, whatever was there."""

from itertools import product

import pytest

from tests.support import foreign
from tests.support.foreign import FOREIGN, of_others, snapshot
from tests.support.rule_commands import BACKENDS, CAPTURES, Pod, backends, every_capture
from tests.support.ways import UNTRACKED

SURROUNDINGS = {"empty": foreign.none, **FOREIGN}

surrounded = pytest.mark.parametrize("around", SURROUNDINGS)


@every_capture
@backends
@surrounded
def test_remove_leaves_everything_as_it_was(pod: Pod, around: str, backend: str, capture: str) -> None:
    """A host would lose its firewall, a node its services, a container its DNS, or keep our rules for ever."""
    SURROUNDINGS[around](pod.namespace)
    before = snapshot(pod.namespace)
    pod.configure(capture, backend)
    assert pod.state() == "missing"
    assert snapshot(pod.namespace) == before, "looking has changed something"
    pod.run("apply")
    after = snapshot(pod.namespace)
    assert of_others(after) == of_others(before)
    assert after != before
    assert pod.state() == "applied"
    pod.run("apply")
    assert snapshot(pod.namespace) == after, "applied twice"
    pod.run("remove")
    assert snapshot(pod.namespace) == before
    assert pod.run("remove").stdout == "no rules of ours\n"
    assert snapshot(pod.namespace) == before


CHANGES = [
    (before, after)
    for before, after in product(product(BACKENDS, CAPTURES), repeat=2)
    if before != after and before[1] == "tproxy"
]


@pytest.mark.parametrize(("old", "new"), CHANGES, ids="-".join)
def test_another_configuration_takes_the_place_of_the_first(pod: Pod, old: tuple[str, str], new: tuple[str, str]) -> None:
    """Rules of two back ends or captures at once: connections captured twice, and some of them left for ever."""
    foreign.by_all(pod.namespace)
    before = snapshot(pod.namespace)
    pod.configure(old[1], old[0], inbound_exclude_ports=[2222])
    pod.run("apply")
    pod.configure(new[1], new[0])
    assert pod.state() == "drifted"
    assert pod.run("plan", "--exit-code", status=3).stdout
    pod.run("apply")
    after = snapshot(pod.namespace)
    assert of_others(after) == of_others(before)
    assert "2222" not in str(after)
    assert pod.state() == "applied"
    pod.run("remove")
    assert snapshot(pod.namespace) == before
    pod.run("apply")
    assert snapshot(pod.namespace) == after, "what was there earlier makes a difference"


@pytest.mark.parametrize(("one", "other"), list(product(BACKENDS, repeat=2)))
def test_notrack_comes_and_goes(pod: Pod, one: str, other: str) -> None:
    """A table more or less than before: what is left of the longer plan would leave half of every connection untracked."""
    foreign.by_all(pod.namespace)
    before = snapshot(pod.namespace)
    for capture, backend in ((UNTRACKED, one), ("tproxy", other), (UNTRACKED, one)):
        pod.configure(capture, backend)
        assert pod.state() != "applied"
        pod.run("apply")
        assert pod.state() == "applied"
        after = snapshot(pod.namespace)
        assert of_others(after) == of_others(before)
        assert ("notrack" in str(after).lower()) == (capture == UNTRACKED)
    pod.run("remove")
    assert snapshot(pod.namespace) == before
