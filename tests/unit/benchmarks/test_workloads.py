"""benchmarks.workloads: what figures are, and who has them."""

import pytest

from benchmarks.peers import PEERS
from benchmarks.workloads import ACTIVE, QUICK, WORKLOADS, calls_each, figures, rows, takes_part

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
        ("open-9000", {"requests": 50_000, "seconds": 2.0, **LATENCIES}, 500_000_000, {"cpu_us_per_request": 10.0}),
        ("size-10", {"connections": 40, "bytes": 4e8, "seconds": 2.0}, 80_000_000, {"cpu_s_per_gb": 0.2}),
        (
            "beside-bulk",
            {"requests": 7, "seconds": 2.0, "stream_bytes_s": 1e9, **LATENCIES},
            None,
            {**LATENCIES, "stream_gbit_s": 8.0},
        ),
    ],
)
def test_figures_are_in_their_units(name: str, told: dict[str, float], cpu_ns: int | None, made: dict[str, float]) -> None:
    """A page would be wrong by a thousand, and by the same thousand for everybody."""
    assert figures(WORKLOADS[name], told, cpu_ns) == pytest.approx(made)


@pytest.mark.parametrize(
    ("few", "more", "made"),
    [
        ({"requests": 100, "late": 10}, {"requests": 290, "late": 20}, {"syscalls_per_request": 6.0}),
        ({"connections": 100, "late": 0}, {"connections": 300, "late": 0}, {"syscalls_per_connection": 6.0}),
        ({"bytes": 1e8}, {"bytes": 3e8}, {"syscalls_per_mb": 6.0}),
    ],
)
def test_calls_are_of_what_one_load_did_more_than_the_other(
    few: dict[str, float], more: dict[str, float], made: dict[str, float]
) -> None:
    """Opening 32 connections would count as something that requests cost, and answers after the end as none."""
    assert calls_each((5000, few), (6200, more)) == made


def test_the_points_of_a_line_are_measured_together() -> None:
    """What the machine did between two of them would look like a slope."""
    names = ["bulk-up-1", "bulk-up-16", "open-32", "open-9000", "size-1", "size-10", "idle-9000"]
    assert rows(names) == [("bulk-up-1",), ("bulk-up-16",), ("open-32", "open-9000"), ("size-1", "size-10"), ("idle-9000",)]


def test_as_many_connections_are_open_as_the_name_says() -> None:
    """A line would have its points at the wrong places."""
    counts = {name: ACTIVE + each.idle for name, each in WORKLOADS.items() if each.family == "open"}
    assert counts == {"open-32": 32, "open-100": 100, "open-1000": 1000, "open-9000": 9000}
    sizes = {name: each.load[-1] for name, each in WORKLOADS.items() if each.family == "size"}
    assert sizes == {f"size-{count}": f"{count}000000" for count in (1, 10, 100, 1000, 10000)}


def test_a_quick_run_has_workloads_that_there_are() -> None:
    """`--quick` would end before it begins."""
    assert set(QUICK) <= set(WORKLOADS)


def test_nobody_is_asked_for_what_he_has_not() -> None:
    """A run would fail after an hour, at the first figure that needs a relay."""
    assert not takes_part(WORKLOADS["idle-9000"], "direct")
    assert [name for name in PEERS if takes_part(WORKLOADS["start"], name)] == ["relay-sidecar"]
    assert not {name for name in ("open-32", "size-1", "syscalls-churn-64") if takes_part(WORKLOADS[name], "direct")}
    few = {"engine": "pingpong-1024-32", "relay-sidecar-log": "churn-1"}
    assert takes_part(WORKLOADS["churn-64"], "relay-sidecar-notrack")
    elements = (*(f"relay-sidecar-{name}" for name in ("element", "released", "compiled", "copy")), "asyncio-element")
    everybody = [name for name in PEERS if name not in (*few, *elements, "relay-sidecar-notrack")]
    assert [name for name in PEERS if takes_part(WORKLOADS["bulk-up-16"], name)] == everybody
    assert {name for name in PEERS if takes_part(WORKLOADS["bulk-up-1"], name)} == {*everybody, *elements}
    for peer, workload in few.items():
        assert [name for name in PEERS if takes_part(WORKLOADS[workload], name)] == [
            n for n in PEERS if n in (*everybody, peer)
        ]
