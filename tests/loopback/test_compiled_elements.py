"""Compiled elements in a running relay: every answer at every moment, beside Python's and alone, and what needs no GIL."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.clock import eventually
from tests.support.peers import fill, receive, receive_all, receive_until_reset, reset
from tests.support.refusals import MOMENTS, expect_refusal
from tests.support.traffic import MIB, Stream, exchange, same, together
from tests.support.world import World, looped

CODE = """
import ctypes
from relaycore import _probe_elements as probe
from relaycore.element import Element, HOLD

class Pass(Element):
    compiled = probe.passes

class PyPass(Element):
    def request(self, data): return data
    def response(self, data): return data

class Words(Element):
    compiled = probe.words

class Double(Element):
    compiled = probe.doubles

class Halve(Element):
    compiled = probe.halves
    may_drop = True

class PyHalve(Element):
    may_drop = True
    odd = [0, 0]
    def __init__(self, flow, shared): self.odd = [0, 0]
    def half(self, data, h):
        out = data[self.odd[h] :: 2]
        self.odd[h] ^= len(data) % 2
        return out
    def request(self, data): return self.half(data, 0)
    def response(self, data): return self.half(data, 1)

class PyDouble(Element):
    def request(self, data):
        out = bytearray(2 * len(data))
        out[::2] = out[1::2] = data
        return bytes(out)
    response = request

class Tag(Element):
    compiled = probe.tags
    @classmethod
    def configure(cls, options): return probe.shared_of(options.text("mark"))

class TagEnds(Tag):
    compiled = probe.tags_ends

class PyTag(Element):
    @classmethod
    def configure(cls, options): return options.text("mark").encode()
    def request(self, data): return data + self.shared
    def response(self, data): return data + self.shared

class Opening(Tag):
    compiled = probe.opening

class Told(Opening):
    # Writes down what its functions were told so far, each time that a flow begins.
    @classmethod
    def configure(cls, options): return probe.shared_of("on")
    def __init__(self, flow, shared):
        with open(__file__ + ".told", "w") as log: log.write(repr(probe.told(shared)[:4]))

class HoldsTheInterpreter(Element):
    compiled = probe.passes
    @classmethod
    def configure(cls, options):
        # PyDLL keeps the GIL while the call waits: for somebody who opens the other end, and then for a byte.
        libc = ctypes.PyDLL(None)
        fd = libc.open((__file__ + ".gate").encode(), 0)
        if fd >= 0:
            libc.read(fd, ctypes.create_string_buffer(1), 1)
            libc.close(fd)

class Python(Element):
    def request(self, data): return data
"""

WORDS = ["reject", "close", "refuse", "end", "fail", "beyond", "nothing", "nonsense", "huge"]


@contextmanager
def chained(*names: str | tuple[str, Mapping[str, Any]], settings: Any = None, **more: Any) -> Iterator[World]:
    """A relay whose flows go through these classes of CODE, in this order."""
    elements: list[dict[str, Any]] = []
    for number, each in enumerate(names):
        name, options = each if isinstance(each, tuple) else (each, {})
        elements.append({"name": f"{name}-{number}", "use": f"./code.py:{name}", "options": dict(options), **more})
    with looped(settings=settings, elements=elements, code=CODE) as world:
        world.path.listen()
        yield world


def mark(word: str) -> dict[str, str]:
    return {"mark": word}


def tallies(world: World) -> Sequence[Mapping[str, int]]:
    found: Sequence[Mapping[str, int]] = world.relay.ask("stats")["elements"]
    return found


def ask(client: socket.socket, origin: socket.socket, words: bytes) -> bytes:
    client.sendall(words)
    return receive(origin, len(words))


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 64 * MIB])
@pytest.mark.parametrize(
    "chain",
    [("Pass",), ("Double", "Halve"), ("PyDouble", "Halve"), ("Double", "PyHalve"), ("Pass", "PyPass", "Pass")],
    ids="-".join,
)
def test_every_size_passes_both_ways(chain: tuple[str, ...], size: int) -> None:
    """A stream that ends at an inconvenient byte, or that grows on its way, would lose one."""
    if len(chain) == 2:
        # Halve undoes Double only where requests go: for responses the order is the other one.
        with chained(*chain) as world:
            client, origin, _ = world.path.pair()
            sent = Stream(size + 1, size)
            together(lambda: sent.send(client), lambda: sent.receive(origin))
            assert tallies(world)[0]["bytes_out"] == 2 * size
        return
    with chained(*chain) as world:
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(size + 1, size), Stream(size + 2, size))
        record = world.relay.access(client=name)
        assert (record["bytes_sent"], record["bytes_received"], record["reason"]) == (size, size, "finished")
        assert record["lane"] == ("element" if size else "copy")
        assert [(each["bytes_in"], each["bytes_out"]) for each in tallies(world)] == [(2 * size, 2 * size)] * len(chain)


@pytest.mark.parametrize("kinds", ["ccc", "cpc", "pcp", "cpp", "ppc"])
def test_requests_in_order_and_responses_in_reverse(kinds: str) -> None:
    """A chain would depend on what its elements are written in."""
    names = {"c": "Tag", "p": "PyTag"}
    with chained(*((names[kind], mark(word)) for kind, word in zip(kinds, "abc", strict=True))) as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"question ")
        assert receive(origin, 12) == b"question abc"
        origin.sendall(b"answer ")
        assert receive(client, 10) == b"answer cba"


def test_calls_are_counted() -> None:
    """What an operator reads of a compiled element would not be what it did."""
    with chained("Words") as world:
        client, origin, _ = world.path.pair()
        assert ask(client, origin, b"hello") == b"hello"
        origin.sendall(b"fine")
        assert receive(client, 4) == b"fine"
        (tally,) = tallies(world)
        assert (tally["calls"], tally["bytes_in"], tally["bytes_out"], tally["errors"]) == (2, 9, 9, 0)
        assert world.relay.ask("flows")["flows"][0]["lane"] == "element"


def test_bytes_need_no_interpreter() -> None:
    """Whatever keeps the interpreter busy would hold up bytes that it has no part in."""
    with chained("Words", "HoldsTheInterpreter", "Double") as world:
        gate = str(world.relay.code_path) + ".gate"
        client, origin, name = world.path.pair()
        assert ask(client, origin, b"a") == b"a"
        assert receive(origin, 1) == b"a"
        os.mkfifo(gate)
        os.chmod(gate, 0o666)  # noqa: S103 - the relay is another user
        world.relay.signal(signal.SIGHUP)
        with open(gate, "wb", buffering=0) as held:  # from here on the relay's main thread waits with the GIL
            data = Stream(5, MIB)
            client.settimeout(5)
            origin.settimeout(5)
            for _ in range(100):
                assert ask(client, origin, b"x") == b"x"
                assert receive(origin, 1) == b"x"
            origin.sendall(b"hold")  # words are for requests alone
            assert receive(client, 8) == b"hhoolldd"
            client.sendall(b"hold")
            together(
                lambda: data.send(client),
                lambda: same(receive(origin, 2 * MIB + 8), twice(b"hold" + data.bytes())),
            )
            assert receive_all(origin) == b""
            held.write(b"!")
        os.unlink(gate)
        origin.close()
        assert world.relay.access(client=name)["reason"] == "finished"


def twice(data: bytes) -> bytes:
    out = bytearray(2 * len(data))
    out[::2] = out[1::2] = data
    return bytes(out)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("chain", [("Words",), ("PyPass", "Words")], ids="-".join)
def test_an_element_ends_the_flow(chain: tuple[str, ...], word: str, moment: str) -> None:
    """Resets as resets, ends as ends; what was passed on before is delivered."""
    with chained(*chain) as world:
        expect_refusal(world, word, moment, by=f"Words-{len(chain) - 1}")


@pytest.mark.parametrize("word", ["reject", "refuse", "close"])
def test_a_refusal_waits_for_a_blocked_sink(word: str) -> None:
    """What was passed on before an element refused would be lost with a sink that is slow to take it."""
    with chained("Words") as world:
        client, origin, _ = world.path.pair()
        sent = fill(client, b"x" * MIB, quiet=0.1)
        filler = b"x" * MIB + b" " + word.encode()
        together(lambda: client.sendall(filler), lambda: expect_end(origin, sent, filler, word))


def expect_end(origin: socket.socket, sent: int, filler: bytes, word: str) -> None:
    last = receive_all(origin) if word == "close" else receive_until_reset(origin)
    # The piece that ended with the word had x's before it, which went with it.
    assert sent + len(filler) - 65_536 <= len(last) <= sent + len(filler)
    assert last.removesuffix(b"bye").strip(b"x") in (b"", word[:0].encode())
    assert last.endswith(b"bye") == (word == "refuse")


@pytest.mark.parametrize("ending", ["then reject", "then close", "more"])
@pytest.mark.parametrize("chain", [("Words",), ("PyPass", "Words")], ids="-".join)
def test_the_last_bytes_are_asked_for(chain: tuple[str, ...], ending: str) -> None:
    """What was held when the client ended would be lost, and a refusal then would look like a whole stream."""
    with chained(*chain) as world:
        client, origin, name = world.path.pair()
        client.sendall(f"{ending} hold".encode())
        client.shutdown(socket.SHUT_WR)
        if ending == "then reject":
            assert receive_until_reset(origin) == b""
        else:
            assert receive_all(origin) == (b"bye" if ending == "then close" else b"more hold|end")
        origin.close()
        assert world.relay.access(client=name)["reason"] == ("finished" if ending == "more" else "rejected")


def test_last_bytes_of_each_element_in_order() -> None:
    """The end of a half would overtake its bytes, or end it twice."""
    with chained(("TagEnds", mark("a")), ("PyTag", mark("-")), ("TagEnds", mark("b"))) as world:
        client, origin, _ = world.path.pair()
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b"a-bb"
        origin.sendall(b"y")
        assert receive(client, 4) == b"yb-a"
        origin.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"b-aa"


def test_what_is_held_comes_again_in_front() -> None:
    """A message that came in pieces would lose the first ones, or never go on."""
    with chained("Words") as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"one hold")
        origin.settimeout(0.2)
        with pytest.raises(TimeoutError):
            origin.recv(1)
        origin.settimeout(10)
        client.sendall(b" two go")
        assert receive(origin, 15) == b"one hold two go"


def test_more_is_held_than_may_be() -> None:
    """An element that never lets go would take the relay's memory."""
    with chained("Words", max_held="1KiB") as world:
        client, origin, name = world.path.pair()
        client.sendall(b"x" * 2000 + b"hold")
        assert receive_until_reset(origin) == b""
        assert world.relay.access(client=name)["reason"] == "element_failed"
        (error,) = world.relay.await_records(1, event="element_error")
        assert error["error"].endswith("RELAY_HOLD of 2004 bytes: max_held is 1024")


def test_more_comes_of_it_than_may() -> None:
    """An element that makes much of little would take the relay's memory."""
    with chained("Double", "Double", max_output="64KiB") as world:
        client, origin, name = world.path.pair()
        client.sendall(b"x" * 10_000)
        assert receive(origin, 40_000) == b"x" * 40_000
        client.sendall(b"x" * 20_000)
        assert receive_until_reset(origin) == b""
        assert world.relay.access(client=name)["reason"] == "element_failed"


def test_a_sink_that_does_not_read_stops_the_source() -> None:
    """What grows on its way would pile up in the relay; and it must come whole when the sink reads again."""
    with chained("Double", "Double") as world:
        client, origin, _ = world.path.pair()
        before = world.relay.resident_bytes()
        sent = fill(client, bytes(range(256)) * 4096, quiet=0.3)
        assert world.relay.resident_bytes() - before < 8 * MIB
        client.shutdown(socket.SHUT_WR)
        data = (bytes(range(256)) * (sent // 256 + 1))[:sent]
        same(receive_all(origin), twice(twice(data)))


@pytest.mark.parametrize("chain", [("Words",), ("Words", "Pass"), ("PyTag", "Words")], ids="-".join)
@pytest.mark.parametrize("word", ["release", "last"])
def test_a_released_flow_goes_to_a_plain_worker(word: str, chain: tuple[str, ...]) -> None:
    """The element would be called again, bytes be lost on the way, or the flow stay where it is slow."""
    marks = [(name, mark("")) if name == "PyTag" else name for name in chain]
    with chained(*marks) as world:
        client, origin, name = world.path.pair()
        ask(client, origin, b"hello")
        assert world.relay.ask("flows")["flows"][0]["worker"] == 2
        client.sendall(word.encode())
        expected = word.encode() + (b"!" if word == "last" else b"")
        assert receive(origin, len(expected)) == expected
        place = chain.index("Words")
        calls = tallies(world)[place]["calls"]
        if len(chain) == 1:
            ask(client, origin, b"hello")
            assert world.relay.ask("flows")["flows"][0]["worker"] in (0, 1)
        exchange(client, origin, Stream(1, 8 * MIB), Stream(2, 8 * MIB))
        record = world.relay.access(client=name)
        assert (record["reason"], record["bytes_received"]) == ("finished", 8 * MIB)
        assert (tallies(world)[place]["calls"], tallies(world)[place]["releases"]) == (calls, 1)


def test_a_release_while_the_sink_is_blocked() -> None:
    """Bytes that waited when the flow changed its worker would be lost, or come twice."""
    with chained("Words") as world:
        client, origin, name = world.path.pair()
        sent = fill(client, b"x" * MIB, quiet=0.1)
        more = Stream(7, 4 * MIB).bytes()
        tail = b"x" * MIB + b" release"
        together(
            lambda: client.sendall(tail + more),
            lambda: same(receive(origin, sent + len(tail) + len(more)), b"x" * sent + tail + more),
        )
        client.close()
        assert receive_all(origin) == b""
        origin.close()
        assert world.relay.access(client=name)["reason"] == "finished"


def test_a_mistake_that_is_passed_costs_the_flow_nothing_but_the_element() -> None:
    """on_error = "pass" would let bytes through that the element has spoilt, or end the flow."""
    with chained("Words", on_error="pass") as world:
        client, origin, name = world.path.pair()
        client.sendall(b"so hold")
        assert ask_after(client, origin, b"so hold", b" please fail") == b"so hold please fail"
        assert ask(client, origin, b"reject") == b"reject"
        (error,) = world.relay.await_records(1, event="element_error")
        assert (error["element"], error["method"]) == ("Words-0", "request")
        assert error["error"].endswith("request() answered RELAY_FAIL")
        client.close()
        origin.close()
        assert world.relay.access(client=name)["reason"] == "finished"


def ask_after(client: socket.socket, origin: socket.socket, held: bytes, words: bytes) -> bytes:
    client.sendall(words)
    return receive(origin, len(held) + len(words))


@pytest.mark.parametrize(
    ("do", "reason"),
    [("reject", "rejected"), ("close", "rejected"), ("fail", "element_failed"), ("nonsense", "element_failed")],
)
def test_a_connection_is_refused_before_anything_is_dialled(do: str, reason: str) -> None:
    """A firewall in C would let connections reach what it guards."""
    with chained(("Opening", mark(do))) as world:
        name = world.path.dial_in_vain()
        record = world.relay.access(client=name)
        assert (record["reason"], record["connect_ms"], record["element"]) == (reason, None, "Opening-0")


def test_a_flow_is_released_at_its_opening() -> None:
    """An element that has seen enough of the addresses would cost every byte."""
    with chained(("Opening", mark("leave"))) as world:
        client, origin, _ = world.path.pair()
        ask(client, origin, b"hello")
        assert world.relay.ask("flows")["flows"][0]["worker"] in (0, 1)
        assert tallies(world)[0]["calls"] == 1


def test_ends_are_told() -> None:
    """What an element keeps of a flow would be kept for ever."""
    with chained("Told") as world:
        told = world.relay.code_path.with_suffix(".py.told")
        for leave in (socket.socket.close, socket.socket.close, reset):
            client, origin, name = world.path.pair()
            ask(client, origin, b"hello")
            leave(client)
            origin.close()
            world.relay.access(client=name)
        # Each was opened, passed one piece on, and closed.
        eventually(lambda: tallies(world)[0]["calls"] == 3 * 3)
        world.path.pair()
        assert told.read_text() == "(3, 3, 'reset_by_client', 0)"


def test_a_call_that_does_not_come_back_is_named() -> None:
    """An operator would see flows that stand still, and nothing that says why."""
    with chained("Words") as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"stuck")
        (record,) = world.relay.await_records(1, event="element_stuck")
        assert (record["element"], record["method"], record["holds_interpreter"]) == ("Words-0", "request", False)
        assert receive(origin, 5) == b"stuck"
        assert ask(client, origin, b"and on") == b"and on"
        assert tallies(world)[0]["stuck"] == 1


def test_what_cannot_be_called_is_found_by_check() -> None:
    """A relay that `check` called fine would not start, or crash with the first flow."""
    with chained("Pass") as world:
        relay = world.relay
        relay.write_code(CODE.replace("probe.passes", "probe.wrong_abi"))
        command = [sys.executable, "-m", "sidecar", "check", "--config", str(relay.config_path)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 78
        assert "Pass.compiled: expected abi 1, found 2" in found.stderr
