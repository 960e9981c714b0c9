"""The chain of elements against a model in plain Python: whatever elements answer, in whatever order bytes and ends come."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st

from relaycore.element import CLOSE, HOLD, REJECT, RELEASE, After, Close, Element, Reject, Release
from relaycore.testing import Drive

MAX_HELD = 12

# What an element does with the bytes of a call; the last ones are errors of its own.
ANSWERS: dict[str, Any] = {
    "pass": lambda data: data,
    "upper": bytes.upper,
    "double": lambda data: data + data,
    "cut": lambda data: data[:1],
    "hold": lambda data: HOLD,
    "release": lambda data: RELEASE,
    "last": lambda data: Release(data + b"!"),
    "reject": lambda data: REJECT,
    "refuse": lambda data: Reject(b"no"),
    "close": lambda data: CLOSE,
    "end": lambda data: Close(b"bye"),
    "later": lambda data: After(data, 0.5),
    "number": len,
    "nothing": lambda data: b"",
    "raise": lambda data: 1 // 0,
}
HARMLESS = ("pass", "upper", "double", "cut", "hold", "release", "last", "later")

words = st.one_of(st.sampled_from(HARMLESS), st.sampled_from(sorted(ANSWERS)))
scripts = st.lists(words, min_size=1, max_size=4)
events = st.tuples(st.sampled_from((0, 1)), st.binary(min_size=0, max_size=5), st.booleans()).filter(lambda e: e[1] or e[2])


@dataclass
class Model:
    """One element of the model."""

    script: Sequence[str]
    calls: int = 0
    off: bool = False
    held: dict[int, bytes] = field(default_factory=dict)

    def next(self) -> str:
        self.calls += 1
        return self.script[(self.calls - 1) % len(self.script)]


class ModelChain:
    """What a chain should do, in as few words as possible."""

    def __init__(self, scripts: Sequence[Sequence[str]], on_error: str) -> None:
        self.elements = [Model(script) for script in scripts]
        self.on_error = on_error
        self.outcome = "on"
        self.delay = 0.0

    def passed_on(self, half: int, data: bytes, ended: bool) -> bytes:
        self.delay = 0.0
        for element in self.elements[::-1] if half else self.elements:
            if element.off:
                data = element.held.pop(half, b"") + data
                continue
            if data:
                data = self.ask(element, half, element.held.pop(half, b"") + data, last=False)
            if ended and self.outcome == "on" and not element.off:
                data += self.ask(element, half, element.held.pop(half, b""), last=True)
            if self.outcome == "failed":
                return b""
            ended = ended and self.outcome == "on"
        return data

    def ask(self, element: Model, half: int, given: bytes, *, last: bool) -> bytes:
        word = element.next()
        if word == "hold" and not last and len(given) <= MAX_HELD:
            element.held[half] = given
            return b""
        out = {"pass": given, "upper": given.upper(), "double": given + given, "cut": given[:1], "later": given}.get(word)
        if word == "later":
            self.delay = 0.5
        if word in ("release", "last"):
            element.off = True
            out = given + (b"!" if word == "last" else b"")
        if word in ("reject", "refuse", "close", "end"):
            self.outcome = "rejected" if word in ("reject", "refuse") else "closed"
            return {"refuse": b"no", "end": b"bye"}.get(word, b"")
        if word == "nothing" and not given:
            out = b""
        if out is not None:
            return out
        if self.on_error == "pass":
            element.off = True
            return given
        self.outcome = "failed" if self.outcome == "on" else self.outcome
        return b""

    def unsettled(self, half: int) -> bool:
        return any(element.off and half in element.held for element in self.elements)


def scripted(script: Sequence[str]) -> type[Element]:
    class Scripted(Element):
        words: ClassVar[Sequence[str]] = script

        def __init__(self, flow: Any, shared: Any) -> None:
            super().__init__(flow, shared)
            self.calls = 0

        def request(self, data: bytes) -> Any:
            self.calls += 1
            return ANSWERS[self.words[(self.calls - 1) % len(self.words)]](data)

        response = request_ended = response_ended = request

    return Scripted


@settings(max_examples=1500, deadline=None)
@given(st.lists(scripts, min_size=1, max_size=3), st.lists(events, max_size=12), st.sampled_from(("close", "pass")))
def test_a_chain_does_what_its_model_does(
    scripts: list[list[str]], events: list[tuple[int, bytes, bool]], on_error: str
) -> None:
    """A byte that an element held, changed or added would be lost, come twice, or come in another place."""
    model = ModelChain(scripts, on_error)
    drive = Drive(*map(scripted, scripts), on_error=on_error, max_held=MAX_HELD)
    ended = [False, False]
    for half, data, ends in events:
        if ended[half] or model.outcome != "on":
            continue
        ended[half] = ends
        expected = model.passed_on(half, data, ends)
        found = (drive.response if half else drive.request)(data, ends=ends)
        assert (found, drive.outcome) == (expected, model.outcome)
        assert drive.delay == model.delay
        other = 1 - half
        flushed = model.passed_on(other, b"", False) if model.unsettled(other) else b""
        assert (drive.sent_to_client() if other else drive.sent_to_origin()) == flushed
