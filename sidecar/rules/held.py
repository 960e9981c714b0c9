"""What the kernel holds of ours, in comparable form, and how two such holdings differ.

Owns: Holding, which both back ends read and render into. Never here: a program, a system call, how a line is spelt.
"""

import difflib
from collections.abc import Mapping
from typing import Final, NamedTuple

SPOILT: Final = "?"


class Line(NamedTuple):
    """One rule as its program spells it, and how many packets it has seen (None: not counted)."""

    text: str
    packets: int | None = None
    bytes: int | None = None


class Holding(NamedTuple):
    """Our lines by place: "inet relay_sidecar chain nat_output", "ip nat RELAY_OUT". Of a place of others, our lines alone."""

    places: Mapping[str, tuple[Line, ...]]
    digest: str = ""  # which plan this is; SPOILT when the record is spoilt, "" when there is none: then it is not ours
    made: Mapping[str, tuple[str, ...]] = {}  # base chains, and "table", that were not there before us; by "ip nat"

    def texts(self) -> dict[str, list[str]]:
        """The lines without their counters."""
        return {place: [line.text for line in lines] for place, lines in self.places.items()}


EMPTY = Holding({})


def differences(present: Holding, wanted: Holding) -> list[str]:
    """What a change would do, a line each: "- " goes, "+ " comes, under the name of its place."""
    lines = []
    before, after = present.texts(), wanted.texts()
    for place in [*after, *(place for place in before if place not in after)]:
        old, new = before.get(place), after.get(place)
        if old == new:
            continue
        lines.append(f"{place}: {'new' if old is None else 'removed' if new is None else 'changed'}")
        told = difflib.ndiff(old or [], new or [])
        lines += [f"  {line}" for line in told if line.startswith(("- ", "+ "))]
    if not lines and present.digest != wanted.digest:
        lines.append("the record of what the rules are: changed")
    return lines
