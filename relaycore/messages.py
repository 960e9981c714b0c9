"""Elements that see whole messages: lines, length-prefixed frames, whatever a delimiter ends.

    from relaycore.element import DROP
    from relaycore.messages import Lines, Messages

    class NoFlush(Messages):
        requests = Lines()
        def request_message(self, message):
            return DROP if message.strip().upper() == b"FLUSHALL" else message

A message that is dropped, changed or added leaves the stream whole, because the framing writes what stands around it.

Owns: framings, and the memory of a message that has not come whole. Never here: a protocol.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from relaycore.answers import Close, Reject, Release, Verdict
from relaycore.element import Answer, Element, Flow

LARGEST = 1 << 20


class TooLarge(ValueError):
    """A message is larger than its framing allows; or what should say how large it is cannot be that."""


class Framing(Protocol):
    """How a stream is cut into messages, and put together again."""

    def split(self, stream: bytes) -> tuple[list[bytes], bytes]:
        """The messages that are there whole, and what is left of the stream."""

    def join(self, message: bytes) -> bytes:
        """A message as the stream has it."""


class Delimited:
    """Messages that end with a delimiter. They are given without it."""

    def __init__(self, delimiter: bytes, largest: int = LARGEST) -> None:
        if not delimiter:
            raise ValueError("Delimited: expected a delimiter of at least one byte")
        self.delimiter = delimiter
        self.largest = largest

    def split(self, stream: bytes) -> tuple[list[bytes], bytes]:
        """See Framing."""
        *messages, rest = stream.split(self.delimiter)
        if max(map(len, (*messages, rest))) > self.largest:
            raise TooLarge(f"a message of more than {self.largest} bytes without {self.delimiter!r}")
        return messages, rest

    def join(self, message: bytes) -> bytes:
        """See Framing."""
        return message + self.delimiter


class Lines(Delimited):
    """Lines. They are given without the newline; a carriage return before it belongs to the line."""

    def __init__(self, largest: int = LARGEST) -> None:
        super().__init__(b"\n", largest)


class Lengths:
    """Messages behind their length: `size` bytes of a number, big-endian unless `order` is "little"."""

    def __init__(self, size: int = 4, order: str = "big", largest: int = LARGEST, *, counts_itself: bool = False) -> None:
        if size not in range(1, 9) or order not in ("big", "little"):
            raise ValueError(f'Lengths: expected a size of 1 to 8 and "big" or "little", found {size} and {order!r}')
        self.size = size
        self.order: Any = order
        self.largest = largest
        self.extra = size if counts_itself else 0

    def split(self, stream: bytes) -> tuple[list[bytes], bytes]:
        """See Framing."""
        messages = []
        at = 0
        while len(stream) - at >= self.size:
            length = int.from_bytes(stream[at : at + self.size], self.order) - self.extra
            if not 0 <= length <= self.largest:
                raise TooLarge(f"a message of {length} bytes: expected 0 to {self.largest}")
            end = at + self.size + length
            if len(stream) < end:
                break
            messages.append(stream[at + self.size : end])
            at = end
        return messages, stream[at:]

    def join(self, message: bytes) -> bytes:
        """See Framing. OverflowError when the length cannot be written."""
        return (len(message) + self.extra).to_bytes(self.size, self.order) + message


class Messages(Element):
    """An element that is given messages. A direction without a framing passes as it is, and costs nothing."""

    may_drop = True

    requests: Framing | None = None
    responses: Framing | None = None

    def __init__(self, flow: Flow, shared: Any) -> None:
        super().__init__(flow, shared)
        self._rest = [b"", b""]

    def __init_subclass__(cls) -> None:
        # A direction that has no framing is not asked for at all.
        if cls.requests is None:
            cls.request, cls.request_ended = Element.request, Element.request_ended  # type: ignore[method-assign]
        if cls.responses is None:
            cls.response, cls.response_ended = Element.response, Element.response_ended  # type: ignore[method-assign]

    def request_message(self, message: bytes) -> bytes | Verdict | Iterable[bytes]:
        """A message from the client: answer with it, with another one, with several, DROP, RELEASE, REJECT or CLOSE."""
        return message

    def response_message(self, message: bytes) -> bytes | Verdict | Iterable[bytes]:
        """A message from the origin."""
        return message

    def request(self, data: bytes) -> Answer:
        """See Element."""
        return self._pass(0, self.requests, self.request_message, data)

    def response(self, data: bytes) -> Answer:
        """See Element."""
        return self._pass(1, self.responses, self.response_message, data)

    def request_ended(self, held: bytes) -> Answer:
        """What came of a last message that is not whole goes on as it is."""
        return held + self._rest[0]

    def response_ended(self, held: bytes) -> Answer:
        """See request_ended()."""
        return held + self._rest[1]

    def _pass(self, half: int, framing: Framing | None, ask: Any, data: bytes) -> Answer:
        if framing is None:
            return data
        messages, self._rest[half] = framing.split(self._rest[half] + data)
        out: list[bytes] = []
        for number, message in enumerate(messages):
            answer = ask(message)
            if isinstance(answer, bytes):
                out.append(framing.join(answer))
            elif answer is Verdict.RELEASE:
                out += [framing.join(rest) for rest in messages[number:]]
                return Release(b"".join(out) + self._rest[half])
            elif answer is Verdict.REJECT:
                return Reject(b"".join(out))
            elif answer is Verdict.CLOSE:
                return Close(b"".join(out))
            elif isinstance(answer, (list, tuple)):
                out += map(framing.join, answer)
            elif answer is not Verdict.DROP:
                raise TypeError(f"a message was answered with {answer!r}: expected bytes, some of them, or a Verdict but HOLD")
        return b"".join(out)
