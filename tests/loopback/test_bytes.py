"""Bytes through the whole relay: every size, both lanes, many flows, every rhythm."""

import socket

import pytest

from tests.support.network import FAMILIES
from tests.support.peers import fill, receive, receive_all
from tests.support.traffic import MIB, Stream, exchange, same, together
from tests.support.world import looped

families = pytest.mark.parametrize("family", FAMILIES)

# Around everything that has a size: nothing, a byte, a segment, the COPY buffer, the pipe, a turn.
SIZES = [0, 1, 1448, 65_535, 65_536, 65_537, 262_144, 524_289, 16 * MIB]


@families
@pytest.mark.parametrize("size", SIZES)
def test_every_size_arrives(family: int, size: int) -> None:
    """A stream that ends at an inconvenient byte must not lose it."""
    with looped(family) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(size + 1, size), Stream(size + 2, size))
        record = world.relay.access(client=name)
        assert (record["bytes_sent"], record["bytes_received"], record["reason"]) == (size, size, "finished")


@families
def test_many_flows_at_once(family: int) -> None:
    """Bytes of one connection must never turn up in another."""
    with looped(family) as world:
        world.path.listen()
        pairs = [world.path.pair() for _ in range(20)]

        def run(number: int) -> None:
            client, origin, _ = pairs[number]
            exchange(client, origin, Stream(2 * number, MIB), Stream(2 * number + 1, MIB))

        together(*(lambda number=number: run(number) for number in range(len(pairs))))


@families
def test_questions_and_answers(family: int) -> None:
    """Interactive protocols: each small message goes at once, in its turn, thousands of times."""
    with looped(family) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        for number in range(2000):
            word = b"%08d" % number
            for sender, receiver in ((client, origin), (origin, client)):
                sender.sendall(word)
                assert receive(receiver, len(word)) == word
        client.close()
        origin.close()
        assert world.relay.access(client=name)["lane"] == "copy"


def bulk(sender: socket.socket, receiver: socket.socket) -> None:
    """More than the buffers of both sockets hold, so that the relay meets full buffers on either side."""
    sent = fill(sender, Stream(1, MIB).bytes(), quiet=0.05)
    receive(receiver, sent)


def words(sender: socket.socket, receiver: socket.socket) -> None:
    """Small messages, each a wake-up of its own: more of them than the relay waits for before it leaves splice."""
    for word in (b"a", b"question", b"in", b"pieces"):
        sender.sendall(word)
        assert receive(receiver, len(word)) == word


@families
def test_lanes_change_on_the_way(family: int) -> None:
    """A connection that is interactive, then bulk, then interactive again stays exact; splice is used where it pays."""
    with looped(family) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        for _ in range(3):
            for sender, receiver in ((client, origin), (origin, client)):
                bulk(sender, receiver)
                words(sender, receiver)
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b""
        origin.close()
        assert world.relay.access(client=name)["lane"] == "splice"
        counters = world.relay.counted().counters
        assert counters["to_splice"] == counters["to_copy"] >= 6


@families
def test_the_server_may_speak_first(family: int) -> None:
    """Its greeting arrives although the client has not said a word."""
    with looped(family) as world:
        world.path.listen()
        client, origin, _ = world.path.pair()
        origin.sendall(b"220 ready\r\n")
        assert receive(client, 11) == b"220 ready\r\n"


def test_without_the_memory_to_keep_bytes() -> None:
    """At the limit of pending bytes flows become slower, never wrong."""
    with looped(settings={"relay": {"max_pending": "64KiB", "max_pipes": 0}}) as world:
        world.path.listen()
        pairs = [world.path.pair() for _ in range(10)]
        sent = [fill(client, Stream(9, MIB).bytes(), quiet=0.05) for client, _, _ in pairs]
        assert world.relay.counted().counters["pending_exhausted"] > 0
        expected = Stream(9, MIB).bytes() * (max(sent) // MIB + 1)
        for (_, origin, _), count in zip(pairs, sent, strict=True):
            same(receive(origin, count), expected[:count])
