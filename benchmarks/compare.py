"""Did a change make things better, worse or neither? `benchmarks/compare BEFORE.json AFTER.json` tells, given the noise.

Owns: the comparison of two runs. Exit status: 0 nothing is worse, 1 something is, 2 there is nothing to compare.
Never here: a bar (bars), what a run comes to (statistics).

Two runs are never made at the same moment, so the machine may have been another one for one of them. The peers that both runs
have in the same version and configuration show by how much: ours is taken relative to their geometric mean, round by round,
before it is compared. And since more than fifty figures are compared at once, each by its own interval of 95 %, all of that
must be beyond 3 %: with no change at all, and noise of 5 %, two runs of five rounds differ in one figure of 300.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bars import HIGHER_IS_BETTER, OURS, is_ours
from benchmarks.shown import aligned, figure_title, number
from benchmarks.statistics import LEVEL, Interval, Run, load, median, of_runs
from sidecar.errors import USAGE, RelayError

LEAST = 0.03
BETTER, WORSE, NEITHER = "better", "worse", "neither"


class Row(NamedTuple):
    """One figure of both runs; `change` is after to before, once what the machine did is taken out."""

    workload: str
    figure: str
    before: float
    after: float
    change: Interval | None
    against: list[str]
    verdict: str
    why: str


@dataclass(frozen=True)
class Comparison:
    peer: str
    rows: list[Row]
    notes: list[str]

    def of(self, verdict: str) -> list[Row]:
        return [row for row in self.rows if row.verdict == verdict]

    @property
    def verdict(self) -> str:
        """Whatever got better, what got worse decides."""
        return WORSE if self.of(WORSE) else BETTER if self.of(BETTER) else NEITHER


def compare(before: Run, after: Run, peer: str = OURS, least: float = LEAST) -> Comparison:
    """Every figure of the peer that both runs have."""
    common = [
        (workload, figure)
        for workload in before.workloads
        for figure in before.figures(workload)
        if before.by_round(workload, peer, figure) and after.by_round(workload, peer, figure)
    ]
    rows = [_row(before, after, peer, workload, figure, least) for workload, figure in common]
    return Comparison(peer, rows, _notes(before, after, peer, common))


def _row(before: Run, after: Run, peer: str, workload: str, figure: str, least: float) -> Row:
    against = _unchanged(before, after, workload, figure)
    runs = (before, after)
    values = [list(run.by_round(workload, peer, figure).values()) for run in runs]
    relative = [_relative(run, peer, workload, figure, against) for run in runs]
    change = of_runs(relative[0], relative[1])
    verdict = NEITHER if change is None else _verdict(change, figure in HIGHER_IS_BETTER, least)
    why = "" if change else f"{min(map(len, values))} round in one of them says nothing"
    return Row(workload, figure, median(values[0]), median(values[1]), change, against, verdict, why)


def _verdict(change: Interval, higher: bool, least: float) -> str:
    """All of the interval has to be beyond what would matter."""
    if change.low > 1 + least:
        return BETTER if higher else WORSE
    if change.high < 1 / (1 + least):
        return WORSE if higher else BETTER
    return NEITHER


def _unchanged(before: Run, after: Run, workload: str, figure: str) -> list[str]:
    """The peers that are the same in both runs, and were measured in every round in which anything was."""

    def rounds(run: Run) -> set[int]:
        return {n for peer in run.measured(workload, figure) for n in run.by_round(workload, peer, figure)}

    return [
        name
        for name in before.measured(workload, figure)
        if not is_ours(name)
        and before.peers[name] == after.peers.get(name)
        and all(set(run.by_round(workload, name, figure)) == rounds(run) for run in (before, after))
    ]


def _relative(run: Run, peer: str, workload: str, figure: str, against: list[str]) -> list[float]:
    """The peer's figure in each round, as a multiple of what the others had in that round."""
    theirs = [run.by_round(workload, name, figure) for name in against]
    return [
        value / math.exp(math.fsum(math.log(other[n]) for other in theirs) / len(theirs)) if theirs else value
        for n, value in run.by_round(workload, peer, figure).items()
    ]


def _notes(before: Run, after: Run, peer: str, common: list[tuple[str, str]]) -> list[str]:
    """What somebody should know who believes the table."""
    notes = [
        f"{key} of the machine: before {before.machine.get(key)}, after {after.machine.get(key)}"
        for key in dict.fromkeys((*before.machine, *after.machine))
        if before.machine.get(key) != after.machine.get(key)
    ]
    if before.seconds != after.seconds:
        notes.append(f"seconds for each figure: before {before.seconds:g}, after {after.seconds:g}")
    notes += [
        f"{name}: before {before.programs[name].version}, after {after.programs[name].version}"
        for name in before.programs
        if name in after.programs and before.programs[name].version != after.programs[name].version
    ]
    only = {
        run: [w for w in one.workloads if w not in other.workloads]
        for run, one, other in (("before", before, after), ("after", after, before))
    }
    notes += [f"only {run}: {', '.join(workloads)}" for run, workloads in only.items() if workloads]
    alone = dict.fromkeys(workload for workload, figure in common if not _unchanged(before, after, workload, figure))
    if alone:
        notes.append(f"no peer is the same in both runs, so the machine's own changes count as {peer}'s: {', '.join(alone)}")
    return notes


# Shown.


def percent(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.1f} %"


def text(found: Comparison) -> str:
    """A table, what stands out, and one last line for who reads only that."""
    lines = [("workload", "figure", "before", "after", "change", "between", "")]
    for row in found.rows:
        change = row.change
        told = (percent(change.middle), f"{percent(change.low)} and {percent(change.high)}") if change else ("?", row.why)
        name = figure_title(row.figure)
        lines.append((row.workload, name, number(row.before), number(row.after), *told, row.verdict.replace(NEITHER, "")))
    shown = aligned(lines, left={0, 1, 6})
    counts = ", ".join(f"{len(found.of(verdict))} {verdict}" for verdict in (WORSE, BETTER, NEITHER))
    shown += ["", *found.notes, f"{found.peer}: {found.verdict} ({counts}; intervals of {LEVEL * 100:g} %)"]
    return "".join(f"{line.rstrip()}\n" for line in shown)


def as_json(found: Comparison) -> str:
    rows = [{**row._asdict(), "change": row.change and row.change._asdict()} for row in found.rows]
    told: dict[str, Any] = {"peer": found.peer, "verdict": found.verdict, "level": LEVEL, "notes": found.notes, "rows": rows}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="compare", description="Did a change make things better, worse or neither, given the noise? Exit status 1: worse."
    )
    parser.add_argument("before", type=Path, metavar="BEFORE.json")
    parser.add_argument("after", type=Path, metavar="AFTER.json")
    parser.add_argument("--peer", default=OURS, help="whose figures (default: %(default)s)")
    parser.add_argument(
        "--least", type=float, default=LEAST * 100, metavar="PERCENT", help="a change up to this is none (default: %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    try:
        found = compare(load(options.before), load(options.after), options.peer, options.least / 100)
    except RelayError as error:
        sys.stderr.write(f"compare: {error}\n")
        return USAGE
    if not found.rows:
        sys.stderr.write(f"compare: {options.after}: expected figures of {options.peer} that both runs have, found none\n")
        return USAGE
    sys.stdout.write(as_json(found) if options.json else text(found))
    return int(found.verdict == WORSE)


if __name__ == "__main__":
    sys.exit(main())
