"""What chains are made of. What users need of it, relaycore.element shows."""

from typing import Any, Final

from typing_extensions import disjoint_base

from relaycore.element import Element
from relaycore.faults import Faults

METHODS: Final[tuple[str, ...]]
TALLIES: Final[tuple[str, ...]]

class Stuck(Exception):
    """Raised in a call that has been running for a second."""

class BadAnswer(TypeError):
    """An element answered with something that cannot be passed on."""

def check_compiled(kind: type[Element]) -> None:
    """TypeError for a class whose functions cannot be called."""

@disjoint_base
class Use:
    """One element of a listener as it was loaded, for all flows that begin until it is loaded again."""

    number: int
    name: str
    kind: type[Element]
    shared: Any
    faults: Faults | None
    passes_errors: bool
    budget_ns: int
    max_held: int
    max_output: int
    may_drop: bool
    hears_opened: bool
    hears_request: bool
    hears_response: bool
    hears_closed: bool

    def __init__(
        self,
        number: int,
        name: str,
        kind: type[Element],
        shared: Any,
        faults: Faults | None,
        *,
        passes_errors: bool,
        budget_ns: int,
        max_held: int,
        max_output: int,
    ) -> None: ...

@disjoint_base
class Flow:
    """What an element is told of its flow."""

    id: int
    listener: str
    labels: dict[str, str]

    def __init__(
        self, flow_id: int = 1, listener: str = "", client: tuple[str, int] = ..., origin: tuple[str, int] = ...
    ) -> None: ...
    @property
    def client(self) -> tuple[str, int]:
        """Who has connected, as address and port."""

    @property
    def origin(self) -> tuple[str, int]:
        """Where the flow goes: what the client meant, or what an element chose."""

    def label(self, name: str, value: str) -> None:
        """Say something of the flow in its access record; at most 8 labels of 128 characters."""

    def to_client(self, data: bytes) -> None:
        """Send the client something on your own, in front of what this call passes on. Other elements do not see it.

        BufferError where more than 4 MiB wait for a client that does not take them.
        """

    def to_origin(self, data: bytes) -> None:
        """The same towards the origin."""

@disjoint_base
class Books:
    """What is counted of the elements on one worker."""

    def tally(self, number: int) -> tuple[int, ...]: ...
