"""What the engine offers to Python. Everything that moves bytes stays below this line and never holds the GIL."""

from collections.abc import Sequence
from typing import Final

from typing_extensions import disjoint_base

from relaycore._facts import Address, Form, Histogram, LiveFlow, Record, Settings

# The vocabulary, in the order of the engine's own codes: NAMES[code] is the word that logs and metrics use.
DIRECTIONS: Final[tuple[str, ...]]  # outbound, inbound, gateway
CAPTURES: Final[tuple[str, ...]]  # redirect, tproxy, none
LANES: Final[tuple[str, ...]]  # copy, splice, element
PHASES: Final[tuple[str, ...]]  # dialling, relaying, closed
REASONS: Final[tuple[str, ...]]  # finished, refused, ... in DESIGN's order
COUNTERS: Final[tuple[str, ...]]  # names of Engine.counters(), in order
HISTOGRAMS: Final[tuple[str, ...]]  # names of Engine.histograms()
BUILD: Final[str]  # release | debug | asan | ubsan

@disjoint_base
class Engine:
    """Workers, their listeners and their flows. One per process; made, started, drained and joined by one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        workers: int,
        max_pipes: int = 32,
        max_pending_bytes: int = 67108864,
        table_flows: int = 0,
        turn_bytes: int = 524288,
        copy_bytes: int = 65536,
        pipe_bytes: int = 262144,
    ) -> None:
        """Allocate; nothing runs yet.

        max_pipes and max_pending_bytes (what COPY keeps for blocked sinks) are for all workers together. table_flows
        (0: max_flows) is the most that later settings can allow. The last three are for tests and experiments: what a flow
        may move per turn, a COPY read, a pipe. Raises ValueError for what is out of range, OSError where the kernel says no.
        """

    def add_listener(
        self,
        fds: Sequence[int],
        *,
        direction: int,
        capture: int,
        port: int,
        target: Address | None = None,
        preserve_client: bool = False,
    ) -> int:
        """Hand over listening sockets (the engine owns and closes them from now on); before start() only.

        One descriptor per worker, or a multiple of it (IPv4 and IPv6): fds[i] goes to worker i % workers. When there are
        fewer than workers (LISTEN_FDS), worker i % workers alone accepts from fds[i]. Returns the listener's number, from 0.
        """

    def start(self) -> None:
        """Start the worker threads, all signals blocked in them."""

    def configure(self, settings: Settings) -> None:
        """Post new settings to every worker; they take them between two batches. Returns at once."""

    def drain(self) -> None:
        """Accept what is queued, close the listeners, finish the flows there are; workers end when they have none."""

    def stop(self) -> None:
        """Reset every flow that is left (reason drained) and end the workers; also good after drain()."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for all workers to end (GIL released); True when they have. Records can still be read afterwards."""

    @property
    def running(self) -> int:
        """Workers whose thread has not ended."""

    @property
    def live(self) -> int:
        """Flows that live now, over all workers. A relaxed read."""

    def wakeup_fileno(self) -> int:
        """An eventfd that becomes readable when records() has something, or a worker has ended. records() clears it.

        After records() returned, it fires again at the first new record: sleep some milliseconds between two calls, and each
        wake-up finds a batch.
        """

    def records(self, limit: int = 4096) -> list[Record]:
        """Take finished flows out of the rings, oldest first within a worker. At most limit; call until it returns fewer."""

    def lines(self, forms: Sequence[Form], to_wall_ns: int, limit: int = 4096) -> list[bytes]:
        """The same as lines of a log, each by its listener's form. What is added to CLOCK_MONOTONIC gives the wall clock.

        A line costs a tenth of what a Record does that Python has to spell.
        """

    def counters(self) -> dict[str, int]:
        """Each of COUNTERS, summed over the workers."""

    def reasons(self) -> list[dict[str, int]]:
        """Per listener: finished flows by reason."""

    def opened(self) -> list[int]:
        """Per listener: flows opened (accepted and counted)."""

    def bytes(self) -> list[tuple[int, int]]:
        """Per listener: bytes (sent, received), of live flows too."""

    def dial_errors(self) -> dict[str, int]:
        """Failed dials by errno name, for the errnos that occurred."""

    def histograms(self) -> list[dict[str, Histogram]]:
        """Per listener: each of HISTOGRAMS (connect_seconds, duration_seconds, flow_bytes)."""

    def flows(self, limit: int = 0, timeout: float = 1.0) -> list[LiveFlow]:
        """The live flows (0: all), each worker's as they stood at one moment between two batches.

        Raises TimeoutError when a worker does not answer in time.
        """

# Linux privileges and namespaces: what the standard library lacks. Per thread in the kernel; call before start().
def capabilities() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) as bit masks; bit 13 is CAP_NET_RAW, bit 12 CAP_NET_ADMIN."""

def set_capabilities(effective: int, permitted: int, inheritable: int) -> None: ...
def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2); raises OSError."""

def setns(fd: int, kind: int) -> None:
    """setns(2): this thread enters the namespace of a descriptor; raises OSError."""

def unshare(flags: int) -> None:
    """unshare(2): this thread gets namespaces of its own; raises OSError."""
