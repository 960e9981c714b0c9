"""The first bytes of each direction, in hex and as text, in a file: what does this protocol look like?

    use = "relaycore.elements.first_bytes:FirstBytes"

The relay never logs payloads; this does, into the one file that `file` names, which only its owner can read.

Owns: copies of the first `count` bytes of a direction until they are written. Who may touch it: the chain.
Never here: a byte held back or changed; a flow kept for longer than until both directions are written.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from relaycore.element import RELEASE, Answer, Element, Flow, Options
from relaycore.elements.private_file import PrivateFile

PER_LINE = 16
WORDS = ("request", "response")


class Notes(NamedTuple):
    """Of one load."""

    most: int
    file: PrivateFile
    now: Callable[[], float] = time.time


class FirstBytes(Element):
    """Writes them down, and releases the flow."""

    @classmethod
    def configure(cls, options: Options) -> Notes:
        """How many, and where to."""
        count = options.integer("count", 1, 1 << 16, 64)
        return Notes(count, PrivateFile(options, "file", options.size("largest", 16 << 20)))

    def __init__(self, flow: Flow, shared: Any) -> None:
        super().__init__(flow, shared)
        self._first: list[bytes | None] = [b"", b""]  # None: written

    def request(self, data: bytes) -> Answer:
        """A copy is kept."""
        return self._take(0, data)

    def response(self, data: bytes) -> Answer:
        """The same."""
        return self._take(1, data)

    def request_ended(self, held: bytes) -> Answer:
        """There are no more."""
        return self._write(0) or held

    def response_ended(self, held: bytes) -> Answer:
        """The same."""
        return self._write(1) or held

    def closed(self, reason: str) -> None:
        """There are no more of either."""
        self._write(0)
        self._write(1)

    def _take(self, half: int, data: bytes) -> Answer:
        first = self._first[half]
        if first is None:
            return data
        self._first[half] = first = first + data[: self.shared.most - len(first)]
        return (self._write(half) or data) if len(first) == self.shared.most else data

    def _write(self, half: int) -> Answer | None:
        """RELEASE once both are written."""
        first = self._first[half]
        if first is not None:
            self._first[half] = None
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.shared.now()))
            (client, port), (origin, origin_port) = self.flow.client, self.flow.origin
            ends = f"[{client}]:{port} to [{origin}]:{origin_port}"
            title = f"{at} flow {self.flow.id} {self.flow.listener} {ends} {WORDS[half]}, {len(first)} bytes\n"
            self.shared.file.append((title + dump(first)).encode())
        return RELEASE if self._first == [None, None] else None


def dump(data: bytes) -> str:
    """A line for every 16 bytes."""
    lines = []
    for at in range(0, len(data), PER_LINE):
        part = data[at : at + PER_LINE]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"  {at:06x}  {part.hex(' '):<47}  {text}\n")
    return "".join(lines)
