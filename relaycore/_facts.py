"""The facts that go between the engine and Python, as plain tuples with names.

Owns: Settings, Record, Form, LiveFlow, Histogram. Who may touch it: the engine makes and reads them, everybody may.
Never here: behaviour.
"""

from collections.abc import Sequence
from typing import NamedTuple

Address = tuple[str, int]
"""A numeric address and a port: ("1.2.3.4", 80), ("::1", 80), ("fe80::1%2", 80)."""


class Settings(NamedTuple):
    """What a running engine may be told anew; workers swap it between two batches, whole."""

    max_flows: int
    connect_timeout_ms: int  # of every time-out: 0 is never
    idle_timeout_ms: int
    half_close_timeout_ms: int
    keepalive_time_s: int  # 0: no keepalive
    keepalive_interval_s: int
    keepalive_probes: int
    mark: int  # SO_MARK of dialled sockets; 0: none
    access: bool  # push a record for each finished flow
    busy_poll_us: int  # how long a worker looks for news before it sleeps
    own_networks: Sequence[str]  # what is local in this namespace: "10.0.0.1/32", "127.0.0.0/8", "::1/128"


class Record(NamedTuple):
    """One finished flow. Times are CLOCK_MONOTONIC nanoseconds."""

    flow: int
    listener: int  # the number that add_listener() returned
    client: Address
    origin: Address | None  # None: it could not be found out
    bytes_sent: int  # client to origin, as delivered
    bytes_received: int
    started_ns: int
    ended_ns: int
    connect_ns: int  # -1: never connected
    lane: int  # index of LANES; of phase and reason likewise
    reason: int
    error: int  # the errno that decided, 0: none
    words: str  # what elements said of it: members of a JSON object, "": nothing


class Form(NamedTuple):
    """How a finished flow of one listener is spelt on a line of the log."""

    pieces: Sequence[
        bytes
    ]  # before time, flow, client, origin, sent, received, duration, connect, lane, reason, error; the end
    null: bytes  # of what never was
    quote: bytes  # around words; may be empty
    before: bytes  # what elements said, members of a JSON object, after all else; and behind it
    after: bytes


class LiveFlow(NamedTuple):
    """One flow that lives, as its worker saw it between two batches."""

    flow: int
    listener: int
    worker: int
    client: Address
    origin: Address | None
    bytes_sent: int
    bytes_received: int
    started_ns: int
    active_ns: int  # when bytes last moved
    connect_ns: int
    phase: int
    lane: int
    pending_sent: int  # taken from the client and not yet given to the origin
    pending_received: int
    half_closed: int  # bit 0: the client sent its FIN; bit 1: the origin did


class StuckCall(NamedTuple):
    """A call of an element that has been running for a second."""

    worker: int
    element: int  # its number, as in Use
    method: str
    flow: int
    number: int  # of the call
    thread: int  # as Python numbers threads
    holds_interpreter: bool  # no other Python code could run meanwhile


class Histogram(NamedTuple):
    """Cumulative counts per upper bound; the last count is that of all observations."""

    bounds: tuple[float, ...]  # seconds or bytes
    counts: tuple[int, ...]  # one more than bounds
    total: float
