"""Elements in a running relay: what each answer does to a flow, at every moment, and what it does to others."""

import contextlib
import hashlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.peers import fill, receive, receive_all, reset
from tests.support.refusals import MOMENTS, REFUSALS, expect_refusal
from tests.support.traffic import MIB, Stream, exchange, same, together
from tests.support.world import World, looped

CODE = '''
import hashlib
from relaycore.element import CLOSE, HOLD, REJECT, RELEASE, After, Close, Element, Open, Reject, Release

class Pass(Element):
    def request(self, data): return data
    def response(self, data): return data

class Shout(Element):
    def request(self, data): return data.upper()

class Tag(Element):
    """Shows the order: each puts its mark behind what it passes on."""
    @classmethod
    def configure(cls, options): return options.text("mark").encode()
    def request(self, data): return data + self.shared
    def response(self, data): return data + self.shared

class Words(Element):
    """Does what the client's words say."""
    def request(self, data):
        word = data.split()[-1]
        return {
            b"hold": HOLD, b"reject": REJECT, b"close": CLOSE, b"release": RELEASE, b"last": Release(data + b"!"),
            b"refuse": Reject(b"bye"), b"end": Close(b"bye"), b"later": After(data, 0.2),
        }.get(word) or (1 / 0 if word == b"fail" else data)
    def response(self, data): return data

class Keeps(Element):
    """Passes on something else than what it saw, and at the end a digest of that."""
    def __init__(self, flow, shared): self.kept = []
    def request(self, data):
        self.kept.append(data)
        return data.swapcase()
    def request_ended(self, held): return hashlib.sha256(b"".join(self.kept)).digest()

class Reply(Element):
    def request(self, data):
        if data == b"who?": self.flow.to_client(b"me")
        return data

class Flood(Element):
    def request(self, data):
        self.flow.to_client(b"x" * 65536)
        return data

class AtOpening(Element):
    @classmethod
    def configure(cls, options): return options.text("do")
    def opened(self):
        if self.shared == "reject": return REJECT
        if self.shared == "release": return RELEASE
        if self.shared == "fail": raise RuntimeError("no")
        if self.shared == "first": return Open(first=b"PROXY\\r\\n", release=True)
        if self.shared == "loop": return Open(origin=("127.0.0.1", int(open(__file__ + ".port").read())))
    def request(self, data): return data

class Ended(Element):
    def request(self, data): return HOLD
    def request_ended(self, held): return held + b"|end"
    def response_ended(self, held): return b"goodbye"
    def closed(self, reason):
        with open(__file__ + ".closed", "a") as log: log.write(reason + "\\n")
'''


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


def tallies(world: World) -> Sequence[Mapping[str, int]]:
    found: Sequence[Mapping[str, int]] = world.relay.ask("stats")["elements"]
    return found


def ask(client: socket.socket, origin: socket.socket, words: bytes) -> bytes:
    client.sendall(words)
    return receive(origin, len(words))


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 16 * MIB])
def test_every_size_passes(size: int) -> None:
    """A stream that ends at an inconvenient byte must not lose it in the chain."""
    with chained("Pass", "Pass", "Pass") as world:
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(size + 1, size), Stream(size + 2, size))
        record = world.relay.access(client=name)
        assert (record["bytes_sent"], record["bytes_received"], record["reason"]) == (size, size, "finished")
        assert record["lane"] == ("element" if size else "copy")


def test_requests_in_order_and_responses_in_reverse() -> None:
    """A decoder in front of a filter would stand behind it on the way back, on the wrong side."""
    with chained(("Tag", {"mark": "a"}), ("Tag", {"mark": "b"}), ("Tag", {"mark": "c"})) as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"question ")
        assert receive(origin, 12) == b"question abc"
        origin.sendall(b"answer ")
        assert receive(client, 10) == b"answer cba"


def test_bytes_are_changed() -> None:
    """An element that answers with other bytes would be ignored, or miscounted."""
    with chained("Shout") as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"hello")
        assert receive(origin, 5) == b"HELLO"
        origin.sendall(b"fine")
        assert receive(client, 4) == b"fine"
        (tally,) = tallies(world)
        assert (tally["calls"], tally["bytes_in"], tally["bytes_out"], tally["errors"]) == (1, 5, 5, 0)
        assert world.relay.ask("flows")["flows"][0]["lane"] == "element"


@pytest.mark.parametrize("size", [1, 65_537, 16 * MIB])
def test_what_an_element_keeps_does_not_change(size: int) -> None:
    """Later bytes, or those that it passes on, would show in pieces that it has seen before."""
    with chained("Keeps") as world:
        client, origin, _ = world.path.pair()
        data = Stream(4, size).bytes()

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        _, received = together(send, lambda: receive_all(origin))
        same(received[:-32], data.swapcase())
        assert received[-32:] == hashlib.sha256(data).digest()


def test_what_is_held_comes_again_in_front() -> None:
    """An element that waits for the rest of a message would lose its beginning."""
    with chained("Words") as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"one hold")
        origin.settimeout(0.2)
        with pytest.raises(TimeoutError):
            origin.recv(1)
        origin.settimeout(10)
        client.sendall(b" two go")
        assert receive(origin, 15) == b"one hold two go"


def test_what_is_held_at_the_end_is_not_lost() -> None:
    """A last line without a newline would be swallowed."""
    with chained("Words") as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"a hold")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b"a hold"


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("word", REFUSALS)
def test_an_element_ends_the_flow(word: str, moment: str) -> None:
    """Resets as resets, ends as ends; what was passed on before is delivered."""
    with chained("Words") as world:
        expect_refusal(world, word, moment, by="Words-0")


def test_a_released_flow_is_spliced_elsewhere_and_the_element_called_no_more() -> None:
    """RELEASE would cost bytes, or not save the calls."""
    with chained("Words") as world:
        client, origin, name = world.path.pair()
        ask(client, origin, b"please release")
        calls = tallies(world)[0]["calls"]
        exchange(client, origin, Stream(1, 8 * MIB), Stream(2, 8 * MIB))
        record = world.relay.access(client=name)
        assert record["reason"] == "finished"
        assert (record["bytes_sent"], record["bytes_received"]) == (8 * MIB + 14, 8 * MIB)
        assert tallies(world)[0]["calls"] == calls
        assert tallies(world)[0]["releases"] == 1


def test_release_moves_the_flow_to_a_plain_worker() -> None:
    """A flow that no element wants would go on waiting for the elements of others."""
    with chained("Words") as world:
        client, origin, _ = world.path.pair()
        ask(client, origin, b"hello")
        assert world.relay.ask("flows")["flows"][0]["worker"] == 2
        ask(client, origin, b"release")
        ask(client, origin, b"hello")
        assert world.relay.ask("flows")["flows"][0]["worker"] in (0, 1)


def test_release_while_bytes_are_pending() -> None:
    """Nothing is lost, nothing twice: the sink does not read while the element releases the flow."""
    with chained("Words") as world:
        client, origin, name = world.path.pair()
        client.sendall(b"a ")
        data = Stream(3, 20 * MIB).bytes()
        client.sendall(b"release")
        received = bytearray()
        client.setblocking(False)
        sent = fill(client, data[:MIB], quiet=0.2)
        same(receive(origin, 9 + sent), b"a release" + (data[:MIB] * (sent // MIB + 1))[:sent])
        client.close()
        assert receive_all(origin) == b""
        origin.close()
        assert world.relay.access(client=name)["reason"] == "finished"
        assert not received


def test_bytes_come_later_and_others_do_not_wait() -> None:
    """A delay that is wanted for one flow would delay all."""
    with chained("Words") as world:
        client, origin, _ = world.path.pair()
        other, its_origin, _ = world.path.pair()
        client.sendall(b"later")
        assert ask(other, its_origin, b"now") == b"now"
        assert receive(origin, 5) == b"later"


def test_an_element_answers_by_itself() -> None:
    """A refusal could not be told to the client in its own protocol."""
    with chained("Reply") as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"who?")
        assert receive(client, 2) == b"me"
        assert receive(origin, 4) == b"who?"


@pytest.mark.parametrize(("do", "reason"), [("reject", "rejected"), ("fail", "element_failed")])
def test_a_connection_is_refused_before_anything_is_dialled(do: str, reason: str) -> None:
    """The origin would see connections that an element does not want."""
    with chained(("AtOpening", {"do": do})) as world:
        name = world.path.dial_in_vain()
        record = world.relay.access(client=name)
        assert (record["reason"], record["connect_ms"]) == (reason, None)


def test_first_bytes_for_the_origin() -> None:
    """A PROXY header would come behind the client's bytes, or not before a server that speaks first."""
    with chained(("AtOpening", {"do": "first"})) as world:
        client, origin, _ = world.path.pair()
        assert receive(origin, 7) == b"PROXY\r\n"
        assert ask(client, origin, b"hello") == b"hello"


def test_an_error_that_is_passed_costs_the_flow_nothing_but_the_element() -> None:
    """A bug in an element that only watches would end connections."""
    with chained("Words", on_error="pass") as world:
        client, origin, name = world.path.pair()
        assert ask(client, origin, b"please fail") == b"please fail"
        assert ask(client, origin, b"reject") == b"reject"
        (error,) = world.relay.await_records(1, event="element_error")
        assert (error["element"], error["method"], error["error"]) == (
            "Words-0",
            "request",
            "ZeroDivisionError: division by zero",
        )
        assert "1 / 0" in error["traceback"]
        client.close()
        origin.close()
        assert world.relay.access(client=name)["reason"] == "finished"


def test_ends_are_told() -> None:
    """An element could not tell the end of a stream from silence, nor give back what it counts per flow."""
    with chained("Ended") as world:
        client, origin, name = world.path.pair()
        client.sendall(b"a")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b"a|end"
        origin.sendall(b"b ")
        origin.close()
        assert receive_all(client) == b"b goodbye"
        world.relay.access(client=name)
        reset(world.path.pair().client)
        world.relay.await_records(2, event="access")
        assert len(world.relay.code_path.with_suffix(".py.closed").read_text().split()) == 2


def test_what_elements_send_on_their_own_is_bounded() -> None:
    """A client that asks and does not read would fill the relay's memory."""
    with chained("Flood") as world:
        client, origin, name = world.path.pair()
        asked = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while asked < 2000:
                client.sendall(b"?")
                assert origin.recv(1) in (b"?", b"")
                asked += 1
        assert 64 < asked < 2000
        (error,) = world.relay.await_records(1, event="element_error")
        assert error["error"].startswith("BufferError: expected at most 4194304 bytes that wait")
        assert world.relay.access(client=name)["reason"] == "element_failed"


def test_a_slow_client_may_be_sent_more_than_may_wait() -> None:
    """What it has taken would count against it for ever."""
    with chained("Flood") as world:
        client, origin, _ = world.path.pair()
        while world.relay.ask("flows")["flows"][0]["pending_received"] < MIB:
            client.sendall(b"?")
            assert receive(origin, 1) == b"?"
        for _ in range(200):  # three times what may wait, and the client stays as far behind
            assert len(receive(client, 65_536)) == 65_536
            client.sendall(b"?")
            assert receive(origin, 1) == b"?"
