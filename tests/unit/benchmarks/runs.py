"""Runs for the tests of the benchmarks' arithmetic: no machine was measured for these.

Owns: the synthetic runs. Never here: a benchmark.
"""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.bars import BARS
from benchmarks.statistics import Run, load
from benchmarks.workloads import WORKLOADS as LOADS
from benchmarks.workloads import takes_part

MACHINE = {"kernel": "6.18.0", "cpus": 2, "model": "a machine", "memory_gib": 24, "python": "3.11.2", "congestion": "reno"}
FIGURES = {
    "bulk": {"gbit_s": 30.0, "cpu_s_per_gb": 0.17},
    "pingpong": {"requests_s": 60_000.0, "cpu_us_per_request": 15.0, "p50_us": 500.0, "p99_us": 900.0},
    "churn": {"connections_s": 8_000.0, "cpu_us_per_connection": 100.0, "p50_us": 200.0, "p99_us": 400.0},
    "idle": {"rss_bytes_per_connection": 240.0},
    "beside": {"p50_us": 360.0, "p99_us": 700.0, "stream_gbit_s": 40.0},
    "open": {"cpu_us_per_request": 15.0, "rss_mb": 17.0},
    "size": {"cpu_s_per_gb": 0.17},
    "syscalls": {"syscalls_per_request": 6.0},
    "sidecar": {"gbit_s": 40.0, "cpu_s_per_gb": 0.1},
    "program": {"requests_s": 60_000.0, "cpu_us_per_request": 15.0, "p50_us": 500.0, "p99_us": 900.0},
}
LINES = ("open-32", "open-1000", "open-9000", "size-1", "size-100", "size-10000")
WORKLOADS = (
    *dict.fromkeys(workload for bar in BARS for workload in bar.workloads if workload.partition("-")[0] in FIGURES),
    *LINES,
    *("syscalls-pingpong-64-1", "syscalls-pingpong-64-32"),
    *("sidecar-bulk-down-1", "program-redis"),
)
OURS = (
    *("relay-sidecar", "relay-sidecar-log", "relay-sidecar-element", "relay-sidecar-released", "relay-sidecar-2", "engine"),
)
PEERS = ("direct", *OURS, "haproxy", "haproxy-tuned", "haproxy-2", "nginx", "envoy", "asyncio-element")
PROGRAMS = {
    "redis-benchmark": {"version": "redis-benchmark 1.0", "configuration": "of redis\n", "missing": None},
    "iperf3": {"version": None, "configuration": "of iperf3\n", "missing": "apt-get install iperf3"},
}

Value = Callable[[str, str, str, int, float], float]  # workload, peer, figure, round, what FIGURES says


def plain(_workload: str, _peer: str, _figure: str, _number: int, value: float) -> float:
    return value


def noisy(seed: int, noise: float = 0.03) -> Value:
    """Each value by up to so much more or less, the same for the same seed."""

    def value(workload: str, peer: str, figure: str, number: int, value: float) -> float:
        luck = random.Random(f"{seed} {workload} {peer} {figure} {number}")
        return value * (1 + luck.uniform(-noise, noise))

    return value


def data(
    value: Value = plain,
    rounds: int = 5,
    workloads: tuple[str, ...] = WORKLOADS,
    peers: tuple[str, ...] = PEERS,
    missing: Mapping[str, str] = {},
) -> dict[str, Any]:
    """As the benchmarks write it."""
    told = {
        name: {"version": None if name in missing else "1.0", "configuration": f"of {name}\n", "missing": missing.get(name)}
        for name in peers
    }
    results = [
        {"workload": workload, "peer": peer, "round": number, "figures": figures}
        for workload in workloads
        for number in range(rounds)
        for peer in peers
        if peer not in missing and takes_part(LOADS[workload], peer)
        if (figures := _figures(value, workload, peer, number))
    ]
    facts = {"format": 1, "machine": MACHINE, "seconds": 3.0, "rounds": rounds}
    return {**facts, "peers": told, "programs": PROGRAMS, "results": results}


def _figures(value: Value, workload: str, peer: str, number: int) -> dict[str, float]:
    """`direct` has no relay that could cost anything."""
    return {
        figure: value(workload, peer, figure, number, standard)
        for figure, standard in FIGURES[workload.partition("-")[0]].items()
        if peer != "direct" or not figure.startswith(("cpu", "rss", "syscalls"))
    }


def made(folder: Path, value: Value = plain, rounds: int = 5, **options: Any) -> Run:
    """Written and read again."""
    return load(written(folder / "run.json", value, rounds, **options))


def written(path: Path, value: Value = plain, rounds: int = 5, **options: Any) -> Path:
    path.write_text(json.dumps(data(value, rounds, **options)))
    return path
