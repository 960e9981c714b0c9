"""Drive an element with bytes, without a network: what it passes on, when, and to whom.

    from relaycore.testing import Drive

    def test_shouting():
        drive = Drive(Shout)
        assert drive.request(b"hello") == b"HELLO"

The chain is the one that the relay runs; only the sockets are missing.

Owns: Drive. Who may touch it: tests of elements. Never here: a thread, a socket, a clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from relaycore._driver import Driver
from relaycore._use import Flow, Use
from relaycore.element import Element
from relaycore.faults import Faults
from relaycore.options import Options, configured

Part = type[Element] | tuple[type[Element], Mapping[str, Any]]


class Drive:
    """One flow through one element, or through a chain of them: (Shout, (Firewall, {"deny": ["10.0.0.0/8"]}))."""

    def __init__(
        self,
        *parts: Part,
        options: Mapping[str, Any] | None = None,
        client: tuple[str, int] = ("192.0.2.1", 40000),
        origin: tuple[str, int] = ("198.51.100.1", 80),
        listener: str = "outbound",
        on_error: str = "close",
        budget: float = 0.005,
        max_held: int = 1 << 20,
        max_output: int = 4 << 20,
        shared: Sequence[Any] | None = None,
    ) -> None:
        self.faults = Faults()
        uses = []
        self.shared = []
        for number, part in enumerate(parts):
            kind, given = part if isinstance(part, tuple) else (part, options or {})
            made = configured(kind, Options(given)) if shared is None else shared[number]
            self.shared.append(made)
            uses.append(
                Use(
                    number,
                    kind.__name__,
                    kind,
                    made,
                    self.faults,
                    passes_errors=on_error == "pass",
                    budget_ns=int(budget * 1e9),
                    max_held=max_held,
                    max_output=max_output,
                )
            )
        self.flow = Flow(1, listener, client, origin)
        self._driver = Driver(uses, self.flow)
        self.first = self._driver.opened() if self.outcome == "on" else b""

    def request(self, data: bytes = b"", *, ends: bool = False) -> bytes:
        """Bytes from the client, and whether they are its last: what the origin gets of them."""
        return self._pass(0, data, ends)

    def response(self, data: bytes = b"", *, ends: bool = False) -> bytes:
        """Bytes from the origin: what the client gets of them."""
        return self._pass(1, data, ends)

    def close(self, reason: str = "finished") -> None:
        """The flow is over."""
        self._driver.closed(reason)

    def sent_to_origin(self) -> bytes:
        """What elements have sent on their own, or had held when they were released, since the last look."""
        return self._others(0)

    def sent_to_client(self) -> bytes:
        """The same towards the client."""
        return self._others(1)

    @property
    def outcome(self) -> str:
        """on, rejected, closed, failed."""
        return self._driver.outcome

    @property
    def decided_by(self) -> str | None:
        """The name of the class that rejected, closed or failed the flow."""
        return self._driver.by

    @property
    def delay(self) -> float:
        """Seconds that the bytes of the last answer wait."""
        return self._driver.delay

    @property
    def released(self) -> bool:
        """Whether no element hears anything of this flow any more."""
        return not self._driver.hears(0) and not self._driver.hears(1)

    @property
    def labels(self) -> Mapping[str, str]:
        """What elements say of the flow in its access record."""
        return self.flow.labels

    @property
    def errors(self) -> list[str]:
        """What elements failed with: tracebacks."""
        return [fault.text for fault in self.faults.known()]

    def _pass(self, half: int, data: bytes, ends: bool) -> bytes:
        if not data and not ends:
            raise ValueError("an element is never given nothing: expected bytes, or ends=True")
        if self.outcome != "on":
            raise ValueError(f"the flow was {self.outcome} by {self.decided_by}: nothing more comes of it")
        return self._driver.passed_on(half, data, ends)

    def _others(self, half: int) -> bytes:
        held = self._driver.passed_on(half, b"", False) if self._driver.unsettled(half) else b""
        return held + self._driver.sent(half)
