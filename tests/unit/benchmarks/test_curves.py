"""benchmarks.curves: how steep a line is, and what is called flat."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.curves import AXES, FALLS, FLAT, RISES, UNSURE, judge, place, steepness
from benchmarks.statistics import Interval, Run
from benchmarks.workloads import CURVES, WORKLOADS
from tests.unit.benchmarks.runs import Value, made

OPEN = ("open-32", "open-1000", "open-9000")
COST = "cpu_us_per_request"
few = settings(deadline=None, max_examples=25)  # each writes a run and reads it


def powers(exponent: float) -> Value:
    """A cost that grows with the connections, and rounds that differ by what slows all of one down."""

    def value(workload: str, _peer: str, _figure: str, number: int, standard: float) -> float:
        return standard * (number + 1) * (place(workload) ** exponent if workload in OPEN else 1)

    return value


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of examples: hypothesis makes many in one test."""
    return tmp_path_factory.mktemp("lines")


def run_of(folder: Path, value: Value, rounds: int = 5) -> Run:
    return made(folder, value, rounds, workloads=OPEN, peers=("relay-sidecar",))


@few
@given(st.floats(-1, 1))
def test_a_line_is_as_steep_as_it_was_made(folder: Path, exponent: float) -> None:
    """A cost that doubles with every tenfold would be shown as something else."""
    found = steepness(run_of(folder, powers(exponent)), OPEN, "relay-sidecar", COST)
    assert found == pytest.approx((10**exponent,) * 3)


def test_the_line_is_the_nearest_one_to_all_points(folder: Path) -> None:
    """One point that is off would be the slope, or none at all."""
    costs = dict(zip(OPEN, (1.0, 4.0, 1.0), strict=True))
    found = steepness(run_of(folder, lambda workload, *_: costs[workload]), OPEN, "relay-sidecar", COST)
    # By hand, from the logarithms of 32, 1000 and 9000, and of 1, 4 and 1.
    assert found == pytest.approx((1.0854,) * 3, rel=1e-4)


def test_a_round_counts_when_it_has_all_points(folder: Path) -> None:
    """A round that was cut short would be a steeper line, or a flatter one."""

    def value(workload: str, peer: str, figure: str, number: int, standard: float) -> float:
        return 0.0 if (workload, number) == ("open-9000", 2) else powers(0.3)(workload, peer, figure, number, standard)

    found = steepness(run_of(folder, value), OPEN, "relay-sidecar", COST)
    assert found == pytest.approx((10**0.3,) * 3)


def test_too_little_is_no_line(folder: Path) -> None:
    """One point, or one round, would be called flat."""
    assert steepness(run_of(folder, powers(0)), OPEN[:1], "relay-sidecar", COST) is None
    assert steepness(run_of(folder, powers(0), rounds=1), OPEN, "relay-sidecar", COST) is None
    assert steepness(run_of(folder, powers(0)), OPEN, "haproxy", COST) is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.96, 1.04, FLAT),
        (1.01, 1.04, FLAT),  # sure, and too little to matter
        (1.01, 1.06, RISES),
        (0.90, 0.99, FALLS),
        (0.90, 1.04, UNSURE),
        (0.96, 1.10, UNSURE),
    ],
)
def test_flat_is_what_is_surely_near_one(low: float, high: float, verdict: str) -> None:
    """A wide interval would pass for a flat line."""
    assert judge(Interval(low, (low + high) / 2, high)) == verdict


def test_every_line_has_a_name_and_its_points_an_order() -> None:
    """A line would be measured and drawn as bars, or go back and forth."""
    assert set(AXES) == set(CURVES)
    for name in CURVES:
        places = [place(workload) for workload, each in WORKLOADS.items() if each.family == name]
        assert places == sorted(set(places))
        assert len(places) > 3
