"""benchmarks.workloads: what figures are, and who has them."""

import pytest

from benchmarks.peers import PEERS
from benchmarks.statistics import BARS
from benchmarks.workloads import QUICK, WORKLOADS, figures, takes_part

LATENCIES = {"p50_us": 100.0, "p99_us": 900.0}


@pytest.mark.parametrize(
    ("name", "told", "cpu_ns", "made"),
    [
        ("bulk-down-1", {"bytes": 4e9, "seconds": 2.0}, 800_000_000, {"gbit_s": 16.0, "cpu_s_per_gb": 0.2}),
        ("bulk-up-16", {"bytes": 4e9, "seconds": 2.0}, None, {"gbit_s": 16.0}),
        (
            "pingpong-64-32",
            {"requests": 50_000, "seconds": 2.0, **LATENCIES},
            500_000_000,
            {"requests_s": 25_000.0, **LATENCIES, "cpu_us_per_request": 10.0},
        ),
        (
            "churn-64",
            {"connections": 10_000, "seconds": 2.0, **LATENCIES},
            500_000_000,
            {"connections_s": 5_000.0, **LATENCIES, "cpu_us_per_connection": 50.0},
        ),
        ("beside-bulk", {"requests": 7, "seconds": 2.0, **LATENCIES}, None, LATENCIES),
    ],
)
def test_figures_are_in_their_units(name: str, told: dict[str, float], cpu_ns: int | None, made: dict[str, float]) -> None:
    """A page would be wrong by a thousand, and by the same thousand for everybody."""
    assert figures(WORKLOADS[name], told, cpu_ns) == pytest.approx(made)


def test_every_bar_has_a_workload() -> None:
    """A row of the page would say "not measured" for ever."""
    missing = {workload for bar in BARS for workload in bar.workloads} - set(WORKLOADS)
    assert missing == set()
    assert set(QUICK) <= set(WORKLOADS)


def test_nobody_is_asked_for_what_he_has_not() -> None:
    """A run would fail after an hour, at the first figure that needs a relay."""
    assert not takes_part(WORKLOADS["idle-9000"], "direct")
    assert [name for name in PEERS if takes_part(WORKLOADS["start"], name)] == ["relay-sidecar"]
    few = {"engine": "pingpong-64-32", "relay-sidecar-log": "churn-1"}
    everybody = [name for name in PEERS if name not in few]
    assert [name for name in PEERS if takes_part(WORKLOADS["bulk-up-1"], name)] == everybody
    for peer, workload in few.items():
        assert [name for name in PEERS if takes_part(WORKLOADS[workload], name)] == [
            n for n in PEERS if n in (*everybody, peer)
        ]
