"""What an element is: a class whose objects see the bytes of one flow each, and what they may answer.

    from relaycore.element import REJECT, Element

    class NoSecrets(Element):
        def request(self, data):
            return REJECT if b"password=" in data else data

Owns: the base class, the answers, the errors of options. The chain that calls them is _chain.pyx.
Who may touch it: everybody; these names hold.
Never here: an element that does something (relaycore.elements has those).
"""

from typing import Any

from relaycore._use import Flow
from relaycore.answers import After, Close, Open, Reject, Release, Verdict
from relaycore.options import OptionError, Options

__all__ = [
    "CLOSE",
    "DROP",
    "HOLD",
    "REJECT",
    "RELEASE",
    "After",
    "Answer",
    "Close",
    "Element",
    "Flow",
    "Open",
    "OptionError",
    "Options",
    "Reject",
    "Release",
    "Verdict",
]

HOLD = Verdict.HOLD
RELEASE = Verdict.RELEASE
REJECT = Verdict.REJECT
CLOSE = Verdict.CLOSE
DROP = Verdict.DROP

Answer = bytes | bytearray | memoryview | Verdict


class Element:
    """One object for each flow, alive as long as the flow or until it is released. One thread at a time calls its methods.

    Override what you need: an element is not asked about a direction whose method it does not have. `opened` and `request` are
    called in the order of the configuration, `response` in reverse. A call that takes longer than the element's `budget` delays
    the other flows of its worker, never those without elements.
    """

    compiled: object = None
    """A capsule with functions that see the bytes instead of the methods below, without the GIL: docs/elements-compiled.md."""

    may_drop = False
    """Whether `request` and `response` may answer no bytes at all: for elements that know where messages begin and end."""

    def __init__(self, flow: Flow, shared: Any) -> None:
        self.flow = flow
        self.shared = shared

    @classmethod
    def configure(cls, options: Options) -> Any:
        """Once for each load: take the options. What is returned is `shared` by the flows that begin from now on.

        An option that is not asked for is refused. OptionError for what does not fit.
        """
        return None

    def opened(self) -> Verdict | Open | None:
        """Somebody wants to connect; nothing is dialled yet. None: go on. REJECT: refuse. RELEASE: without me. Or an Open."""
        return None

    def request(self, data: bytes) -> Answer:
        """Bytes from the client: as many as came, never none, without regard to where messages begin or end."""
        return data

    def response(self, data: bytes) -> Answer:
        """Bytes from the origin."""
        return data

    def request_ended(self, held: bytes) -> Answer:
        """The client sends no more. `held` is what HOLD has kept; the answer is the last that the origin gets."""
        return held

    def response_ended(self, held: bytes) -> Answer:
        """The origin sends no more."""
        return held

    def closed(self, reason: str) -> None:
        """The flow is over, for this reason (see the access log). Not called after a release."""
