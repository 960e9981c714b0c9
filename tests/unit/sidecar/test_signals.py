"""sidecar.proxy.signals: signals wake the loop, in their order."""

import os
import select
import signal
from collections.abc import Iterator

import pytest

from sidecar.proxy.signals import HANDLED, IGNORED, Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    numbers = (*HANDLED, *IGNORED, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    signals = Signals()
    yield signals
    signals.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_are_taken_in_their_order(signals: Signals) -> None:
    """SIGTERM would kill the relay with its connections, or be lost beside another signal."""
    assert signals.take() == []
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
        os.kill(os.getpid(), number)
    assert select.select([signals.fileno()], [], [], 10)[0]
    assert signals.take() == [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM]


def test_a_storm_of_signals_blocks_nobody(signals: Signals) -> None:
    """Somebody who sends a thousand SIGHUPs would stop the main thread."""
    for _ in range(2000):
        os.kill(os.getpid(), signal.SIGHUP)
    assert set(signals.take()) == {signal.SIGHUP}


def test_children_of_pid_1_leave_no_zombies(signals: Signals) -> None:
    """As PID 1 the relay inherits orphans: the process table would fill."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)
