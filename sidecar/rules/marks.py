"""Marks that others' firewall rules set or look at, and that would be ours: found before anything is changed.

Owns: the reading of foreign rules for marks. It is the one place that reads them, and it gives up when there are too many.
Never here: a foreign rule in a message but for its words; a change.
"""

import re
from collections.abc import Iterator, Mapping

from sidecar.errors import Problem, RelayError
from sidecar.rules.model import MARK_MASK, PREFIX, TABLE
from sidecar.rules.programs import path_of, run

SECONDS = 0.5  # some 15,000 rules of nft; who has more is not made to wait
ALL_BITS = 0xFFFFFFFF
SHOWN_CHARS = 80

NUMBER = r"(?:0x[0-9a-f]+|\d+)"
KEPT = rf"(?:\w+ )?mark (?:(?:&|and) {NUMBER} )?"  # what is there stays, but for a mask
SETS = [
    re.compile(rf"\bmark set (?:{KEPT}(?:\||or|\^|xor) )?(?P<value>{NUMBER})"),  # nft
    re.compile(rf"--set-x?mark (?P<value>{NUMBER})"),  # iptables
]
LOOKS = [
    re.compile(rf"\bmark (?:(?:&|and) (?P<mask>{NUMBER}) == )?(?P<value>{NUMBER})"),
    re.compile(rf"--mark (?P<value>{NUMBER})(?:/(?P<mask>{NUMBER}))?"),
]


def clashes(marks: Mapping[str, int]) -> list[Problem]:
    """A problem for each mark of ours, by key, that a rule of others sets or looks at."""
    found: dict[str, Problem] = {}
    for line in _foreign_lines():
        for key, mark in marks.items():
            if key not in found and _concerns(line, mark):
                told = f"{mark:#x} in the rule `{line[:SHOWN_CHARS]}`"
                found[key] = Problem(f"rules.{key}", "a mark that nobody else uses", told, f"choose another rules.{key}")
    return list(found.values())


def _concerns(line: str, mark: int) -> bool:
    """Whether a rule gives packets our mark, or does something to those that have it."""
    if "mark" not in line:
        return False
    given = [int(match["value"], 0) for pattern in SETS for match in pattern.finditer(line)]
    looked_at = [match.group("value", "mask") for pattern in LOOKS for match in pattern.finditer(line)]
    return any(value & MARK_MASK == mark for value in given) or any(
        mark & (int(mask, 0) if mask else ALL_BITS) == int(value, 0) != 0 for value, mask in looked_at
    )


def _foreign_lines() -> Iterator[str]:
    """The rules of others, as far as they can be had quickly."""
    for program, arguments in (("nft", ["-s", "list", "ruleset"]), ("iptables-legacy-save", []), ("ip6tables-legacy-save", [])):
        if not path_of(program):
            continue
        try:
            listing = run(program, arguments, seconds=SECONDS)
        except RelayError:
            continue
        yield from _without_ours(listing)


def _without_ours(listing: str) -> Iterator[str]:
    table = chain = ""
    for raw in listing.splitlines():
        line = " ".join(raw.split())
        if line.startswith("table "):
            table, chain = line, ""
        elif line.startswith("chain "):
            chain = line
        elif TABLE not in table and PREFIX not in f"{chain} {line}":
            yield line
