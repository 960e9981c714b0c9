"""Compiled elements without a network: what their answers mean, alone and beside Python's."""

import struct
from collections.abc import Mapping
from typing import Any

import pytest

from relaycore import _probe_elements as probe
from relaycore._use import TALLIES
from relaycore.compiled import get_include
from relaycore.element import HOLD, RELEASE, Answer, Element, Options, Verdict
from relaycore.loading import LoadError, load
from relaycore.testing import Drive


class Words(Element):
    compiled = probe.words


class Double(Element):
    compiled = probe.doubles


class Halve(Element):
    compiled = probe.halves
    may_drop = True


class Tag(Element):
    compiled = probe.tags

    @classmethod
    def configure(cls, options: Options) -> Any:
        return probe.shared_of(options.text("mark"))


class TagEnds(Tag):
    compiled = probe.tags_ends


class Opening(Tag):
    compiled = probe.opening


class Slow(Element):
    compiled = probe.slow


class PyTag(Element):
    @classmethod
    def configure(cls, options: Options) -> Any:
        return options.text("mark").encode()

    def request(self, data: bytes) -> Answer:
        return data + bytes(self.shared)

    def response(self, data: bytes) -> Answer:
        return data + bytes(self.shared)


class PyHold(Element):
    """Holds requests, and is released by a response."""

    def request(self, data: bytes) -> Answer:
        return HOLD

    def response(self, data: bytes) -> Answer:
        return RELEASE


def tally(drive: Drive, number: int = 0) -> Mapping[str, int]:
    return dict(zip(TALLIES, drive._driver.tally(number), strict=True))


def mark(word: str) -> dict[str, str]:
    return {"mark": word}


def test_bytes_pass_and_are_counted() -> None:
    """An operator could not tell what a compiled element costs, or whether it is called at all."""
    drive = Drive(Words)
    assert drive.request(b"hello") == b"hello"
    assert drive.response(b"reject") == b"reject"
    found = tally(drive)
    assert (found["calls"], found["bytes_in"], found["bytes_out"]) == (2, 11, 11)
    assert 0 < found["time_ns"] < 10**9
    assert (found["errors"], found["releases"], found["refusals"], found["overruns"]) == (0, 0, 0, 0)


def test_bytes_grow_and_shrink() -> None:
    """The room that the header promises would not be there, or be counted wrongly."""
    data = bytes(range(256)) * 1024
    drive = Drive(Double, Halve, max_output=1 << 20)
    assert drive.request(data) == data
    assert tally(drive, 0)["bytes_out"] == 2 * len(data)
    drive = Drive(Double)
    assert drive.response(b"abc") == b"aabbcc"
    assert drive.request(data) == bytes(byte for byte in data for _ in range(2))


def test_the_state_of_a_flow_begins_with_zeros_and_is_its_own() -> None:
    """One flow would continue where another one was."""
    first = Drive(Halve)
    assert first.request(b"abc") == b"ac"
    assert first.request(b"bc") == b"c"
    assert Drive(Halve, shared=first.shared).request(b"bc") == b"b"


def test_states_of_one_flow_do_not_overlap() -> None:
    """Two elements of one flow would write into each other's memory."""
    shared = [probe.shared_of("on") for _ in range(3)]
    Drive(Opening, Opening, Halve, Opening, shared=[*shared[:2], None, shared[2]])
    assert [probe.told(each)[3] for each in shared] == [0, 0, 0]


@pytest.mark.parametrize(
    ("word", "out", "outcome"),
    [
        ("reject", b"", "rejected"),
        ("close", b"", "closed"),
        ("refuse", b"bye", "rejected"),
        ("end", b"bye", "closed"),
    ],
)
def test_a_flow_is_refused(word: str, out: bytes, outcome: str) -> None:
    """A refusal would let bytes through, or not be known as the element's."""
    drive = Drive(Words, (PyTag, mark("+")))
    assert drive.request(f"please {word}".encode()) == (out + b"+" if out else b"")
    assert (drive.outcome, drive.decided_by) == (outcome, "Words")
    assert tally(drive)["refusals"] == 1


@pytest.mark.parametrize(("word", "out"), [("release", b"please release"), ("last", b"please last!")])
def test_a_flow_is_released(word: str, out: bytes) -> None:
    """The element would be called again, or the flow stay where it is slow."""
    drive = Drive(Words)
    assert drive.request(f"please {word}".encode()) == out
    assert drive.released
    assert drive.request(b"reject") == b"reject"
    assert (tally(drive)["calls"], tally(drive)["releases"]) == (1, 1)


def test_what_is_held_comes_again_in_front() -> None:
    """A message would lose its beginning."""
    drive = Drive(Words)
    assert drive.request(b"one hold") == b""
    assert drive.request(b" two hold") == b""
    assert drive.response(b"meanwhile") == b"meanwhile"
    assert drive.request(b" three") == b"one hold two hold three"
    assert tally(drive)["bytes_in"] == tally(drive)["bytes_out"] == 32


def test_what_is_held_is_limited() -> None:
    """An element that never lets go would take the relay's memory."""
    drive = Drive(Words, max_held=20)
    assert drive.request(b"eight hold") == b""
    assert drive.request(b"more than twenty hold") == b""
    assert drive.outcome == "failed"
    assert "RELAY_HOLD of 31 bytes: max_held is 20" in drive.errors[0]


def test_what_is_held_at_the_end_goes_on() -> None:
    """The last message would be lost, and one that is wrong be let through."""
    assert Drive(Words).request(b"a hold", ends=True) == b"a hold"
    assert Drive(Words).request(b"more hold", ends=True) == b"more hold|end"
    drive = Drive(Words, (PyTag, mark("+")))
    drive.request(b"then close hold")
    assert drive.request(ends=True) == b"bye+"
    assert (drive.outcome, drive.decided_by) == ("closed", "Words")
    drive = Drive(Words)
    assert drive.request(b"then reject hold", ends=True) == b""
    assert drive.outcome == "rejected"
    drive = Drive(Words)
    assert drive.request(b"forever hold", ends=True) == b""
    assert drive.outcome == "failed"
    assert "request_ended() answered RELAY_HOLD: nothing more will come" in drive.errors[0]


def test_last_bytes_come_behind_what_went_before() -> None:
    """The end of a half would overtake its bytes."""
    drive = Drive((TagEnds, mark("a")), (TagEnds, mark("b")))
    assert drive.request(b"x", ends=True) == b"xaabb"
    drive = Drive((PyTag, mark("1")), (TagEnds, mark("a")), (PyTag, mark("2")))
    assert drive.request(b"x", ends=True) == b"x1aa2"


MISTAKES = {
    "fail": "request() answered RELAY_FAIL",
    "beyond": "more than the room it was given",
    "huge": "more than the room it was given",
    "much": "max_output is 4000",
    "nothing": "answered with no bytes",
    "nonsense": "request() answered -7: expected a number of bytes or one of the codes",
    "confused": "expected a number of bytes or one of the codes",
    "least": "answered -9223372036854775808: ",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_ends_the_flow(word: str) -> None:
    """Bytes that nobody vouches for would go on, or the engine read what is not there."""
    drive = Drive(Words, max_output=4000)
    assert drive.request(f"please {word}".encode()) == b""
    assert (drive.outcome, drive.decided_by) == ("failed", "Words")
    assert MISTAKES[word] in drive.errors[0]
    assert tally(drive)["errors"] == 1


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_passed(word: str) -> None:
    """on_error = "pass" would let half-changed bytes through, or go on calling the element."""
    drive = Drive(Words, (PyTag, mark("+")), max_output=4000, on_error="pass")
    assert drive.request(b"so hold") == b""
    data = f" please {word}".encode()
    assert drive.request(data) == b"so hold" + data + b"+"
    assert drive.request(b"reject") == b"reject+"
    assert drive.outcome == "on"
    assert MISTAKES[word] in drive.errors[0]
    assert (tally(drive)["calls"], tally(drive)["errors"]) == (2, 1)


def test_no_bytes_may_be_an_answer() -> None:
    """Elements that know where messages begin could not leave one out."""

    class Drops(Words):
        may_drop = True

    drive = Drive(Drops)
    assert drive.request(b"nothing") == b""
    assert drive.outcome == "on"


@pytest.mark.parametrize(
    ("kinds", "request_", "response"),
    [
        ("ccc", b"xabc", b"ycba"),
        ("cpc", b"xabc", b"ycba"),
        ("pcp", b"xabc", b"ycba"),
        ("ppc", b"xabc", b"ycba"),
    ],
)
def test_compiled_elements_and_pythons_keep_their_order(kinds: str, request_: bytes, response: bytes) -> None:
    """A chain would depend on what its elements are written in."""
    parts = [(Tag if kind == "c" else PyTag, mark(word)) for kind, word in zip(kinds, "abc", strict=True)]
    drive = Drive(*parts)
    assert drive.request(b"x") == request_
    assert drive.response(b"y") == response


def test_one_that_leaves_gives_what_it_held_to_those_behind_it() -> None:
    """Bytes held for one direction would wait for ever when the other one released the element."""
    drive = Drive((PyTag, mark("1")), PyHold, (Tag, mark("2")))
    assert drive.request(b"x") == b""
    assert drive.response(b"y") == b"y21"
    assert drive.sent_to_origin() == b"x12"
    drive = Drive((Tag, mark("1")), PyHold, Words)
    assert drive.request(b"x") == b""
    assert drive.response(b"y") == b"y1"
    assert drive.sent_to_origin() == b"x1"


@pytest.mark.parametrize(
    ("do", "outcome"),
    [("on", "on"), ("reject", "rejected"), ("close", "rejected"), ("leave", "on"), ("fail", "failed"), ("nonsense", "failed")],
)
def test_the_opening(do: str, outcome: str) -> None:
    """A firewall in C would not be asked, or not be heard."""
    drive = Drive((Opening, mark(do)))
    assert drive.outcome == outcome
    assert drive.released == (do == "leave")
    assert (drive.decided_by == "Opening") == (outcome != "on")
    assert bool(drive.errors) == (do in ("fail", "nonsense"))


def test_a_failed_opening_is_passed() -> None:
    """on_error = "pass" would refuse every connection."""
    drive = Drive((Opening, mark("fail")), on_error="pass")
    assert (drive.outcome, drive.released) == ("on", True)
    assert drive.request(b"x") == b"x"
    assert tally(drive)["calls"] == 1


def test_what_the_opening_is_told() -> None:
    """Addresses or names would be those of another flow, or of another family."""
    drive = Drive((Opening, mark("on")), client=("192.0.2.1", 1234), origin=("2001:db8::1", 443), listener="outbound")
    client_port, origin_port = struct.unpack_from("=HH", probe.told(drive.shared[0])[4])
    seen = probe.told(drive.shared[0])[4]
    assert (client_port, origin_port) == (1234, 443)
    assert seen[4:20] == bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    assert seen[20:36] == b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"
    assert struct.unpack_from("=Q", seen, 36) == (1,)
    assert seen[44:].rstrip(b"\0") == b"outbound"


def test_the_end_of_a_flow_is_told_unless_it_was_released() -> None:
    """An element could not give back what a flow has of it, or would do so twice."""
    drive = Drive((Opening, mark("on")))
    drive.close("reset_by_client")
    assert probe.told(drive.shared[0])[:3] == (1, 1, "reset_by_client")
    drive = Drive((Opening, mark("leave")))
    drive.close()
    assert probe.told(drive.shared[0])[1] == 0


def test_pythons_opening_and_end_stand_beside_compiled_bytes() -> None:
    """A class could not label a flow whose bytes are compiled."""
    ends = []

    class Labels(Element):
        compiled = probe.passes

        def opened(self) -> Verdict | None:
            self.flow.label("by", "python")
            return None

        def closed(self, reason: str) -> None:
            ends.append(reason)

    drive = Drive(Labels)
    assert drive.request(b"x") == b"x"
    drive.close("idle")
    assert drive.labels == {"by": "python"}
    assert ends == ["idle"]


def test_a_direction_that_is_not_heard_is_free() -> None:
    """Responses would go through a call that has nothing to say to them."""

    class Requests(Element):
        compiled = probe.passes_requests

    drive = Drive(Requests)
    assert drive.response(b"y") == b"y"
    assert (tally(drive)["calls"], drive.released) == (0, False)


def test_a_slow_call_is_counted() -> None:
    """Nobody would find the element that holds its worker up."""
    drive = Drive(Slow, budget=0.0001)
    assert drive.request(b"x") == b"x"
    assert tally(drive)["overruns"] == 1
    assert tally(drive)["time_ns"] > 100_000


@pytest.mark.parametrize(
    ("capsule", "found"),
    [
        (probe.wrong_abi, "Broken.compiled: expected abi 1, found 2"),
        (probe.wrong_halves, "expected halves of 0 to 3, and data() where they are not 0, found 4"),
        (probe.deaf, "expected halves of 0 to 3, and data() where they are not 0, found 3"),
        (probe.fat, "expected state_bytes of at most 1048576, found 1048577"),
        (probe.shared_of("x"), 'expected a capsule "relay_element.1", found <capsule object "relay_element.shared"'),
        (print, 'expected a capsule "relay_element.1", found <built-in function print>'),
    ],
)
def test_what_cannot_be_called_is_refused(capsule: object, found: str) -> None:
    """The engine would jump to an address that is no function of an element."""

    class Broken(Element):
        compiled = capsule

    with pytest.raises(TypeError, match=r"expected") as error:
        Drive(Broken)
    assert found in str(error.value)


def test_methods_that_would_never_be_called_are_refused() -> None:
    """An author would wonder why nothing happens."""

    class Both(Words):
        def response(self, data: bytes) -> Answer:
            return data

    class Twice(Opening):
        def closed(self, reason: str) -> None:
            pass

    with pytest.raises(TypeError, match=r"Both: expected no method response\(\) beside `compiled`"):
        Drive(Both)
    with pytest.raises(TypeError, match=r"Twice: expected no method closed\(\)"):
        Drive(Twice, shared=[None])


def test_check_finds_what_cannot_be_called(tmp_path: Any) -> None:
    """`relay-sidecar check` would say fine, and the relay not start."""
    (tmp_path / "broken.py").write_text(
        "from relaycore.element import Element\nclass Broken(Element):\n    compiled = 'relay_element.1'\n"
    )
    with pytest.raises(LoadError, match=r"Broken in \./broken\.py to have functions that this relay can call") as error:
        load("./broken.py:Broken", str(tmp_path))
    assert "expected a capsule \"relay_element.1\", found 'relay_element.1'" in str(error.value)


def test_the_header_is_where_it_is_said_to_be() -> None:
    """No element could be built."""
    with open(f"{get_include()}/relay_element.h") as header:
        assert "RELAY_ELEMENT_ABI 1" in header.read()
