"""One case of the table: a row, a variant, a lane and a way; and the scenario that plays it.

Owns: the register of scenarios, and how a case gets its world.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any

from tests.faults.table import ROWS, Row
from tests.support.traffic import MIB, Stream
from tests.support.world import Settings, Way, World, captured, looped

Scenario = Callable[["Case"], None]

SCENARIOS: dict[str, Scenario] = {}

# Enough that reads fill the relay's buffer time and again: such a half is spliced. And what fits into one read.
_PAYLOAD_BYTES = {"": 5000, "copy": 5000, "splice": 8 * MIB}


@dataclass(frozen=True)
class Case:
    """What a scenario is given."""

    row: Row
    variant: str
    lane: str
    way: Way

    def __str__(self) -> str:
        return "-".join(word for word in (self.row.id, self.variant, self.lane, str(self.way)) if word)

    @property
    def payload(self) -> bytes:
        """What is sent in the course of the scenario: as much as its lane takes."""
        return Stream(5, _PAYLOAD_BYTES[self.lane]).bytes()

    def world(self, settings: Settings | None = None, **process: Any) -> AbstractContextManager[World]:
        """The relay of this case, running."""
        if self.way.capture == "none":
            return looped(self.way.family, settings, **process)
        return captured(self.way, settings, **process)


def scenario(row: str) -> Callable[[Scenario], Scenario]:
    """This function plays every case of the row."""

    def register(function: Scenario) -> Scenario:
        assert row not in SCENARIOS, f"two scenarios for {row}"
        SCENARIOS[row] = function
        return function

    return register


def cases() -> Iterator[Case]:
    """All there are."""
    for row in ROWS:
        for variant, lane, direction in product(row.variants, row.lanes, row.directions):
            for capture, family in product(row.captures, row.families):
                yield Case(row, variant, lane, Way(capture, family, direction))
