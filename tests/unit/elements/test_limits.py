"""Limits per client: who is refused, who is not, and what is remembered of them."""

import pytest

from relaycore.elements import limits
from relaycore.elements.limits import Connections, Rate
from relaycore.testing import Drive


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def outcome(first: Drive, kind: type, client: str) -> str:
    return Drive(kind, shared=first.shared, client=(client, 1)).outcome


def test_a_client_has_only_so_many_connections() -> None:
    """One client could take all connections that an origin has."""
    first = Drive(Connections, options={"most": 2})
    assert outcome(first, Connections, "192.0.2.1") == "on"
    assert outcome(first, Connections, "192.0.2.1") == "rejected"
    assert outcome(first, Connections, "192.0.2.2") == "on"


def test_a_connection_that_ends_gives_its_place_back_once() -> None:
    """A client would be refused for ever, or one that is refused would free the place of another flow."""
    first = Drive(Connections, options={"most": 1})
    refused = Drive(Connections, shared=first.shared)
    refused.close("rejected")
    assert outcome(first, Connections, "192.0.2.1") == "rejected"
    first.close()
    first.close()
    assert first.shared[0].open == {}
    assert outcome(first, Connections, "192.0.2.1") == "on"
    assert not first.errors


@pytest.mark.parametrize(
    ("options", "one", "other", "same"),
    [
        ({}, "192.0.2.1", "192.0.2.2", False),
        ({"prefix4": 24}, "192.0.2.1", "192.0.2.255", True),
        ({"prefix4": 24}, "192.0.2.1", "192.0.3.1", False),
        ({}, "2001:db8::1", "2001:db8::ffff:1", True),
        ({}, "2001:db8::1", "2001:db8:0:1::1", False),
        ({"prefix6": 128}, "fe80::1%2", "fe80::2%2", False),
        ({"prefix4": 1, "prefix6": 1}, "0.0.0.1", "::1", False),
    ],
)
@pytest.mark.parametrize("kind", [Connections, Rate])
def test_a_client_is_its_network(kind: type, options: dict[str, int], one: str, other: str, same: bool) -> None:
    """A host with a /64 would have 2^64 times its share, or neighbours would share one."""
    figures = {"most": 1} if kind is Connections else {"per_second": 1, "burst": 1}
    first = Drive(kind, options={**figures, **options}, client=(one, 1))
    if kind is Rate:
        first.shared[0].clock = lambda: 0.0
        assert first.shared[0].known
        first.shared[0].known.update(dict.fromkeys(first.shared[0].known, (0.0, 0.0)))
    assert outcome(first, kind, other) == ("rejected" if same else "on")


def test_clients_that_are_counted_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory would grow with the addresses that somebody invents."""
    monkeypatch.setattr(limits, "MOST_CLIENTS", 2)
    first = Drive(Connections, options={"most": 2})
    assert [outcome(first, Connections, f"192.0.2.{n}") for n in (2, 3, 1)] == ["on", "rejected", "on"]


def test_tokens_come_back_with_time() -> None:
    """A burst would be allowed again and again, or a client would never recover."""
    clock = Clock()
    shared = Rate.configure(limits.Options({"per_second": 2, "burst": 3}))
    shared.clock = clock

    def tried() -> Drive:
        return Drive(Rate, shared=[shared])

    assert [tried().outcome for _ in range(4)] == ["on", "on", "on", "rejected"]
    clock.now += 0.25
    assert tried().outcome == "rejected"
    clock.now += 0.25  # what came back before the refusal still counts
    assert [tried().outcome for _ in range(2)] == ["on", "rejected"]
    clock.now += 3600
    assert [tried().outcome for _ in range(4)] == ["on", "on", "on", "rejected"]


def test_a_flow_that_is_granted_is_released() -> None:
    """Every byte of it would go through Python for nothing."""
    assert Drive(Rate, options={"per_second": 1, "burst": 1}).released


def test_idle_clients_are_forgotten() -> None:
    """Memory would grow with every client there ever was."""
    clock = Clock()
    shared = Rate.configure(limits.Options({"per_second": 1, "burst": 2}))
    shared.clock = clock
    for number in range(limits.EXPIRED_AT_ONCE):
        assert shared.take((4, number))
    clock.now += 1.5
    shared.take((4, 0))
    assert len(shared.known) == limits.EXPIRED_AT_ONCE  # none is full yet
    clock.now += 0.5
    shared.take((4, 99))
    assert set(shared.known) == {(4, 0), (4, 99)}


def test_clients_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory would grow with the addresses that somebody invents within a second."""
    monkeypatch.setattr(limits, "MOST_CLIENTS", 5)
    shared = Rate.configure(limits.Options({"per_second": 1, "burst": 1_000_000}))
    for number in range(100):
        shared.take((4, number))
        assert len(shared.known) <= 5
    assert (4, 99) in shared.known
