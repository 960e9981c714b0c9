"""What the engine knows, in the words of logs, metrics and the admin socket.

Owns: the fields of access records, of live flows and of `stats`, and the names, labels and help of every metric.
Never here: a change of anything; an address or any other word of a peer in a label.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from relaycore import BUILD, LANES, PHASES, Address, Engine, LiveFlow
from sidecar import __version__
from sidecar.config import Endpoint, Listener
from sidecar.report import Family, Fields, Sample, histogram_samples

COUNTER_HELP = {
    "accept_errors": "Connections that were gone when accepted, or that the kernel failed to hand over",
    "accept_pauses": "Times that accepting paused at a limit",
    "connections_shed": "Connections reset because a limit lasted",
    "flows_limited": "Pauses because of max_flows",
    "files_limited": "Pauses and lost dials because of the limit on open files",
    "memory_limited": "Pauses and lost dials because of kernel memory",
    "ports_limited": "Dials that found no free local port",
    "pipes_exhausted": "Times that copying stood in because all pipes were in use",
    "pipes_denied": "Times that the kernel denied a pipe of full size",
    "pending_exhausted": "Reads cut short because max_pending was reached",
    "records_lost": "Access records that found the engine's ring full",
    "resets_forced": "Resets passed on at the deadline, over bytes not yet acknowledged",
    "urgent_bytes": "Urgent bytes passed on",
    "to_splice": "Halves that went from copying to splicing",
    "to_copy": "Halves that went back from splicing to copying",
    "turns": "Returns from epoll_wait",
}
HISTOGRAM_HELP = {
    "connect_seconds": "Time until the origin accepted",
    "duration_seconds": "Time from accepting a flow to its end",
    "flow_bytes": "Bytes of a flow, both ways",
}
HALF_CLOSED = (None, "client", "origin", "both")


class Shown(NamedTuple):
    """A listener as records and metrics show it."""

    listener: Listener
    port: int
    addresses: Sequence[str]


class Limits(NamedTuple):
    """What bounds the relay now."""

    flows: int
    open_files: int
    pipes: int
    pending_bytes: int


class Facts:
    """Reads the engine; its listeners are numbered as they were added."""

    def __init__(self, engine: Engine, listeners: Sequence[Shown]) -> None:
        self._engine = engine
        self._listeners = listeners
        self._started = time.time()

    def access(self, value: Callable[[int], object]) -> list[Fields]:
        """The fields of access records, per listener: value(n) stands for the n-th that a flow has, in the engine's order."""
        return [
            {
                "flow": value(0),
                "listener": listener.name,
                "direction": listener.direction,
                "client": value(1),
                "origin": value(2),
                "bytes_sent": value(3),
                "bytes_received": value(4),
                "duration_ms": value(5),
                "connect_ms": value(6),
                "lane": value(7),
                "reason": value(8),
                "error": value(9),
            }
            for listener, _, _ in self._listeners
        ]

    def live_flow(self, flow: LiveFlow, now_ns: int) -> Fields:
        """One row of `flows`."""
        listener = self._listeners[flow.listener].listener
        return {
            "flow": flow.flow,
            "listener": listener.name,
            "direction": listener.direction,
            "worker": flow.worker,
            "phase": PHASES[flow.phase],
            "lane": LANES[flow.lane],
            "client": _written(flow.client),
            "origin": _written(flow.origin),
            "bytes_sent": flow.bytes_sent,
            "bytes_received": flow.bytes_received,
            "pending_sent": flow.pending_sent,
            "pending_received": flow.pending_received,
            "age_ms": max(0, now_ns - flow.started_ns) // 1_000_000,
            "idle_ms": max(0, now_ns - flow.active_ns) // 1_000_000,
            "connect_ms": _milliseconds(flow.connect_ns) if flow.connect_ns >= 0 else None,
            "half_closed": HALF_CLOSED[flow.half_closed],
        }

    def stats(self) -> dict[str, object]:
        """Everything that is counted, for `stats`."""
        opened, reasons, moved = self._engine.opened(), self._engine.reasons(), self._engine.bytes()
        listeners = [
            {
                "name": shown.listener.name,
                "direction": shown.listener.direction,
                "capture": shown.listener.capture,
                "addresses": list(shown.addresses),
                "opened": opened[number],
                "bytes_sent": moved[number][0],
                "bytes_received": moved[number][1],
                "closed": {reason: count for reason, count in reasons[number].items() if count},
            }
            for number, shown in enumerate(self._listeners)
        ]
        return {
            "live": self._engine.live,
            "listeners": listeners,
            "counters": self._engine.counters(),
            "dial_errors": self._engine.dial_errors(),
        }

    def families(self, *, ready: bool, limits: Limits, log_dropped: int, rules_work: bool | None) -> list[Family]:
        """Every metric. Labels are listener, direction, reason, errno and limit: all from closed sets."""
        return [
            *self._per_listener(),
            *self._histograms(),
            Family("relay_flows", "gauge", "Flows that live now", [Sample(self._engine.live)]),
            Family("relay_workers_running", "gauge", "Worker threads that run", [Sample(self._engine.running)]),
            Family("relay_ready", "gauge", "1 while new connections are taken", [Sample(ready)]),
            *_rules(rules_work),
            Family(
                "relay_limit",
                "gauge",
                "What bounds the relay",
                [Sample(value, [("limit", name)]) for name, value in limits._asdict().items()],
            ),
            Family(
                "relay_dial_errors_total",
                "counter",
                "Dials that failed",
                [Sample(count, [("errno", name)]) for name, count in self._engine.dial_errors().items()],
            ),
            *(
                Family(f"relay_{name}_total", "counter", COUNTER_HELP[name], [Sample(count)])
                for name, count in self._engine.counters().items()
            ),
            Family("relay_log_records_dropped_total", "counter", "Records that stdout did not take", [Sample(log_dropped)]),
            Family("relay_build_info", "gauge", "1", [Sample(1, [("version", __version__), ("build", BUILD)])]),
            Family("process_start_time_seconds", "gauge", "Start, in seconds since the epoch", [Sample(self._started)]),
        ]

    def _per_listener(self) -> list[Family]:
        opened, closed, sent, received = [], [], [], []
        for labels, count, reasons, (there, back) in zip(
            self._labels(), self._engine.opened(), self._engine.reasons(), self._engine.bytes(), strict=True
        ):
            opened.append(Sample(count, labels))
            closed += [Sample(number, [*labels, ("reason", reason)]) for reason, number in reasons.items()]
            sent.append(Sample(there, labels))
            received.append(Sample(back, labels))
        return [
            Family("tcp_connections_opened_total", "counter", "Flows that were accepted", opened),
            Family("tcp_connections_closed_total", "counter", "Flows that ended, by reason", closed),
            Family("tcp_sent_bytes_total", "counter", "Bytes from clients that origins were given", sent),
            Family("tcp_received_bytes_total", "counter", "Bytes from origins that clients were given", received),
        ]

    def _histograms(self) -> list[Family]:
        samples: Mapping[str, list[Sample]] = {name: [] for name in HISTOGRAM_HELP}
        for labels, histograms in zip(self._labels(), self._engine.histograms(), strict=True):
            for name, (bounds, counts, total) in histograms.items():
                samples[name] += histogram_samples(bounds, counts, total, labels)
        return [Family(f"relay_{name}", "histogram", HISTOGRAM_HELP[name], lines) for name, lines in samples.items()]

    def _labels(self) -> list[list[tuple[str, str]]]:
        return [[("listener", shown.listener.name), ("direction", shown.listener.direction)] for shown in self._listeners]


def _rules(work: bool | None) -> list[Family]:
    """Where nobody can tell, there is no figure."""
    text = "1 while the rules are those of the configuration"
    return [] if work is None else [Family("relay_rules_ok", "gauge", text, [Sample(work)])]


def _written(address: Address | None) -> str | None:
    """1.2.3.4:80, [::1]:80; null when it is not known."""
    return None if address is None else str(Endpoint(*address))


def _milliseconds(nanoseconds: int) -> float:
    return round(nanoseconds / 1_000_000, 3)
