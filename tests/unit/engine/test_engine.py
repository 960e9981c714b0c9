"""class Engine by itself: what a hostile reader of its code found, and what it must never do again."""

import errno
import os
import signal
import socket
import threading

import pytest

from relaycore import REASONS, Engine, setns, unshare
from tests.support.bench import SETTINGS, Bench
from tests.support.clock import observe
from tests.support.peers import delivered, fill, receive_until_reset, reset

SIZE = 600_000
SMALL = 16_384


def read_slowly(sock: socket.socket) -> int:
    """Some kilobytes at a time, until all is there or the end is told."""
    received = 0
    while received < SIZE and (part := sock.recv(8192)):
        received += len(part)
        observe(0.01)
    return received


@pytest.mark.parametrize("fin", [False, True])
def test_a_steady_reader_is_not_idle(fin: bool) -> None:
    """A client on a slow link would lose what the relay wrote at once and the client reads for long."""
    with Bench(idle_timeout_ms=300, half_close_timeout_ms=300) as bench:
        client, origin = bench.connect(receive_buffer=SMALL)
        origin.sendall(b"x" * SIZE)
        if fin:
            origin.shutdown(socket.SHUT_WR)
        assert read_slowly(client) == SIZE


def test_a_half_close_timeout_does_not_cut_a_reset_short() -> None:
    """What the origin sent before its reset would be lost, and the log would blame a time-out."""
    with Bench(half_close_timeout_ms=100) as bench:
        client, origin = bench.connect(receive_buffer=SMALL)
        origin.sendall(b"x" * SIZE)
        delivered(origin)
        reset(origin)
        observe(0.3)
        assert len(receive_until_reset(client)) == SIZE
        assert REASONS[bench.record().reason] == "reset_by_origin"


def test_an_error_that_a_write_told_reaches_a_client_that_does_not_read() -> None:
    """A client that writes to an origin that is gone would wait for an hour to be told."""
    with Bench() as bench:
        client, origin = bench.connect(receive_buffer=SMALL)
        fill(origin, b"x" * 65_536)
        reset(origin)
        client.sendall(b"still there?")
        record = bench.record()
        assert (REASONS[record.reason], bench.engine.counters()["resets_forced"]) == ("reset_by_origin", 1)


def test_a_listener_that_is_shut_down_costs_nothing() -> None:
    """Whoever handed the socket over may shut it down: the worker would spin for ever."""
    with Bench() as bench:
        client, origin = bench.connect()
        bench.listener.shutdown(socket.SHUT_RDWR)
        client.sendall(b"a")
        assert origin.recv(1) == b"a"
        before = bench.engine.counters()["turns"]
        observe(0.3)
        assert bench.engine.counters()["turns"] - before < 10


def test_stop_dials_nothing() -> None:
    """The second signal means now: a full backlog would first be dialled and then be reset."""
    with Bench(start=False) as bench:
        clients = [socket.create_connection(bench.door) for _ in range(20)]
        bench.engine.stop()
        bench.engine.start()
        assert bench.engine.join(10)
        bench.origin.settimeout(0.1)
        with pytest.raises(TimeoutError):
            bench.origin.accept()
        assert bench.engine.opened() == [0]
        for client in clients:
            client.close()


def test_signals_do_not_disturb_the_list_of_flows() -> None:
    """`flows` would fail whenever a signal came at the wrong moment."""
    done = threading.Event()
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGUSR1, lambda *_: None)

    def disturb() -> None:
        while not done.wait(0.0005):
            signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=disturb)
    with Bench() as bench:
        thread.start()
        try:
            for _ in range(2000):
                assert bench.engine.flows() == []
        finally:
            done.set()
            thread.join()
            signal.signal(signal.SIGUSR1, before)


def test_flows_after_the_end_are_none() -> None:
    """The last look at a relay that has ended would fail."""
    bench = Bench()
    with bench:
        bench.engine.stop()
        assert bench.engine.join(10)
        assert bench.engine.flows() == []
        assert (bench.engine.running, bench.engine.live) == (0, 0)


@pytest.mark.parametrize(
    ("key", "value"), [("idle_timeout_ms", -1), ("connect_timeout_ms", 1 << 60), ("own_networks", ["10.0.0.0/33"])]
)
def test_settings_out_of_range_change_nothing(key: str, value: object) -> None:
    """A wrong figure would wrap round and end every flow at once."""
    with Bench() as bench:
        with pytest.raises(ValueError, match="expected"):
            bench.engine.configure(SETTINGS._replace(**{key: value}))  # type: ignore[arg-type]
        client, origin = bench.connect()
        client.sendall(b"a")
        assert origin.recv(1) == b"a"


@pytest.mark.parametrize("tuning", [{"workers": 0}, {"workers": 1, "turn_bytes": 0}, {"workers": 1, "copy_bytes": 1 << 20}])
def test_sizes_out_of_range_are_refused(tuning: dict[str, int]) -> None:
    """An engine would start that cannot move a byte."""
    with pytest.raises(ValueError, match="expected"):
        Engine(SETTINGS, **tuning)


def test_a_target_that_is_the_own_port_is_a_loop_however_spelt() -> None:
    """One connection to a relay whose target is itself would become as many as it may have."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    door = listener.getsockname()
    engine = Engine(SETTINGS, workers=1)
    engine.add_listener([listener.detach()], direction=2, capture=2, port=door[1], target=("0.0.0.0", door[1]))
    engine.start()
    client = socket.create_connection(door)
    assert receive_until_reset(client) == b""
    engine.stop()
    assert engine.join(10)
    assert engine.reasons()[0]["loop"] == 1


def test_a_namespace_that_cannot_be_had_is_an_error() -> None:
    """Rules that were meant for another namespace would be applied in this one."""
    with open(os.devnull) as no_namespace:
        for refused, code in ((lambda: setns(no_namespace.fileno(), 0), errno.EINVAL), (lambda: unshare(1), errno.EINVAL)):
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                refused()
            assert caught.value.errno == code
