"""Messages out of a stream: the same however it is cut, and a stream that stays whole whatever becomes of them."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore.element import DROP, HOLD, REJECT, RELEASE, Verdict
from relaycore.messages import Delimited, Framing, Lengths, Lines, Messages
from relaycore.testing import Drive

FRAMINGS: list[Framing] = [
    Lines(),
    Delimited(b"\r\n"),
    Delimited(b"aba"),
    Lengths(1),
    Lengths(4),
    Lengths(2, "little"),
    Lengths(3, counts_itself=True),
]
MESSAGES = st.lists(st.binary(max_size=20), max_size=10)
CUTS = st.lists(st.integers(0, 300), max_size=10)


def fits(framing: Framing, messages: Iterable[bytes]) -> list[bytes]:
    """Those that can be written: without the delimiter, also across the seam."""
    if isinstance(framing, Delimited):
        return [message for message in messages if framing.split(framing.join(message)) == ([message], b"")]
    return list(messages)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({0, len(stream), *(at % (len(stream) + 1) for at in cuts)})
    return [stream[a:b] for a, b in zip(ends, ends[1:], strict=False)]  # noqa: RUF007 - of one there is no pair


def kind(framing: Framing, answer: object = None) -> type[Messages]:
    """Notes what it sees, and answers with the message, or so."""

    class Seen(Messages):
        requests = framing
        seen: list[bytes]

        def request_message(self, message: bytes) -> bytes | Verdict | Iterable[bytes]:
            self.seen = [*getattr(self, "seen", []), message]
            self.flow.labels["seen"] = repr(self.seen)
            return answer(message) if callable(answer) else message  # type: ignore[no-any-return]

    return Seen


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: type(framing).__name__)
@given(MESSAGES, CUTS, st.binary(max_size=3))
def test_any_split_gives_the_same(framing: Framing, messages: list[bytes], cuts: list[int], rest: bytes) -> None:
    """A command would be seen or not as the network pleases; a last one that is not whole would be lost."""
    messages = fits(framing, messages)
    stream = b"".join(map(framing.join, messages))
    drive = Drive(kind(framing))
    out = b"".join(drive.request(part) for part in cut(stream, cuts))
    assert out == stream
    assert drive.labels.get("seen", "[]") == repr(messages)
    whole, left = framing.split(rest) if not isinstance(framing, Lengths) else ([], rest[: framing.size - 1])
    assert drive.request(left, ends=True) == left
    assert not drive.errors
    assert not whole or isinstance(framing, Delimited)


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: type(framing).__name__)
@given(MESSAGES, CUTS)
def test_dropping_leaves_the_others_whole(framing: Framing, messages: list[bytes], cuts: list[int]) -> None:
    """What is left out would take a piece of its neighbour with it."""
    messages = fits(framing, messages)
    drops = kind(framing, lambda message: DROP if len(message) % 2 else message)
    drive = Drive(drops)
    out = b"".join(drive.request(part) for part in cut(b"".join(map(framing.join, messages)), cuts))
    assert out == b"".join(framing.join(message) for message in messages if len(message) % 2 == 0)


def test_answers() -> None:
    """A message could not be changed, added, or end the flow behind those before it."""
    words = {b"two": [b"one", b"and two"], b"none": [], b"go": RELEASE, b"no": REJECT, b"bad": HOLD}
    drive = Drive(kind(Lines(), lambda message: words.get(message, message.upper())))
    assert drive.request(b"a\ntwo\nnone\nb") == b"A\none\nand two\n"
    assert drive.request(b"\ngo\nx\ny") == b"B\ngo\nx\ny"
    assert drive.released
    drive = Drive(kind(Lines(), lambda message: words.get(message, message)))
    assert (drive.request(b"a\nno\nb\n"), drive.outcome) == (b"a\n", "rejected")
    drive = Drive(kind(Lines(), lambda message: words.get(message, message)))
    assert (drive.request(b"bad\n"), drive.outcome) == (b"", "failed")


@pytest.mark.parametrize(
    ("framing", "stream"),
    [
        (Lines(largest=4), b"12345"),
        (Lines(largest=4), b"12345\n"),
        (Lengths(4, largest=4), b"\0\0\0\5"),
        (Lengths(2, counts_itself=True), b"\0\1"),
    ],
)
def test_too_large(framing: Framing, stream: bytes) -> None:
    """A client could have memory kept without end, by a message that never ends."""
    drive = Drive(kind(framing))
    drive.request(stream)
    assert drive.outcome == "failed"
    assert "TooLarge" in drive.errors[0]


def test_a_direction_without_a_framing() -> None:
    """It would go through Python for nothing."""

    class Nothing(Messages):
        pass

    assert Drive(Nothing).released
    assert Drive(kind(Lines())).response(b"half a li") == b"half a li"


@pytest.mark.parametrize("make", [lambda: Delimited(b""), lambda: Lengths(0), lambda: Lengths(9), lambda: Lengths(4, "middle")])
def test_framings_that_cannot_be(make: object) -> None:
    """One slip would be found with the first flow."""
    with pytest.raises(ValueError, match="expected"):
        make()  # type: ignore[operator]
