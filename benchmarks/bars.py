"""What is to be reached: a table of bars, each for a figure of ours at a few workloads.

Owns: the bars; which peers are ours; which figures are the better the higher they are.
Never here: what was measured, a verdict (statistics).
"""

from typing import NamedTuple

OURS = "relay-sidecar"
OURS_2 = "relay-sidecar-2"
OURS_LOG = "relay-sidecar-log"
OURS_ELEMENT = "relay-sidecar-element"
OURS_RELEASED = "relay-sidecar-released"
OURS_COMPILED = "relay-sidecar-compiled"
OURS_COPY = "relay-sidecar-copy"
ASYNCIO_ELEMENT = "asyncio-element"
ENGINE = "engine"
HIGHER_IS_BETTER = {"gbit_s", "stream_gbit_s", "requests_s", "connections_s"}  # all else is a cost: CPU, time, memory


def is_ours(peer: str) -> bool:
    """Whether this is our code: the relay with any number of workers, its log or an element, or the engine alone."""
    return peer == ENGINE or peer.startswith(OURS)


class Bar(NamedTuple):
    """What is to be reached: a ratio to the best of the peers, or without any a value."""

    title: str
    workloads: tuple[str, ...]
    figure: str
    peers: tuple[str, ...]
    bar: float
    stretch: float | None = None
    ours: str = OURS

    @property
    def higher(self) -> bool:
        return self.figure in HIGHER_IS_BETTER


BULK = ("bulk-down-1", "bulk-down-16", "bulk-up-1", "bulk-up-16")
BULK_1 = ("bulk-down-1", "bulk-up-1")
PINGPONG_32 = ("pingpong-64-32", "pingpong-1024-32", "pingpong-16384-32")
_BEST = ("nginx", "haproxy", "haproxy-tuned")
_ELEMENT = "a Python element that passes all"
_TO_ASYNCIO = f"{_ELEMENT}, to asyncio with the same"
_RELEASED = "an element that releases at once"
_TWO = "two workers, to HAProxy with two threads"

BARS = (
    Bar("bulk: Gbit/s", BULK, "gbit_s", ("haproxy-tuned",), 1.0, 1.15),
    Bar("bulk: Gbit/s, both with their default configuration", BULK, "gbit_s", ("haproxy",), 2.8, 3.2),
    Bar("bulk: CPU per GB", BULK, "cpu_s_per_gb", ("haproxy-tuned",), 1.1, 0.9),
    Bar("ping-pong, 32 connections: CPU per request", PINGPONG_32, "cpu_us_per_request", _BEST, 0.97, 0.88),
    Bar("ping-pong, 256 connections: requests/s", ("pingpong-64-256",), "requests_s", _BEST, 1.1, 1.25),
    Bar("connect, request, close, 64 at a time: CPU per connection", ("churn-64",), "cpu_us_per_connection", _BEST, 1.0, 0.85),
    Bar("ping-pong beside a bulk stream: median time", ("beside-bulk",), "p50_us", ("haproxy-tuned",), 0.75, 0.5),
    Bar("idle connection: the relay's memory, B", ("idle-9000",), "rss_bytes_per_connection", (), 400, 250),
    # The peer `engine` is the loop without Python around it.
    Bar("the Python layer's price: CPU per request", PINGPONG_32, "cpu_us_per_request", (ENGINE,), 1.0),
    Bar("the Python layer's price: CPU per connection", ("churn-64",), "cpu_us_per_connection", (ENGINE,), 1.0),
    Bar("a record for each connection: connections/s", ("churn-64",), "connections_s", (OURS,), 0.97, ours=OURS_LOG),
    Bar("start of `relay-sidecar` to listening, ms", ("start",), "start_ms", (), 150, 80),
    Bar("memory of the whole process, idle, two workers, MB", ("process",), "rss_mb", (), 20, 14, OURS_2),
    Bar(f"{_ELEMENT}: Gbit/s", BULK_1, "gbit_s", (), 4, ours=OURS_ELEMENT),
    Bar(f"{_ELEMENT}: requests/s", ("pingpong-64-32",), "requests_s", (), 40_000, ours=OURS_ELEMENT),
    Bar(f"{_TO_ASYNCIO}: Gbit/s", BULK_1, "gbit_s", (ASYNCIO_ELEMENT,), 2.0, ours=OURS_ELEMENT),
    Bar(f"{_TO_ASYNCIO}: requests/s", ("pingpong-64-32",), "requests_s", (ASYNCIO_ELEMENT,), 2.0, ours=OURS_ELEMENT),
    # Where client and server have too few CPUs beside the relay, they are the limit of the row above, and not of this one.
    Bar(
        f"{_TO_ASYNCIO}: CPU per request", ("pingpong-64-32",), "cpu_us_per_request", (ASYNCIO_ELEMENT,), 0.5, ours=OURS_ELEMENT
    ),
    Bar("a compiled element, to copying without pipes: Gbit/s", BULK_1, "gbit_s", (OURS_COPY,), 0.7, ours=OURS_COMPILED),
    Bar(f"{_RELEASED}: Gbit/s", BULK_1, "gbit_s", (OURS,), 0.95, ours=OURS_RELEASED),
    Bar(f"{_RELEASED}: connections/s", ("churn-64",), "connections_s", (OURS,), 0.5, ours=OURS_RELEASED),
    Bar(f"{_TWO}: Gbit/s", BULK, "gbit_s", ("haproxy-2",), 1.0, 1.1, OURS_2),
    Bar(f"{_TWO}: requests/s", (*PINGPONG_32, "pingpong-64-256"), "requests_s", ("haproxy-2",), 1.0, 1.1, OURS_2),
    Bar(f"{_TWO}: connections/s", ("churn-64",), "connections_s", ("haproxy-2",), 1.0, 1.1, OURS_2),
)
