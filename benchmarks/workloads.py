"""The workloads: what the load generator is told, and which figures come of it.

Owns: their names, which results, pages and comparisons go by. Never here: a process (measure), a peer (peers).
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final, NamedTuple

ECHO_PORT, SINK_PORT, SOURCE_PORT = 7007, 7008, 7009
IDLE_CONNECTIONS: Final = 9000
NO_RELAY: Final = "direct"
COMPARED: Final = ("relay-sidecar", "haproxy", "haproxy-tuned")  # where every peer would take too long
CURVES: Final = ("open", "size")  # families whose workloads are points of one line
ACTIVE: Final = 32  # of the connections of `open`
NS_PER_US, MB, GB = 1000, 1_000_000, 1e9

Facts = Mapping[str, float]


class Workload(NamedTuple):
    """One row of the results."""

    name: str
    family: str  # by what is counted: bulk | pingpong | churn | beside | open | size | syscalls | idle | process | start
    load: tuple[str, ...] = ()  # of benchmarks.load or a program, without the server's address and the time
    peers: tuple[str, ...] = ()  # these alone
    idle: int = 0  # connections that are open meanwhile
    fresh: bool = False  # each round has a peer that has just started: memory that was used once is kept
    program: str = ""  # of benchmarks.programs, instead of the load generator
    beside_client: bool = False  # client and relay in one namespace, as in a pod, instead of a gateway between them


def _bulk(direction: str, connections: int) -> Workload:
    port = SINK_PORT if direction == "up" else SOURCE_PORT
    words = ("bulk", "--port", str(port), "--direction", direction, "--connections", str(connections))
    return Workload(f"bulk-{direction}-{connections}", "bulk", words)


def _pingpong(size: int, connections: int) -> Workload:
    words = ("pingpong", "--port", str(ECHO_PORT), "--bytes", str(size), "--connections", str(connections))
    return Workload(f"pingpong-{size}-{connections}", "pingpong", words)


def _churn(connections: int) -> Workload:
    words = ("churn", "--port", str(ECHO_PORT), "--connections", str(connections))
    return Workload(f"churn-{connections}", "churn", words)


def _open(connections: int) -> Workload:
    idle = connections - ACTIVE
    return Workload(f"open-{connections}", "open", _pingpong(64, ACTIVE).load, COMPARED, idle, fresh=True)


def _size(megabytes: int) -> Workload:
    words = ("transfer", "--port", str(SINK_PORT), "--bytes", str(megabytes * MB))
    return Workload(f"size-{megabytes}", "size", words, COMPARED)


def _syscalls(of: Workload) -> Workload:
    return Workload(f"syscalls-{of.name}", "syscalls", of.load, (*COMPARED, "nginx", "envoy"))


def _sidecar(workload: Workload) -> Workload:
    return workload._replace(name=f"sidecar-{workload.name}", beside_client=True)


def _program(name: str, family: str, program: str, *load: str) -> Workload:
    return Workload(f"program-{name}", family, load, program=program)


WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        *(_bulk(direction, connections) for direction in ("down", "up") for connections in (1, 16)),
        *(_pingpong(size, connections) for size in (64, 1024, 16384) for connections in (1, 32, 256)),
        *(_churn(connections) for connections in (1, 64)),
        Workload("beside-bulk", "beside", _pingpong(64, 1).load),
        *(_open(connections) for connections in (ACTIVE, 100, 1000, 9000)),
        *(_size(megabytes) for megabytes in (1, 10, 100, 1000, 10_000)),
        *(_syscalls(each) for each in (_pingpong(64, 1), _pingpong(64, 32), _churn(64), _bulk("down", 1))),
        Workload("idle-9000", "idle", fresh=True),
        Workload("process", "process", peers=("relay-sidecar-2",), fresh=True),
        Workload("start", "start", peers=("relay-sidecar",)),
        *(_sidecar(workload) for workload in (_bulk("down", 1), _pingpong(64, 32), _churn(64))),
        _program("wrk", "pingpong", "wrk"),
        _program("wrk-close", "pingpong", "wrk", "-H", "Connection: close"),
        _program("redis", "pingpong", "redis-benchmark", "-n", "{count}"),
        _program("redis-16", "pingpong", "redis-benchmark", "-P", "16", "-n", "{count}0"),
        *(_program(f"iperf3-{count}", "bulk", "iperf3", "-P", str(count)) for count in (1, 8)),
    )
}
# Of `--quick`: what tells relays apart best.
QUICK: Final = ("bulk-down-1", "bulk-up-16", "pingpong-64-32", "churn-64", "beside-bulk")
BACKGROUND: Final = _bulk("down", 1).load  # of beside-bulk
# These are there for one question each; all other peers take part in everything.
FEW: Final = {
    "engine": ("pingpong-64-32", "pingpong-1024-32", "pingpong-16384-32", "churn-64"),
    "relay-sidecar-log": ("churn-1", "churn-64"),
    "relay-sidecar-notrack": ("pingpong-64-32", "churn-64"),
    "relay-sidecar-element": ("bulk-down-1", "bulk-up-1", "pingpong-64-32"),
    "relay-sidecar-released": ("bulk-down-1", "bulk-up-1", "churn-64"),
    "relay-sidecar-compiled": ("bulk-down-1", "bulk-up-1", "pingpong-64-32"),
    "relay-sidecar-copy": ("bulk-down-1", "bulk-up-1"),
    "asyncio-element": ("bulk-down-1", "bulk-up-1", "pingpong-64-32"),
}


def takes_part(workload: Workload, peer: str) -> bool:
    """Whether there is such a figure of this peer."""
    if workload.peers or peer in FEW:
        return peer in workload.peers or workload.name in FEW.get(peer, ())
    return not (workload.family == "idle" and peer == NO_RELAY)


def rows(names: Iterable[str]) -> list[tuple[str, ...]]:
    """What is measured together: the points of a line are taken one after the other, so that only their place differs."""
    return [tuple(row) for _, row in groupby(names, _row)]


def _row(name: str) -> str:
    family = WORKLOADS[name].family
    return family if family in CURVES else name


def amount(told: Facts) -> tuple[str, float]:
    """What a load was asked for, and how much of it there was: also what ended after its time."""
    if "bytes" in told:
        return "mb", told["bytes"] / MB
    thing = "request" if "requests" in told else "connection"
    return thing, told[f"{thing}s"] + told["late"]


def calls_each(before: tuple[int, Facts], after: tuple[int, Facts]) -> dict[str, float]:
    """From the calls and the facts of two loads, of which the second did more: what both begin and end with is in neither."""
    (calls, told), (more_calls, more_told) = before, after
    thing, count = amount(told)
    more = amount(more_told)[1]
    if more <= count:
        raise RuntimeError(f"a longer load with fewer {thing}s: {more:g} after {count:g}; they are too few to be counted")
    return {f"syscalls_per_{thing}": (more_calls - calls) / (more - count)}


def figures(workload: Workload, told: Facts, cpu_ns: int | None) -> dict[str, float]:
    """From what the load generator counted and how long the relay ran meanwhile; None: there was none."""
    if workload.family in CURVES:
        assert cpu_ns is not None, f"{workload.name} asks for a relay"
        if workload.family == "size":
            return {"cpu_s_per_gb": cpu_ns / told["bytes"]}
        return {"cpu_us_per_request": cpu_ns / NS_PER_US / told["requests"]}
    seconds = told["seconds"]
    if workload.family == "bulk":
        made = {"gbit_s": told["bytes"] * 8 / seconds / GB}
        return made if cpu_ns is None else {**made, "cpu_s_per_gb": cpu_ns / told["bytes"]}
    latencies = {name: told[name] for name in ("p50_us", "p99_us")}
    if workload.family == "beside":
        return {**latencies, "stream_gbit_s": told["stream_bytes_s"] * 8 / GB}
    done, rate, each = {
        "pingpong": ("requests", "requests_s", "cpu_us_per_request"),
        "churn": ("connections", "connections_s", "cpu_us_per_connection"),
    }[workload.family]
    made = {rate: told[done] / seconds, **latencies}
    return made if cpu_ns is None else {**made, each: cpu_ns / NS_PER_US / told[done]}
