"""What an element may answer instead of plain bytes.

Owns: the words that elements and the chain share. Never here: what they do to a flow (_chain.pyx).
"""

from enum import Enum
from typing import NamedTuple

LONGEST_SECONDS = 86400


class Verdict(Enum):
    """Answers that are no bytes."""

    HOLD = "hold"  # keep these bytes for me, and give them again in front of the next ones
    RELEASE = "release"  # pass them on, and never call me again for this flow: its bytes are spliced from here on
    REJECT = "reject"  # reset the connection, on both sides
    CLOSE = "close"  # end it politely, on both sides
    DROP = "drop"  # of a message (relaycore.messages): leave it out


class Release(bytes):
    """`return Release(data)`: pass these bytes on, then as RELEASE."""


class Reject(bytes):
    """`return Reject(data)`: deliver these bytes, then as REJECT."""


class Close(bytes):
    """`return Close(data)`: deliver these bytes, then as CLOSE."""


class After(bytes):
    """`return After(data, seconds)`: pass these bytes on so much later. What comes behind them waits; nobody else does."""

    seconds: float

    def __new__(cls, data: bytes, seconds: float) -> "After":
        if not 0 <= seconds <= LONGEST_SECONDS:
            raise ValueError(f"After: expected 0 to {LONGEST_SECONDS} seconds, found {seconds}")
        answer = super().__new__(cls, data)
        answer.seconds = float(seconds)
        return answer


class Open(NamedTuple):
    """An answer to the opening of a flow, where None says too little."""

    origin: tuple[str, int] | None = None  # dial this numeric address instead
    first: bytes = b""  # what the origin gets before the client's first byte
    release: bool = False  # never call me again for this flow
