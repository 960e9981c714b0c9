"""Elements while the relay runs: their errors and stuck calls told, their code loaded again, their counters shown.

Owns: the threads that watch calls, which do nothing else; the records `element_error`, `element_stuck` and `elements`.
Never here: which code is whose (elements); a flow.
"""

import sys
import threading
import traceback
from collections import deque
from collections.abc import Mapping

from relaycore import Engine, StuckCall
from sidecar.config import Config, Listener
from sidecar.errors import Problem, RelayError
from sidecar.loop import Loop
from sidecar.proxy.elements import Elements
from sidecar.report import Family, Report, Sample

TICK_SECONDS = 1.0
LAST_RESORT_SECONDS = 5.0  # as long as workers are given to end
INTERVAL_SECONDS = 0.0005  # in which an element that has bytes to look at waits for the GIL at most, mostly

COUNTERS = {
    "calls": "Calls of elements",
    "bytes_in": "Bytes that elements were given",
    "bytes_out": "Bytes that elements passed on",
    "errors": "Calls that failed",
    "overruns": "Calls that took longer than the budget",
    "releases": "Flows that elements released",
    "refusals": "Flows that elements rejected or closed",
    "stuck": "Calls that were still running after a second",
    "gil_held": "Of those, the ones that let no other Python code run",
}


class ElementsAtWork:
    """Made by the main thread, which alone calls it."""

    def __init__(self, elements: Elements, engine: Engine, listeners: list[Listener], report: Report, loop: Loop) -> None:
        self._elements = elements
        self._engine = engine
        self._listeners = listeners
        self._report = report
        self._loop = loop
        self._stuck: deque[tuple[StuckCall, str]] = deque(maxlen=64)

    def start(self, signals_fd: int) -> None:
        """Begin to watch; once the workers run."""
        sys.setswitchinterval(INTERVAL_SECONDS)
        for name, watch in (
            ("element-watch", self._watch_calls),
            ("last-resort", lambda: self._engine.leave_if_told_again(signals_fd, LAST_RESORT_SECONDS)),
        ):
            threading.Thread(target=watch, name=name, daemon=True).start()
        self._loop.call_later(TICK_SECONDS, self._tick)

    def reload(self, fresh: Config) -> list[str]:
        """Have new flows begin with the code as it is. The keys that wait for a restart; RelayError when it does not load."""
        waiting = self._elements.reload(fresh)
        self._elements.hand_over(self._engine, self._listeners)
        return waiting

    def stats(self) -> list[dict[str, object]]:
        """What was counted, by element."""
        return [
            {
                "name": name,
                **{key: value for key, value in tally.items() if key != "time_ns"},
                "time_ms": tally["time_ns"] // 1_000_000,
            }
            for name, tally in self._tallies().items()
        ]

    def families(self) -> list[Family]:
        """The same as metrics."""
        return families(self._tallies())

    def tell(self) -> None:
        """Write down what happened since the last time."""
        for fault in self._elements.faults.news():
            self._report.record(
                "error",
                "element_error",
                element=fault.element,
                method=fault.method,
                error=fault.error,
                where=fault.where or None,
                flow=fault.flow,
                count=fault.times,
                traceback=fault.text if fault.times == 1 else None,
            )
        while self._stuck:
            call, stack = self._stuck.popleft()
            self._report.record(
                "error",
                "element_stuck",
                element=self._elements.names[call.element],
                method=call.method,
                flow=call.flow,
                holds_interpreter=call.holds_interpreter,
                stack=stack,
            )

    def _tick(self) -> None:
        self.tell()
        if self._elements.watched:
            changed = self._elements.changed()
            if changed:
                self._load_again(changed)
        self._loop.call_later(TICK_SECONDS, self._tick)

    def _load_again(self, changed: list[str]) -> None:
        try:
            self.reload(self._elements.config)
        except RelayError as error:
            self._report.refuse("elements", [*error.problems, Problem("element", "code that loads", "the old code goes on")])
        else:
            self._report.record("info", "elements", changed=changed)

    def _tallies(self) -> Mapping[str, Mapping[str, int]]:
        names = self._elements.names
        return dict(zip(names, self._engine.tallies(len(names)), strict=True))

    def _watch_calls(self) -> None:
        """A thread's life: name each call that does not come back, and interrupt it where Python can."""
        while call := self._engine.stuck_call():
            self._stuck.append((call, _stack_of(call.thread)))
            self._engine.interrupt(call)


def families(tallies: Mapping[str, Mapping[str, int]]) -> list[Family]:
    """Every metric of elements; the label is a name that the configuration gave."""

    def samples(key: str, unit: float = 1) -> list[Sample]:
        return [Sample(tally[key] / unit, [("element", name)]) for name, tally in tallies.items()]

    return [
        *(Family(f"relay_element_{key}_total", "counter", text, samples(key)) for key, text in COUNTERS.items()),
        Family("relay_element_seconds_total", "counter", "Time that calls of elements took", samples("time_ns", 1e9)),
    ]


def _stack_of(thread: int) -> str:
    """Where a thread is in Python code, innermost last; "" when it is nowhere."""
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)).strip() if frame else ""
