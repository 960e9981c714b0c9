"""One flow's troubles are not another's."""

import socket
import threading
from collections.abc import Callable

import pytest

from tests.support.clock import Stopwatch
from tests.support.peers import fill, receive, receive_until_reset, reset
from tests.support.traffic import MIB, Stream
from tests.support.world import World, looped

LONGEST_ANSWER = 1.0  # seconds; a worker that waits for one flow makes the others wait for ever


def resets(world: World) -> None:
    for number in range(100):
        pair = world.path.live_pair()
        leaver, other = (pair.client, pair.origin) if number % 2 else (pair.origin, pair.client)
        reset(leaver)
        assert receive_until_reset(other) == b""


def blocked_peers(world: World) -> None:
    for _ in range(20):
        fill(world.path.pair().client, Stream(3, MIB).bytes(), quiet=0.02)


def urgent_bytes(world: World) -> None:
    for _ in range(200):
        pair = world.path.pair()
        pair.client.send(b"?!", socket.MSG_OOB)
        assert receive(pair.origin, 1) == b"?"


def refusals(world: World) -> None:
    world.path.unlisten()
    for _ in range(100):
        world.path.dial_in_vain()


def bulk(world: World) -> None:
    pair = world.path.pair()
    data = Stream(4, MIB).bytes()
    for _ in range(64):
        sent = fill(pair.client, data, quiet=0.0)
        receive(pair.origin, sent)


@pytest.mark.parametrize("trouble", [resets, blocked_peers, urgent_bytes, refusals, bulk], ids=lambda trouble: trouble.__name__)
def test_a_quiet_flow_goes_on(trouble: Callable[[World], None]) -> None:
    """While others are reset, blocked or busy, a small question is still answered at once."""
    with looped(settings={"relay": {"workers": 1}}) as world:
        world.path.listen()
        quiet = world.path.live_pair()
        over = threading.Event()
        answers: list[float] = []

        def ask() -> None:
            while not over.is_set():
                watch = Stopwatch()
                for sender, receiver in ((quiet.client, quiet.origin), (quiet.origin, quiet.client)):
                    sender.sendall(b"word")
                    assert receive(receiver, 4) == b"word"
                answers.append(watch.seconds)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            trouble(world)
        finally:
            over.set()
            asking.join()
        assert answers
        assert max(answers) < LONGEST_ANSWER
        quiet.client.close()
        assert quiet.origin.recv(1) == b""
