"""What a run's figures come to: medians with their spread, ratios with an interval, and a verdict for every bar.

Owns: the reading of a run's JSON, the intervals, the verdicts.
Never here: measuring, a bar (bars), words for a page (page); nor Python's own `statistics`: from inside this folder, its name
is this file's.

Why these intervals. A run has 5 to 15 rounds, and now and then one that a neighbour on the machine spoiled. Ratios are taken
round by round, so that what slows a whole round cancels out, and on a logarithmic scale, where half and double are equally far.
Then ranks: Wilcoxon's for pairs (all means of two), Mann and Whitney's for two runs (all differences). They are exact for any
number of rounds; one spoiled round moves one end at most, and from twelve rounds on neither. Five pairs are too few for ranks
(even the widest interval misses in 2 of 32 cases, 6 %): up to there Student's t serves, which a spoiled round makes too wide
rather than too narrow. A bootstrap of five values promises more than it keeps. Fewer or noisier rounds make an interval wider,
and a verdict less sure.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations_with_replacement, product
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bars import BARS, Bar
from sidecar.errors import Problem, RelayError

FORMAT = 1
ROUNDS_OF_A_BAR = 5
LEVEL = 0.95
# Two-sided at that level, for 1 to 4 degrees of freedom; with more, ranks reach it.
_STUDENT = (12.706, 4.303, 3.182, 2.776)


# A run.


class Peer(NamedTuple):
    """What was measured beside what: `missing` says how to get it where it was not there."""

    version: str
    configuration: str
    missing: str | None


@dataclass(frozen=True)
class Run:
    """One run of the benchmarks, as `pytest benchmarks` wrote it."""

    machine: dict[str, Any]
    seconds: float
    rounds: int
    peers: dict[str, Peer]
    programs: dict[str, Peer]  # that served as loads
    values: dict[tuple[str, str, str], dict[int, float]]  # workload, peer, figure: value by round

    @property
    def workloads(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(workload for workload, _, _ in self.values))

    def figures(self, workload: str) -> list[str]:
        return list(dict.fromkeys(figure for there, _, figure in self.values if there == workload))

    def measured(self, workload: str, figure: str) -> list[str]:
        """The peers that have this figure, in the order of the run's peers."""
        found = {peer for there, peer, what in self.values if (there, what) == (workload, figure)}
        return [peer for peer in self.peers if peer in found]

    def by_round(self, workload: str, peer: str, figure: str) -> dict[int, float]:
        """Nothing, where it was not measured. A ratio wants something above 0: `direct` has no relay that costs CPU."""
        return {number: value for number, value in self.values.get((workload, peer, figure), {}).items() if value > 0}

    def ratios(self, workload: str, figure: str, ours: str, theirs: str) -> list[float]:
        """Ours to theirs, in each round that has both."""
        mine, other = self.by_round(workload, ours, figure), self.by_round(workload, theirs, figure)
        return [value / other[number] for number, value in mine.items() if number in other]


def load(path: Path) -> Run:
    """A run from its file; RelayError says what is wrong with one."""
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise _no_run(path, f"format {data['format']!r}")
        peers, programs = _peers(data["peers"]), _peers(data.get("programs", {}))
        values: dict[tuple[str, str, str], dict[int, float]] = {}
        for result in data["results"]:
            for figure, value in result["figures"].items():
                where = (result["workload"], result["peer"], figure)
                rounds = values.setdefault(where, {})
                if result["peer"] not in peers or result["round"] in rounds or not math.isfinite(value):
                    raise _no_run(path, f"{value!r} for {', '.join(where)}, round {result['round']}")
                rounds[result["round"]] = float(value)
        return Run(data["machine"], float(data["seconds"]), int(data["rounds"]), peers, programs, values)
    except OSError as error:
        raise _no_run(path, error.strerror or "no file") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_run(path, f"{type(error).__name__} {error}") from error


def _peers(told: dict[str, Any]) -> dict[str, Peer]:
    return {
        name: Peer(str(peer["version"] or ""), str(peer["configuration"] or ""), peer["missing"]) for name, peer in told.items()
    }


def _no_run(path: Path, found: str) -> RelayError:
    expected = f"a run, format {FORMAT}, each peer's figure once a round"
    return RelayError(Problem(str(path), expected, found, "make one with `pytest benchmarks`"))


# Medians and intervals.


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


class Summary(NamedTuple):
    """A figure over its rounds: all of them are between low and high."""

    middle: float
    low: float
    high: float
    rounds: int


def summary(values: Sequence[float]) -> Summary | None:
    return Summary(median(values), min(values), max(values), len(values)) if values else None


class Interval(NamedTuple):
    """A ratio, or a value, and between what it is, with LEVEL's certainty."""

    low: float
    middle: float
    high: float


def of_pairs(values: Sequence[float]) -> Interval | None:
    """Of ratios, or of values of one figure; None where there are too few to say anything."""
    logs = [math.log(value) for value in values]
    count = len(logs)
    if count < 2:
        return None
    walsh = sorted((one + other) / 2 for one, other in combinations_with_replacement(logs, 2))
    bounds = _by_ranks(walsh, _signed_rank_sums(count))
    if bounds is None:
        bounds = _by_student(_mean(logs), math.sqrt(_variance(logs) / count), count - 1)
    return _interval(bounds, median(logs))


def of_runs(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    """Of after to before, each a run of its own; None where there are too few to say anything."""
    logs, others = [math.log(value) for value in before], [math.log(value) for value in after]
    if min(len(logs), len(others)) < 2:
        return None
    differences = sorted(other - one for one, other in product(logs, others))
    bounds = _by_ranks(differences, _rank_sums(len(logs), len(others)))
    if bounds is None:
        error = math.sqrt(_variance(logs) / len(logs) + _variance(others) / len(others))
        bounds = _by_student(_mean(others) - _mean(logs), error, min(len(logs), len(others)) - 1)
    return _interval(bounds, median(differences))


def _interval(bounds: tuple[float, float], middle: float) -> Interval:
    """With the median, which is inside but for dozens of rounds that are far from symmetric."""
    return Interval(math.exp(min(bounds[0], middle)), math.exp(middle), math.exp(max(bounds[1], middle)))


def _by_ranks(ordered: list[float], sums: list[int]) -> tuple[float, float] | None:
    """Leave as many out at both ends as chance alone would, at this level; None if even all of them are too few."""
    most = sum(sums) * (1 - LEVEL) / 2
    out = sum(reached <= most for reached in accumulate(sums))
    return (ordered[out - 1], ordered[-out]) if out else None


def _by_student(middle: float, error: float, freedom: int) -> tuple[float, float]:
    reach = _STUDENT[freedom - 1] * error
    return middle - reach, middle + reach


def _signed_rank_sums(count: int) -> list[int]:
    """In how many of the 2**count ways each sum of the ranks with a plus comes about."""
    ways = [1]
    for rank in range(1, count + 1):
        ways = [one + other for one, other in zip(ways + [0] * rank, [0] * rank + ways, strict=True)]
    return ways


def _rank_sums(count: int, others: int) -> list[int]:
    """In how many ways each number of pairs in which the other is the smaller comes about."""
    ways = [[1] + [0] * (count * others)] + [[0] * (count * others + 1) for _ in range(count)]
    for rank in range(count + others):
        for chosen in range(min(count, rank + 1), 0, -1):
            passed = rank - chosen + 1  # of the others, by the last one chosen
            if passed <= others:
                shifted = [0] * passed + ways[chosen - 1]
                ways[chosen] = [one + more for one, more in zip(ways[chosen], shifted, strict=False)]
    return ways[count]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


# The verdicts.

AHEAD, HOLDS, BEHIND, NOT_MEASURED = "ahead", "holds", "behind", "not measured"


class Verdict(NamedTuple):
    """One bar at one workload; `stretch` is the same against the stretch."""

    bar: Bar
    workload: str
    verdict: str
    stretch: str = NOT_MEASURED
    peer: str = ""
    interval: Interval | None = None
    why: str = ""


def judge(interval: Interval, line: float, higher: bool, even: float | None = 1.0) -> str:
    """`ahead`: all of the interval beats the line, and the peer too; `behind`: none of it does; else the line holds."""
    low, high, line = (interval.low, interval.high, line) if higher else (-interval.high, -interval.low, -line)
    if high < line:
        return BEHIND
    beaten = line if even is None else max(line, even if higher else -even)
    return AHEAD if low >= beaten else HOLDS


def verdicts(run: Run) -> list[Verdict]:
    """Every bar at each of its workloads."""
    return [_verdict(run, bar, workload) for bar in BARS for workload in bar.workloads]


def _verdict(run: Run, bar: Bar, workload: str) -> Verdict:
    there = {peer: found for peer in (bar.ours, *bar.peers) if (found := run.by_round(workload, peer, bar.figure))}
    absent = [peer for peer in (bar.ours, *bar.peers) if peer not in there]
    if absent:
        return Verdict(bar, workload, NOT_MEASURED, why="; ".join(_absence(run, peer) for peer in absent))
    # The best by its median of the run: the best of each single round would be chosen for its luck.
    best = sorted(bar.peers, key=lambda peer: median(list(there[peer].values())), reverse=bar.higher)[:1]
    values = run.ratios(workload, bar.figure, bar.ours, best[0]) if best else list(there[bar.ours].values())
    interval = of_pairs(values)
    if interval is None or len(values) < ROUNDS_OF_A_BAR:
        return Verdict(bar, workload, NOT_MEASURED, why=f"{len(values)} rounds, and a bar asks for {ROUNDS_OF_A_BAR}")
    even = 1.0 if best else None
    stretch = NOT_MEASURED if bar.stretch is None else judge(interval, bar.stretch, bar.higher, even)
    return Verdict(bar, workload, judge(interval, bar.bar, bar.higher, even), stretch, "".join(best), interval)


def _absence(run: Run, peer: str) -> str:
    missing = run.peers[peer].missing if peer in run.peers else None
    return f"{peer}: {missing}" if missing else f"{peer}: not in this run"
