"""Bad networks on purpose: what becomes of an application when its peers are slow, narrow or gone.

    [[element]]
    name = "slow"
    use = "relaycore.elements.faults:Delay"
    options = { delay = "200ms", direction = "responses", share = 10, seed = 1 }

Each takes a direction (both, requests, responses), a share of the flows in percent, and a seed that makes the draw repeatable:
the same flows, counted from the load.

Owns: which flows are drawn, and when their bytes are due. Who may touch it: flows, on any thread.
Never here: a sleep; a byte that is changed; a flow that was not drawn.
"""

import random
import time
from collections.abc import Callable

from relaycore.element import RELEASE, After, Answer, Element, Flow, OptionError, Options, Reject, Verdict

DIRECTIONS = ("both", "requests", "responses")
MOST_BYTES = 2**62


class Plan:
    """What the elements of one load share."""

    def __init__(self, options: Options, figure: float) -> None:
        self.figure = figure  # seconds, bytes per second, bytes: what the element is about
        direction = options.choice("direction", DIRECTIONS, "both")
        self.requests = direction != "responses"
        self.responses = direction != "requests"
        self.clock: Callable[[], float] = time.monotonic
        self._share = options.integer("share", 1, 100, 100)
        self._draws = random.Random(options.integer("seed", 0, 2**63 - 1, None))  # noqa: S311 - nobody gains by a guess

    def drawn(self) -> bool:
        """Whether the next flow is one of the share."""
        return self._draws.random() * 100 < self._share


class Fault(Element):
    """A fault in the directions of its plan, if the flow is drawn."""

    shared: Plan

    def opened(self) -> Verdict | None:
        """See Element."""
        return None if self.shared.drawn() else RELEASE

    def request(self, data: bytes) -> Answer:
        """See Element."""
        return self.spoilt(0, data) if self.shared.requests else data

    def response(self, data: bytes) -> Answer:
        """See Element."""
        return self.spoilt(1, data) if self.shared.responses else data

    def spoilt(self, half: int, data: bytes) -> Answer:
        """What becomes of bytes from the client (0) or from the origin (1)."""
        return data


class Delay(Fault):
    """Everything comes `delay` later."""

    @classmethod
    def configure(cls, options: Options) -> Plan:
        """See Plan."""
        return Plan(options, options.seconds("delay"))

    def spoilt(self, half: int, data: bytes) -> Answer:
        """See Fault."""
        return After(data, self.shared.figure)


class Throttle(Fault):
    """Not more than `rate` in a second, for each flow and direction."""

    def __init__(self, flow: Flow, shared: Plan) -> None:
        super().__init__(flow, shared)
        self._due = [0.0, 0.0]  # when the last byte of each direction has gone through

    @classmethod
    def configure(cls, options: Options) -> Plan:
        """See Plan."""
        rate = options.size("rate")
        if not rate:
            raise OptionError("rate", "at least one byte per second", "0")
        return Plan(options, rate)

    def spoilt(self, half: int, data: bytes) -> Answer:
        """See Fault. Bytes come when the last of them would have gone through a line of that rate."""
        now = self.shared.clock()
        self._due[half] = max(now, self._due[half]) + len(data) / self.shared.figure
        return After(data, self._due[half] - now)


class ResetAfter(Fault):
    """So many bytes are delivered, of both directions together if it is both; then the connection is reset."""

    def __init__(self, flow: Flow, shared: Plan) -> None:
        super().__init__(flow, shared)
        self._left = int(shared.figure)

    @classmethod
    def configure(cls, options: Options) -> Plan:
        """See Plan."""
        return Plan(options, options.integer("bytes", 0, MOST_BYTES))

    def spoilt(self, half: int, data: bytes) -> Answer:
        """See Fault."""
        if len(data) >= self._left:
            return Reject(data[: self._left])
        self._left -= len(data)
        return data
