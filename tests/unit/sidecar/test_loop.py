"""sidecar.loop: readiness and timers."""

import os
import socket

import pytest

from sidecar.loop import READABLE, WRITABLE, Loop


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_a_ready_descriptor_calls_back(loop: Loop) -> None:
    """Signals, finished flows and admin clients would never be noticed."""
    one, other = socket.socketpair()
    called = []
    loop.watch(one.fileno(), READABLE, lambda: called.append(one.recv(9)))
    other.send(b"x")
    loop.run_once()
    assert called == [b"x"]
    loop.watch(one.fileno(), WRITABLE, lambda: called.append(b"writable"))
    loop.run_once()
    assert called == [b"x", b"writable"]


def test_a_callback_may_forget_and_close_what_is_ready_too(loop: Loop) -> None:
    """Closing one client from the callback of another would end the relay, or call back for a stranger's descriptor."""
    pairs = [socket.socketpair() for _ in range(2)]
    called = []

    def close_both() -> None:
        called.append(1)
        for one, _ in pairs:
            loop.forget(one.fileno())
            one.close()

    for one, other in pairs:
        loop.watch(one.fileno(), READABLE, close_both)
        other.send(b"x")
    loop.run_once()
    assert called == [1]


def test_a_number_that_is_used_again_in_a_batch_is_not_called_back(loop: Loop) -> None:
    """A new client would be served an event of the one whose descriptor it inherited."""
    pairs = [socket.socketpair() for _ in range(2)]
    called = []

    def replace_other(own: int) -> None:
        number = pairs[1 - own][0].fileno()
        loop.forget(number)
        reader, _ = os.pipe()
        os.dup2(reader, number)
        loop.watch(number, READABLE, lambda: called.append("stranger"))
        called.append("first")

    for index, (one, other) in enumerate(pairs):
        loop.watch(one.fileno(), READABLE, lambda index=index: replace_other(index))
        other.send(b"x")
    loop.run_once()
    assert called == ["first"]


def test_timers_fire_in_their_order(loop: Loop) -> None:
    """A drain deadline could come before what was due earlier."""
    called: list[int] = []
    for seconds, name in ((0.002, 3), (0, 1), (0, 2)):
        loop.call_later(seconds, lambda name=name: called.append(name))
    while len(called) < 3:
        loop.run_once()
    assert called == [1, 2, 3]


def test_forgetting_twice_is_harmless(loop: Loop) -> None:
    """Closing a client that is already gone would end the relay."""
    one, _ = socket.socketpair()
    loop.watch(one.fileno(), READABLE, lambda: None)
    loop.forget(one.fileno())
    loop.forget(one.fileno())
