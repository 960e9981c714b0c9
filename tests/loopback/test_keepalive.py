"""Peers that vanish are noticed by the kernel's probes, which connections get once they have lived for a second."""

from pathlib import Path

from tests.support.clock import eventually, observe
from tests.support.path import Pair
from tests.support.world import looped

KEEPALIVE = 2  # of the timers in proc_net_tcp
SET_AFTER = 1.0  # seconds


def kept_alive(pair: Pair) -> int:
    """How many of the relay's two sockets have the timer running: those of the test have none."""
    ends = [f"{sock.getsockname()[1]:04X}" for sock in (pair.client, pair.origin)]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [words for words in lines if any(end in words[1] + words[2] for end in ends)]
    return sum(int(words[5].partition(":")[0], 16) == KEEPALIVE for words in ours)


def test_a_connection_that_lives_is_probed_on_both_sides() -> None:
    """A peer that vanished would hold a flow until it is idle for an hour."""
    with looped() as world:
        world.path.listen()
        pair = world.path.live_pair()
        assert eventually(lambda: kept_alive(pair) == 2)


def test_keepalive_can_be_off() -> None:
    """Who has said "0s" would see probes all the same, or flows that end without them."""
    with looped(settings={"relay": {"keepalive_time": "0s"}}) as world:
        world.path.listen()
        pair = world.path.live_pair()
        observe(SET_AFTER * 2)
        assert kept_alive(pair) == 0
        pair.client.sendall(b"!")
        assert pair.origin.recv(1) == b"!"
