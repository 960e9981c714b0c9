"""Elements that misbehave, and code that changes under a running relay."""

import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.clock import eventually
from tests.support.peers import fill, receive, receive_all, receive_until_reset
from tests.support.traffic import MIB, Stream, exchange, same, together
from tests.support.world import World, looped

NAP = 3.0  # a call that does not come back for so long is stuck three times over

CODE = f"""
import time
from relaycore.element import Element

class Slow(Element):
    def request(self, data):
        if data == b"sleep":
            time.sleep({NAP})  # tidy: an element that sleeps is what is tested
        elif data == b"spin":
            until = time.monotonic() + {NAP}
            while time.monotonic() < until:
                pass
        elif data == b"spin for ever":
            while True:
                pass
        elif data == b"hold the interpreter":
            sum(range(10 ** 10))  # C code that lets nobody else run, for a minute or more
        elif data == b"hold it for a while":
            sum(range(3 * 10 ** 8))
        elif data == b"swell":
            return b"x" * (5 << 20)
        elif data == b"nothing":
            return b""
        elif data == b"number":
            return 5
        return data
"""

VERSION = """
from relaycore.element import Element

class Version(Element):
    def request(self, data):
        return data + b" {0}"
"""


@contextmanager
def slow(**settings: Any) -> Iterator[World]:
    """One listener whose flows go through Slow, and a plain one."""
    elements = [{"name": "slow", "use": "./code.py:Slow", "listeners": ["loop"]}]
    with looped(elements=elements, code=CODE, settings=settings) as world:
        world.path.listen()
        yield world


@contextmanager
def version(text: str, **more: Any) -> Iterator[World]:
    elements = [{"name": "version", "use": "./code.py:Version", **more}]
    with looped(elements=elements, code=text) as world:
        world.path.listen()
        yield world


def echo(client: socket.socket, origin: socket.socket, words: bytes, expected: bytes) -> None:
    client.sendall(words)
    assert receive(origin, len(expected)) == expected


def tally(world: World) -> Mapping[str, Any]:
    (found,) = world.relay.ask("stats")["elements"]
    return dict(found)


@pytest.mark.parametrize("word", ["sleep", "spin"])
def test_a_stuck_call_is_named_while_it_lasts(word: str) -> None:
    """Nobody could tell which element it is that holds flows up."""
    with slow() as world:
        client, origin, _ = world.path.pair()
        client.sendall(word.encode())
        (record,) = world.relay.await_records(1, event="element_stuck")
        assert (record["element"], record["method"]) == ("slow", "request")
        assert "in request" in record["stack"]
        # Python can interrupt what comes back to its own code: a loop at once, a sleep at its end.
        assert receive_until_reset(client) == b""
        (error,) = world.relay.await_records(1, event="element_error")
        assert error["error"].startswith("relaycore._use.Stuck")
        assert world.relay.access()["reason"] == "element_failed"
        assert (tally(world)["stuck"], tally(world)["gil_held"]) == (1, 0)
        client.close()
        origin.close()


def test_a_generous_budget_is_patience() -> None:
    """Who knows that a call takes three seconds could not have it."""
    elements = [{"name": "slow", "use": "./code.py:Slow", "budget": "1m"}]
    with looped(elements=elements, code=CODE) as world:
        world.path.listen()
        client, origin, _ = world.path.pair()
        echo(client, origin, b"sleep", b"sleep")
        assert (tally(world)["stuck"], tally(world)["overruns"]) == (0, 0)


def test_the_admin_side_answers_while_an_element_is_stuck() -> None:
    """Who asks what is wrong would get no answer."""
    with slow() as world:
        client, origin, _ = world.path.pair()
        client.sendall(b"sleep")
        world.relay.await_records(1, event="element_stuck")
        begun = time.monotonic()
        assert world.relay.ask("stats")["state"] == "ready"
        assert time.monotonic() - begun < NAP / 3
        assert receive_until_reset(origin) == b""


def test_code_that_holds_the_interpreter_is_named() -> None:
    """Nobody could tell why the admin side does not answer."""
    with slow() as world:
        client, _, _ = world.path.pair()
        client.sendall(b"hold it for a while")
        (record,) = world.relay.await_records(1, event="element_stuck")
        assert (record["element"], record["holds_interpreter"]) == ("slow", True)
        assert (tally(world)["stuck"], tally(world)["gil_held"]) == (1, 1)


def test_a_sleeping_element_delays_no_plain_flow() -> None:
    """One slow class would slow every connection of the relay down."""
    elements = [{"name": "slow", "use": "./code.py:Slow", "listeners": ["loop"]}]
    with looped(elements=elements, code=CODE, beside=["plain"]) as world:
        world.path.listen()
        client, origin, _ = world.path.pair()
        client.sendall(b"sleep")
        world.path.dial_to = world.relay.address_of("plain")
        plain, plain_origin, name = world.path.pair()
        for number in range(1000):
            echo(plain, plain_origin, b"%04d" % number, b"%04d" % number)
        exchange(plain, plain_origin, Stream(1, 64 * MIB), Stream(2, 64 * MIB))
        assert world.relay.access(client=name)["reason"] == "finished"
        origin.setblocking(False)
        with pytest.raises(BlockingIOError):  # it sleeps on: all of that was done meanwhile
            origin.recv(1)


def test_flows_are_listed_while_an_element_sleeps() -> None:
    """`flows` would fail just when somebody wants to know what goes on."""
    elements = [{"name": "slow", "use": "./code.py:Slow", "listeners": ["loop"]}]
    with looped(elements=elements, code=CODE, beside=["plain"]) as world:
        world.path.listen()
        client, _, _ = world.path.pair()
        client.sendall(b"sleep")
        world.relay.await_records(1, event="element_stuck")
        world.path.dial_to = world.relay.address_of("plain")
        _, _, name = world.path.pair()
        answer = world.relay.ask("flows")
        assert [flow["client"] for flow in answer["flows"]] == [name]
        assert (answer["live"], answer["listed"]) == (2, 1)


@pytest.mark.parametrize(("word", "message"), [("swell", "max_output"), ("nothing", "no bytes"), ("number", "int 5")])
def test_a_bad_answer_ends_the_flow_and_says_why(word: str, message: str) -> None:
    """A stream would lose a piece, or grow without bound."""
    with slow() as world:
        client, origin, name = world.path.pair()
        echo(client, origin, b"hello", b"hello")
        client.sendall(word.encode())
        assert receive_until_reset(client) == b""
        assert receive_until_reset(origin) == b""
        assert world.relay.access(client=name)["reason"] == "element_failed"
        (error,) = world.relay.await_records(1, event="element_error")
        assert message in error["error"]


def test_the_same_error_again_is_counted_not_told_whole() -> None:
    """A bug that every connection meets would fill the log with tracebacks."""
    with slow() as world:
        for _ in range(50):
            client, _, _ = world.path.pair()
            client.sendall(b"number")
            assert receive_until_reset(client) == b""
        eventually(lambda: tally(world)["errors"] == 50)
        eventually(
            lambda: any(record["count"] == 50 for record in world.relay.records.all() if record["event"] == "element_error")
        )
        told = [record for record in world.relay.records.all() if record["event"] == "element_error"]
        assert told[-1]["count"] == 50
        assert sum(record["traceback"] is not None for record in told) <= 1


def test_what_is_kept_stays_bounded_where_sinks_do_not_read() -> None:
    """Elements would turn slow readers into the relay's memory; or a flow that was held back would stay so."""
    with slow(relay={"max_pending": "1MiB"}) as world:
        pairs = [world.path.pair() for _ in range(24)]
        data = Stream(7, MIB).bytes()
        sent = [fill(client, data, quiet=0.05) for client, _, _ in pairs]
        kept = sum(flow["pending_sent"] for flow in world.relay.ask("flows")["flows"])
        assert 0 < kept <= MIB
        assert world.relay.counted().counters["pending_exhausted"] > 0
        expected = data * (max(sent) // MIB + 1)
        together(
            *(
                lambda origin=origin, count=count: same(receive(origin, count), expected[:count])
                for (_, origin, _), count in zip(pairs, sent, strict=True)
            )
        )


def test_a_reload_gives_new_flows_the_new_code_and_old_flows_keep_theirs() -> None:
    """Code could only be changed by ending every connection; or a connection would change under its client."""
    with version(VERSION.format("one")) as world:
        old, old_origin, _ = world.path.pair()
        echo(old, old_origin, b"is", b"is one")
        world.relay.write_code(VERSION.format("two"))
        world.relay.process.send_signal(signal.SIGHUP)
        world.relay.await_records(1, event="reload")
        new, new_origin, _ = world.path.pair()
        echo(new, new_origin, b"is", b"is two")
        echo(old, old_origin, b"is", b"is one")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def broken(:\n", "code.py:1: SyntaxError"),
        ("from relaycore.element import Element\nraise RuntimeError('no')\n", "code.py:2: RuntimeError: no"),
        ("x = 1\n", "nothing of that name"),
        ("Version = 5\n", "a int"),
    ],
)
def test_code_that_does_not_load_leaves_the_old_in_place(text: str, why: str) -> None:
    """A typing error would take the firewall away."""
    with version(VERSION.format("one")) as world:
        world.relay.write_code(text)
        world.relay.process.send_signal(signal.SIGHUP)
        (record,) = world.relay.await_records(1, event="reload", level="error")
        assert why in record["errors"][0]
        assert "element[0].use" in record["errors"][0]
        client, origin, _ = world.path.pair()
        echo(client, origin, b"is", b"is one")


def test_watched_code_is_loaded_when_it_changes() -> None:
    """Who tries something out would send a signal after each line."""
    with version(VERSION.format("one"), watch=True) as world:
        world.relay.write_code(VERSION.format("two"))
        (record,) = world.relay.await_records(1, event="elements")
        assert record["changed"] == ["version"]
        client, origin, _ = world.path.pair()
        echo(client, origin, b"is", b"is two")
        world.relay.write_code("oops")
        (refused,) = world.relay.await_records(1, event="elements", level="error")
        assert "code.py:1: NameError" in refused["errors"][0]
        echo(client, origin, b"is", b"is two")


def test_reload_under_load_loses_nothing() -> None:
    """A byte would be lost between two versions of the code."""
    text = "from relaycore.element import Element\nclass Version(Element):\n    def request(self, data): return data\n"
    with version(text) as world:

        def reload() -> None:
            for number in range(20):
                world.relay.write_code(f"{text}# {number}\n")
                world.relay.ask("reload")

        pairs = [world.path.pair() for _ in range(6)]

        def move(number: int) -> None:
            client, origin, _ = pairs[number]
            exchange(client, origin, Stream(number, 4 * MIB), Stream(number + 100, 4 * MIB))

        together(reload, *(lambda n=n: move(n) for n in range(6)))


def test_a_second_signal_ends_the_process_whatever_an_element_does() -> None:
    """A stuck element could only be ended by SIGKILL."""
    with slow() as world:
        client, _, _ = world.path.pair()
        client.sendall(b"hold the interpreter")
        # Signals that come at once are one to the kernel: again and again, as somebody would who gets no answer.
        begun = time.monotonic()
        while world.relay.process.poll() is None and time.monotonic() < begun + 30:
            world.relay.process.send_signal(signal.SIGTERM)
            select.select([], [], [], 0.2)
        world.relay.expected_status = 1
        assert world.relay.process.wait(1) == 1
        world.relay.await_message("an element lets no other code run")


def test_draining_waits_for_flows_with_elements_and_for_released_ones() -> None:
    """SIGTERM would cut flows that another kind of worker has."""
    text = """
from relaycore.element import RELEASE, Element

class Version(Element):
    def request(self, data):
        return RELEASE if data == b"go" else data

    def closed(self, reason):
        pass
"""
    with version(text) as world:
        kept, kept_origin, _ = world.path.pair()
        echo(kept, kept_origin, b"here", b"here")
        gone, gone_origin, _ = world.path.pair()
        echo(gone, gone_origin, b"go", b"go")
        world.relay.process.send_signal(signal.SIGTERM)
        world.relay.await_records(1, event="drain")
        echo(kept, kept_origin, b"still here", b"still here")
        echo(gone, gone_origin, b"still gone", b"still gone")
        for client, origin in ((kept, kept_origin), (gone, gone_origin)):
            client.close()
            assert receive_all(origin) == b""
            origin.close()
        assert world.relay.process.wait(20) == 0
