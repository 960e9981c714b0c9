"""benchmarks.statistics: intervals against counts of every case, the verdicts, and what noise may never do to them."""

import json
import math
from itertools import combinations, combinations_with_replacement, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from benchmarks.bars import BARS, HIGHER_IS_BETTER, OURS, is_ours
from benchmarks.statistics import (
    AHEAD,
    BEHIND,
    HOLDS,
    NOT_MEASURED,
    Interval,
    Run,
    Verdict,
    _rank_sums,
    _signed_rank_sums,
    judge,
    load,
    median,
    of_pairs,
    of_runs,
    summary,
    verdicts,
)
from benchmarks.workloads import WORKLOADS
from sidecar.errors import RelayError
from tests.unit.benchmarks.runs import Value, data, made, noisy, plain, written

EXACTLY = 1e-9
untimed = settings(deadline=None)
VALUES = st.lists(st.floats(0.01, 100), min_size=2, max_size=15)
WIDER = st.floats(1, 5)


def close(one: Interval | None, other: tuple[float, float, float]) -> bool:
    return one is not None and one == pytest.approx(other, rel=EXACTLY)


# Intervals.


@pytest.mark.parametrize("count", range(1, 9))
def test_signs_are_counted_as_they_come(count: int) -> None:
    """An interval would promise 95 % and keep something else."""
    counts = [0] * (count * (count + 1) // 2 + 1)
    for signs in product((0, 1), repeat=count):
        counts[sum(rank for rank, sign in enumerate(signs, 1) if sign)] += 1
    assert _signed_rank_sums(count) == counts


@pytest.mark.parametrize(("count", "others"), [(1, 1), (1, 4), (3, 2), (4, 4), (2, 5), (5, 5)])
def test_orders_are_counted_as_they_come(count: int, others: int) -> None:
    """A comparison of two runs would promise 95 % and keep something else."""
    counts = [0] * (count * others + 1)
    for places in combinations(range(count + others), count):
        rest = [place for place in range(count + others) if place not in places]
        counts[sum(other < one for one, other in product(places, rest))] += 1
    assert _rank_sums(count, others) == counts


def test_an_interval_of_six_pairs_or_more_is_wilcoxon_s() -> None:
    """It would not be the one of the published tables: how many means 95 % leaves out at each end."""
    for count, left_out in ((6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (12, 13), (15, 25)):
        values = [2.0**number for number in range(count)]
        means = sorted(math.sqrt(one * other) for one, other in combinations_with_replacement(values, 2))
        assert close(of_pairs(values), (means[left_out], median_of_logs(values), means[-1 - left_out]))


def median_of_logs(values: list[float]) -> float:
    return math.exp(median([math.log(value) for value in values]))


def test_an_interval_of_five_pairs_is_student_s() -> None:
    """The fewest rounds that a bar asks for would have no interval, or one that promises too much."""
    logs = [-2.0, -1.0, 0.0, 1.0, 2.0]
    reach = 2.776 * math.sqrt(2.5 / 5)
    assert close(of_pairs([math.exp(each) for each in logs]), (math.exp(-reach), 1.0, math.exp(reach)))


def test_an_interval_of_two_runs_of_four_or_more_is_mann_and_whitney_s() -> None:
    """It would not be the one of the published tables: how many ratios 95 % leaves out at each end."""
    for count, left_out in ((4, 0), (5, 2), (6, 5), (8, 13), (10, 23), (15, 64)):
        before, after = ([base**number for number in range(count)] for base in (2.0, 3.0))
        ratios = sorted(other / one for one, other in product(before, after))
        assert close(of_runs(before, after), (ratios[left_out], median_of_logs(ratios), ratios[-1 - left_out]))


def test_an_interval_of_two_short_runs_is_student_s() -> None:
    """`--quick` has three rounds, and could never be compared."""
    values = [math.exp(each) for each in (-1.0, 0.0, 1.0)]
    reach = 4.303 * math.sqrt(2 / 3)
    assert close(of_runs(values, values), (math.exp(-reach), 1.0, math.exp(reach)))


def test_one_round_says_nothing() -> None:
    """A single round would be shown as if it were sure."""
    assert of_pairs([2.0]) is None
    assert of_pairs([]) is None
    assert of_runs([2.0], [3.0, 3.0]) is None
    assert summary([]) is None


@untimed
@example([1.0] * 21 + [2.0] * 19)  # far from symmetric, the means of two are elsewhere
@given(VALUES)
def test_an_interval_contains_its_median(values: list[float]) -> None:
    """A page would show a figure outside of its own interval."""
    found = of_pairs(values)
    assert found is not None
    assert found.low <= found.middle <= found.high


@untimed
@given(VALUES, st.floats(0.1, 10))
def test_another_unit_changes_nothing_else(values: list[float], unit: float) -> None:
    """The same run in milliseconds would have another verdict than in seconds."""
    found = of_pairs(values)
    assert found is not None
    assert close(of_pairs([value * unit for value in values]), (found.low * unit, found.middle * unit, found.high * unit))


@untimed
@given(VALUES)
def test_ours_to_theirs_is_theirs_to_ours_turned_round(values: list[float]) -> None:
    """A row that asks for more would be judged otherwise than one that asks for less."""
    found = of_pairs(values)
    assert found is not None
    assert close(of_pairs([1 / value for value in values]), (1 / found.high, 1 / found.middle, 1 / found.low))


def test_a_spoiled_round_moves_one_end_at_most_and_among_twelve_neither() -> None:
    """A neighbour's minute on the machine would hide every difference for the whole run."""
    values = [1.2 + number / 1000 for number in range(14)]
    for count, moved in ((8, True), (11, True), (12, False), (15, False)):
        found = of_pairs([0.1, *values[: count - 1]])
        assert found is not None
        assert (found.low < 1.1, found.high > 1.2) == (moved, True)


# Verdicts.


@pytest.mark.parametrize(
    ("interval", "line", "higher", "verdict"),
    [
        ((1.2, 1.3, 1.4), 1.1, True, AHEAD),
        ((1.0, 1.2, 1.4), 1.1, True, HOLDS),
        ((0.8, 0.9, 1.05), 1.1, True, BEHIND),
        ((0.6, 0.7, 0.8), 0.97, False, AHEAD),
        ((0.9, 1.0, 1.2), 0.97, False, HOLDS),
        ((0.98, 1.0, 1.2), 0.97, False, BEHIND),
        ((1.02, 1.03, 1.05), 1.1, False, HOLDS),  # the bar is beaten, and so are we
        ((1.1, 1.1, 1.1), 1.1, True, AHEAD),
    ],
)
def test_a_verdict_is_read_off_the_interval(
    interval: tuple[float, float, float], line: float, higher: bool, verdict: str
) -> None:
    """A bar would hold that does not, or nobody would see that it is beaten."""
    assert judge(Interval(*interval), line, higher) == verdict


def test_a_bar_on_a_value_has_no_peer_to_beat() -> None:
    """240 B of 400 would never be ahead, because they are not below 1."""
    assert judge(Interval(230, 240, 250), 400, higher=False, even=None) == AHEAD


SURENESS = {AHEAD: 1, HOLDS: 0, BEHIND: -1}


@untimed
@given(
    st.lists(st.floats(-0.5, 0.5), min_size=5, max_size=15),
    WIDER,
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.booleans(),
)
def test_more_noise_never_makes_a_verdict_surer(
    pattern: list[float], more: float, truth: float, line: float, higher: bool
) -> None:
    """A run on a busy machine would pass, or fail, a bar that the same run on a quiet one leaves open."""
    assume(abs(truth - line) > EXACTLY)
    quiet, loud = (verdict_with(pattern, noise, truth, math.exp(line), higher) for noise in (1.0, more))
    assert SURENESS[loud] in (0, SURENESS[quiet])


def verdict_with(pattern: list[float], noise: float, truth: float, line: float, higher: bool) -> str:
    """Rounds that are off by a pattern, so many times as much; the pattern itself favours neither side."""
    means = [(one + other) / 2 for one, other in combinations_with_replacement(pattern, 2)]
    middle = math.fsum(pattern) / len(pattern) if len(pattern) == 5 else median(means)
    found = of_pairs([math.exp(truth + noise * (each - middle)) for each in pattern])
    assert found is not None
    return judge(found, line, higher)


def of_ours(factor: float, noise: float = 0.03) -> Value:
    """Ours is so many times as good as everybody else at everything."""
    luck = noisy(1, noise)

    def value(workload: str, peer: str, figure: str, number: int, standard: float) -> float:
        found = luck(workload, peer, figure, number, standard)
        if not peer.startswith(OURS):
            return found
        return found * factor if figure in HIGHER_IS_BETTER else found / factor

    return value


def found_of(run: Run, workload: str, figure: str, *peers: str) -> Verdict:
    (found,) = [each for each in verdicts(run) if (each.workload, each.bar.figure, each.bar.peers) == (workload, figure, peers)]
    return found


def test_every_bar_is_judged(tmp_path: Path) -> None:
    """A row of the table of bars would be on no page."""
    for factor, verdict in ((16, AHEAD), (1 / 16, BEHIND)):
        found = verdicts(made(tmp_path, of_ours(factor)))
        assert {each.verdict for each in found if each.interval and not any(map(is_ours, each.bar.peers))} == {verdict}


def test_ours_is_measured_against_ours_where_a_bar_says_so(tmp_path: Path) -> None:
    """What the log, an element and Python cost would be on no page."""

    def value(_workload: str, peer: str, _figure: str, _number: int, standard: float) -> float:
        return standard * {"relay-sidecar-log": 0.9, "relay-sidecar-released": 0.4, "engine": 0.8}.get(peer, 1.0)

    run = made(tmp_path, value)
    churn = [each for each in verdicts(run) if (each.workload, each.bar.figure) == ("churn-64", "connections_s")]
    log, released = (each for each in churn if each.bar.peers == (OURS,))
    assert (log.verdict, log.bar.ours) == (BEHIND, "relay-sidecar-log")
    assert close(log.interval, (0.9, 0.9, 0.9))
    assert (released.verdict, released.bar.ours) == (BEHIND, "relay-sidecar-released")
    assert close(released.interval, (0.4, 0.4, 0.4))
    engine = found_of(run, "pingpong-64-32", "cpu_us_per_request", "engine")
    assert close(engine.interval, (1.25, 1.25, 1.25))


def test_bars_name_workloads_that_there_are() -> None:
    """A bar would stay unmeasured for a spelling."""
    not_loads = {"start", "process"}
    assert {workload for bar in BARS for workload in bar.workloads} - not_loads <= set(WORKLOADS)
    assert [bar.title for bar in BARS if bar.stretch is not None and (bar.stretch > bar.bar) != bar.higher] == []


def test_a_bar_is_measured_against_the_best_of_its_peers(tmp_path: Path) -> None:
    """We would be first by choosing the slower rival."""

    def value(_workload: str, peer: str, _figure: str, _number: int, standard: float) -> float:
        return standard * {"nginx": 0.5, "haproxy-tuned": 2.0}.get(peer, 1.0)

    run = made(tmp_path, value)
    best = ("nginx", "haproxy", "haproxy-tuned")
    cost, speed = (
        found_of(run, *which, *best) for which in (("churn-64", "cpu_us_per_connection"), ("pingpong-64-256", "requests_s"))
    )
    assert (cost.peer, cost.verdict, speed.peer, speed.verdict) == ("nginx", BEHIND, "haproxy-tuned", BEHIND)
    assert close(cost.interval, (2, 2, 2))
    assert close(speed.interval, (0.5, 0.5, 0.5))


def test_what_slows_a_whole_round_changes_no_ratio(tmp_path: Path) -> None:
    """Rounds would have to be quiet, on machines that never are."""

    def value(_workload: str, peer: str, _figure: str, number: int, standard: float) -> float:
        return standard / (number + 1) * (1.5 if peer == OURS else 1.0)

    assert close(found_of(made(tmp_path, value), "bulk-up-1", "gbit_s", "haproxy-tuned").interval, (1.5, 1.5, 1.5))


def test_a_peer_that_is_missing_leaves_its_rows_unmeasured(tmp_path: Path) -> None:
    """We would be first of the ones that happened to be installed, and nobody would see it."""
    run = made(tmp_path, missing={"nginx": "apt-get install nginx-light"}, peers=("relay-sidecar", "haproxy", "nginx"))
    found = found_of(run, "churn-64", "cpu_us_per_connection", "nginx", "haproxy", "haproxy-tuned")
    assert (found.verdict, found.interval) == (NOT_MEASURED, None)
    assert found.why == "nginx: apt-get install nginx-light; haproxy-tuned: not in this run"


def test_four_rounds_are_no_verdict(tmp_path: Path) -> None:
    """`--quick` would pass bars that ask for more."""
    assert {each.verdict for each in verdicts(made(tmp_path, rounds=4))} == {NOT_MEASURED}


# Reading.


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Figures would move between peers, or rounds."""
    run = made(tmp_path, lambda *where: float(where[3]), rounds=3, workloads=("churn-1",), peers=("direct", "nginx"))
    assert run.values["churn-1", "nginx", "p50_us"] == {0: 0.0, 1: 1.0, 2: 2.0}
    assert run.by_round("churn-1", "nginx", "p50_us") == {1: 1.0, 2: 2.0}
    assert run.measured("churn-1", "connections_s") == ["direct", "nginx"]
    assert run.measured("churn-1", "cpu_us_per_connection") == ["nginx"]
    assert {name: (pair.version, pair.missing) for name, pair in run.programs.items()} == {
        "redis-benchmark": ("redis-benchmark 1.0", None),
        "iperf3": ("", "apt-get install iperf3"),
    }
    assert run.figures("churn-1") == ["connections_s", "p50_us", "p99_us", "cpu_us_per_connection"]


BROKEN: dict[str, dict[str, Any]] = {
    "another format": {"format": 2},
    "no peers": {"peers": None},
    "a figure that is no number": {"results": [{"workload": "w", "peer": "nginx", "round": 0, "figures": {"p50_us": "fast"}}]},
    "a figure without end": {"results": [{"workload": "w", "peer": "nginx", "round": 0, "figures": {"p50_us": math.inf}}]},
    "an unknown peer": {"results": [{"workload": "w", "peer": "nobody", "round": 0, "figures": {"p50_us": 1.0}}]},
    "a round twice": {"results": [{"workload": "w", "peer": "nginx", "round": 0, "figures": {"p50_us": 1.0}}] * 2},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_run_is_refused_in_one_line(broken: str, tmp_path: Path) -> None:
    """A page would be made from half a run, or a traceback come instead of a reason."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps(data(plain) | BROKEN[broken]))
    with pytest.raises(
        RelayError, match=r"^\S+run\.json: expected a run, format 1.*, found .*; make one with `pytest benchmarks`$"
    ):
        load(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A wrong name would end in a traceback."""
    with pytest.raises(RelayError, match="found No such file or directory"):
        load(tmp_path / "none.json")
    written(tmp_path / "cut.json").write_text('{"format": 1,')
    with pytest.raises(RelayError, match="found JSONDecodeError"):
        load(tmp_path / "cut.json")
