"""Time-outs: what ends, when, and with which reason; and what must not end."""

import socket

import pytest

from tests.support.clock import Stopwatch, observe
from tests.support.network import FAMILIES
from tests.support.path import Pair
from tests.support.peers import expect_reset, receive, receive_all
from tests.support.world import looped

families = pytest.mark.parametrize("family", FAMILIES)

SHORT, SHORT_TEXT = 0.5, "500ms"


def echoed(pair: Pair) -> None:
    pair.client.sendall(b"ping")
    assert receive(pair.origin, 4) == b"ping"


@families
def test_connect_timeout(family: int) -> None:
    """A client of an origin that does not answer is told in time, by a reset."""
    with looped(family, {"relay": {"connect_timeout": SHORT_TEXT}}) as world:
        world.path.listen(0)
        for _ in range(3):
            world.path.dial_beside()  # the backlog is full now
        watch = Stopwatch()
        name = world.path.dial_in_vain()
        assert SHORT * 0.9 < watch.seconds < SHORT * 2
        record = world.relay.access(client=name)
        assert (record["reason"], record["connect_ms"]) == ("connect_timeout", None)


@families
def test_idle_timeout(family: int) -> None:
    """A flow on which nothing moves ends with a reset on both sides."""
    with looped(family, {"relay": {"idle_timeout": SHORT_TEXT}}) as world:
        world.path.listen()
        pair = world.path.pair()
        echoed(pair)
        watch = Stopwatch()
        expect_reset(pair.client)
        expect_reset(pair.origin)
        assert SHORT * 0.9 < watch.seconds < SHORT * 10
        assert world.ended(pair.name) == "idle"


@families
def test_half_close_timeout(family: int) -> None:
    """A peer that got a FIN and never ends its own half is not kept for ever."""
    with looped(family, {"relay": {"half_close_timeout": SHORT_TEXT}}) as world:
        world.path.listen()
        whole, half = world.path.pair(), world.path.pair()
        half.client.shutdown(socket.SHUT_WR)
        assert receive_all(half.origin) == b""
        expect_reset(half.client)
        assert world.ended(half.name) == "half_close_timeout"
        echoed(whole)


@families
def test_never(family: int) -> None:
    """Nought means never: long silences are ordinary for databases and message queues."""
    never = {"idle_timeout": "0s", "half_close_timeout": "0s", "keepalive_time": "0s"}
    with looped(family, {"relay": never}) as world:
        world.path.listen()
        pair = world.path.pair()
        observe(2 * SHORT)
        echoed(pair)
        pair.client.shutdown(socket.SHUT_WR)
        assert receive_all(pair.origin) == b""
        observe(2 * SHORT)
        pair.origin.sendall(b"late")
        assert receive(pair.client, 4) == b"late"


def test_a_reload_changes_timeouts() -> None:
    """A time-out that was set too long can be shortened while flows live."""
    with looped(settings={"relay": {"idle_timeout": "1h"}}) as world:
        world.path.listen()
        pair = world.path.pair()
        echoed(pair)
        text = world.relay.config_path.read_text()
        world.relay.write_config(text.replace('"1h"', f'"{SHORT_TEXT}"'))
        assert world.relay.ask("reload")["applied"] == ["relay.idle_timeout"]
        expect_reset(pair.client)
        assert world.ended(pair.name) == "idle"
