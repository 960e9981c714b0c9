"""What the engine offers to Python. Everything that moves bytes stays below this line and never holds the GIL."""

from collections.abc import Sequence
from typing import Final

from typing_extensions import disjoint_base

from relaycore._facts import Address, Form, Histogram, LiveFlow, Record, Settings, StuckCall
from relaycore._use import Use

BUILD: Final[str]  # release | debug | asan | ubsan

@disjoint_base
class Engine:
    """Workers, their listeners and their flows. One per process; made, started, drained and joined by one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        workers: int,
        element_workers: int = 0,
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
        name: str = "",
        elements: Sequence[Use] | None = None,
    ) -> int:
        """Hand over listening sockets (the engine owns and closes them from now on); before start() only.

        One descriptor per worker, or a multiple of it (IPv4 and IPv6): fds[i] goes to worker i % workers. When there are
        fewer than workers (LISTEN_FDS), worker i % workers alone accepts from fds[i]. Returns the listener's number, from 0.
        With elements (an empty sequence will do) its flows begin on the element workers, and the descriptors go to those.
        Elements know the listener by its name.
        """

    def start(self) -> None:
        """Start the worker threads, all signals blocked in them."""

    def use_elements(self, listener: int, elements: Sequence[Use]) -> None:
        """Flows of this listener have other elements, from the next one on. ValueError if it was added without."""

    def tallies(self, elements: int) -> list[dict[str, int]]:
        """What was counted of the elements with the numbers below that, over all workers."""

    def stuck_call(self) -> StuckCall | None:
        """Wait, without the GIL, until a call of an element has been running for a second; None: the workers have ended.

        Longer than its budget, too. Each call is told once.
        """

    def interrupt(self, call: StuckCall) -> None:
        """Have an exception raised in the call, if it still runs, at the next line of Python in it."""

    def leave_if_told_again(self, signals_fd: int, patience: float) -> None:
        """Wait, without the GIL, until the workers have ended; end the process if the main thread cannot hear its signals.

        signals_fd is the reading end of signal.set_wakeup_fd(): two signals to end that lie there unread, or one of them
        after drain(), and for so many seconds, end the process with status 1.
        """

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

        Raises TimeoutError when a worker does not answer in time. One that an element holds up is left out: `live` counts its
        flows too.
        """
