"""Copies for a mirror: what it gets, and that its troubles are nobody else's."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from relaycore.element import OptionError
from relaycore.elements import mirror
from relaycore.elements.mirror import Mirror
from relaycore.testing import Drive
from tests.support.clock import DEADLINE, eventually
from tests.support.peers import receive, receive_all, receive_until_reset, text_of

KIB = 1024


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A mirror that accepts when its test does."""
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        sock.settimeout(DEADLINE)
        yield sock


def accepted(server: socket.socket) -> socket.socket:
    sock, _ = server.accept()
    sock.settimeout(DEADLINE)
    return sock


def to(server: socket.socket, **options: str) -> dict[str, str]:
    return {"to": text_of(server.getsockname()), **options}


def test_the_mirror_gets_the_requests_and_their_end(server: socket.socket) -> None:
    """A copy would miss bytes, hold those of the origin, or never end."""
    drive = Drive(Mirror, options=to(server))
    assert drive.request(b"one ") == b"one "
    assert drive.response(b"answer") == b"answer"
    with accepted(server) as copy:
        assert receive(copy, 4) == b"one "
        assert drive.request(b"two", ends=True) == b"two"
        assert receive_all(copy) == b"two"
    drive.close()
    assert (drive.outcome, drive.errors) == ("on", [])
    assert (drive.shared[0].connections, drive.shared[0].dropped) == (1, 0)


def test_each_flow_has_a_connection_of_its_own(server: socket.socket) -> None:
    """Two clients would be mixed into one stream."""
    first = Drive(Mirror, options=to(server))
    flows = [first, Drive(Mirror, shared=first.shared), Drive(Mirror, shared=first.shared)]
    for number, flow in enumerate(flows):
        flow.request(b"%d" % number)
    for number, flow in enumerate(flows):
        flow.request(b"%d" % number)
        flow.close()
    found = []
    for _ in flows:
        with accepted(server) as copy:
            found.append(receive_all(copy))
    assert sorted(found) == [b"00", b"11", b"22"]


def test_what_the_mirror_says_is_thrown_away(server: socket.socket) -> None:
    """A mirror that answers at length would be stopped by its own answers."""
    drive = Drive(Mirror, options=to(server))
    drive.request(b"a")
    with accepted(server) as copy:
        copy.sendall(b"x" * (16 << 20))
        drive.request(b"b", ends=True)
        assert receive_all(copy) == b"ab"
    assert drive.response(b"answer") == b"answer"


def test_a_mirror_that_says_no_more_still_listens(server: socket.socket) -> None:
    """A mirror that only listens would lose the rest, or the thread would spin."""
    drive = Drive(Mirror, options=to(server))
    drive.request(b"a")
    with accepted(server) as copy:
        copy.shutdown(socket.SHUT_WR)
        assert receive(copy, 1) == b"a"
        drive.request(b"b", ends=True)
        assert receive_all(copy) == b"b"


def test_a_slow_mirror_costs_its_copy_and_nothing_else(server: socket.socket) -> None:
    """A mirror that does not read would fill memory, or hold up the flow."""
    drive = Drive(Mirror, options=to(server, buffer="64KiB"))
    data = bytes(32 * KIB)
    count = 0
    while not drive.released:
        assert drive.request(data) == data
        count += 1
        assert count < 10_000
    assert count > 2
    assert drive.outcome == "on"
    assert drive.shared[0].dropped == 1


def test_a_dead_mirror_is_given_up(server: socket.socket) -> None:
    """Flows would fail, or go through Python for a mirror that is not there."""
    drive = Drive(Mirror, options=to(server))
    server.close()
    assert drive.request(b"a") == b"a"
    assert eventually(lambda: drive.shared[0].dropped == 1)
    assert drive.request(b"b") == b"b"
    assert (drive.released, drive.outcome, drive.errors) == (True, "on", [])
    assert drive.shared[0].connections == 0


def test_a_mirror_that_takes_too_long_is_given_up(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of flows that ended long ago would pile up."""
    monkeypatch.setattr(mirror, "SWEEP", 0.01)
    now = 100.0
    drive = Drive(Mirror, options=to(server, buffer="64MiB"))
    drive.shared[0].clock = lambda: now
    drive.request(b"x")
    with accepted(server):
        assert eventually(lambda: drive.shared[0].connections == 1)
        for _ in range(16):  # more than two kernels keep
            drive.request(bytes(2 << 20))
        drive.close()
        assert drive.shared[0].dropped == 0
        now += mirror.PATIENCE
        assert eventually(lambda: drive.shared[0].dropped == 1)


def test_a_thread_that_nobody_needs_ends_and_comes_again(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every load would leave a thread behind."""
    monkeypatch.setattr(mirror, "IDLE", 0.01)
    first = Drive(Mirror, options=to(server))
    for drive in (first, Drive(Mirror, shared=first.shared)):
        drive.request(b"a", ends=True)
        with accepted(server) as copy:
            assert receive_all(copy) == b"a"
        assert eventually(lambda: first.shared[0]._wakeup == -1)


@pytest.mark.parametrize("options", [{}, {"to": "mirror:80"}, {"to": "127.0.0.1:80", "buffer": "0B"}])
def test_options_that_do_not_fit(options: dict[str, str]) -> None:
    """A mirror that gets nothing would be noticed when it is needed."""
    with pytest.raises(OptionError):
        Drive(Mirror, options=options)


def test_all_flows_together_hold_no_more_than_the_total(server: socket.socket) -> None:
    """A mirror that does not read would cost the relay its buffer for every flow."""
    first = Drive(Mirror, options=to(server, buffer="64MiB", total="64MiB"))
    flows = [first, *(Drive(Mirror, shared=first.shared) for _ in range(20))]
    for _ in range(10):
        for flow in flows:
            if not flow.released:
                flow.request(b"x" * (KIB * KIB))
    shared = first.shared[0]
    assert shared.dropped > 0
    assert 0 <= shared._held <= 64 * KIB * KIB


def test_a_fault_of_its_thread_is_not_the_end_of_copying(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one fault no flow would be copied any more, and nobody would be told."""
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    first = Drive(Mirror, options=to(server))
    mirrors = first.shared[0]
    dialled = mirrors._dialled
    monkeypatch.setattr(mirrors, "_dialled", lambda: 1 // 0)
    first.request(b"a")
    eventually(lambda: bool(told))
    assert told[0].exc_type is ZeroDivisionError
    monkeypatch.setattr(mirrors, "_dialled", dialled)
    second = Drive(Mirror, shared=first.shared)
    second.request(b"b")
    with accepted(server) as copy:
        assert receive(copy, 1) in (b"a", b"b")


def test_a_copy_that_is_given_up_ends_with_a_reset(server: socket.socket) -> None:
    """The mirror would take what was cut for a whole request."""
    drive = Drive(Mirror, options=to(server, buffer="64KiB"))
    drive.request(b"one")
    with accepted(server) as copy:
        assert receive(copy, 3) == b"one"
        drive.request(b"x" * (128 * KIB))
        assert receive_until_reset(copy) == b""
