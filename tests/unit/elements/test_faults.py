"""Faults on purpose: when bytes come, how many, and which flows are spared."""

from collections.abc import Mapping
from typing import Any

import pytest

from relaycore.element import OptionError
from relaycore.elements.faults import Delay, Fault, ResetAfter, Throttle
from relaycore.testing import Drive

FIGURES: Mapping[type[Fault], Mapping[str, Any]] = {Delay: {"delay": "1s"}, Throttle: {"rate": "1B"}, ResetAfter: {"bytes": 4}}


@pytest.mark.parametrize(("direction", "delays"), [("both", (0.25, 0.25)), ("requests", (0.25, 0)), ("responses", (0, 0.25))])
def test_bytes_are_late_in_their_direction(direction: str, delays: tuple[float, float]) -> None:
    """A test of slow answers would measure slow questions."""
    drive = Drive(Delay, options={"delay": "250ms", "direction": direction})
    assert (drive.request(b"question"), drive.delay) == (b"question", delays[0])
    assert (drive.response(b"answer"), drive.delay) == (b"answer", delays[1])


def test_a_rate_holds_over_pieces_and_pauses() -> None:
    """Pieces would overtake the rate, or a pause would be punished."""
    drive = Drive(Throttle, options={"rate": "100B"})
    now = 50.0
    drive.shared[0].clock = lambda: now
    assert (drive.request(b"x" * 50), drive.delay) == (b"x" * 50, 0.5)
    assert (drive.request(b"x" * 50), drive.delay) == (b"x" * 50, 1.0)
    assert (drive.response(b"x" * 10), drive.delay) == (b"x" * 10, pytest.approx(0.1))
    now = 50.75
    assert (drive.request(b"x" * 50), drive.delay) == (b"x" * 50, 0.75)
    now = 90.0
    assert (drive.request(b"x" * 50), drive.delay) == (b"x" * 50, 0.5)


@pytest.mark.parametrize(
    ("pieces", "delivered"),
    [([b"12345"], [b"12345"]), ([b"123456"], [b"12345"]), ([b"123", b"4", b"5678"], [b"123", b"4", b"5"])],
)
def test_exactly_so_many_bytes_before_the_reset(pieces: list[bytes], delivered: list[bytes]) -> None:
    """A truncation at a known byte would come before or behind it."""
    drive = Drive(ResetAfter, options={"bytes": 5, "direction": "responses"})
    assert drive.request(b"more than five") == b"more than five"
    assert [drive.response(piece) for piece in pieces] == delivered
    assert (drive.outcome, drive.decided_by) == ("rejected", "ResetAfter")


def test_no_byte_at_all_before_the_reset() -> None:
    """Zero would be answered with nothing, which is no answer, or would mean no limit."""
    drive = Drive(ResetAfter, options={"bytes": 0})
    assert (drive.request(b"hello"), drive.outcome, drive.errors) == (b"", "rejected", [])


def test_both_directions_count_together() -> None:
    """A flow would live twice as long as it should."""
    drive = Drive(ResetAfter, options={"bytes": 6})
    assert drive.request(b"1234") == b"1234"
    assert (drive.response(b"1234"), drive.outcome) == (b"12", "rejected")


@pytest.mark.parametrize("kind", FIGURES)
def test_a_share_of_the_flows_is_drawn_and_again_the_same(kind: type[Fault]) -> None:
    """A failure that a draw has found could not be seen again, or flows that are spared would pay for Python."""

    def released(seed: int) -> list[bool]:
        first = Drive(kind, options={**FIGURES[kind], "share": 25, "seed": seed})
        return [first.released, *(Drive(kind, shared=first.shared).released for _ in range(399))]

    assert released(1) == released(1)
    assert released(1) != released(2)
    assert 60 <= released(1).count(False) <= 140


@pytest.mark.parametrize("kind", FIGURES)
def test_without_a_share_every_flow_is_drawn(kind: type[Fault]) -> None:
    """A test that relies on the fault would pass by luck."""
    first = Drive(kind, options=FIGURES[kind])
    assert not any(Drive(kind, shared=first.shared).released for _ in range(100))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Delay, {}),
        (Delay, {"delay": 1}),
        (Throttle, {"rate": "0B"}),
        (ResetAfter, {"bytes": -1}),
        (ResetAfter, {"bytes": 1, "share": 0}),
        (ResetAfter, {"bytes": 1, "direction": "up"}),
    ],
)
def test_options_that_do_not_fit(kind: type[Fault], options: Mapping[str, Any]) -> None:
    """A fault that cannot happen would be taken for an application that bears it."""
    with pytest.raises(OptionError):
        Drive(kind, options=options)
