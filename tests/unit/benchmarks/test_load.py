"""The load generator: latencies against exact ones, counts against the other end's, the schedule against a stalled server."""

import math
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import _client, _load
from tests.support.clock import DEADLINE, Stopwatch, observe
from tests.unit.benchmarks.generator import HOST, SECONDS, client, generator, served

SIZE = 64
RESET = struct.pack("ii", 1, 0)
EXACT_BELOW = 128  # nanoseconds


@contextmanager
def pairs(count: int = 1) -> Iterator[tuple[list[int], list[socket.socket]]]:
    """The descriptors for a client, and the other ends."""
    made = [socket.socketpair() for _ in range(count)]
    try:
        for ours, theirs in made:
            ours.setblocking(False)
            theirs.settimeout(DEADLINE)
        yield [ours.fileno() for ours, _ in made], [theirs for _, theirs in made]
    finally:
        for pair in made:
            for end in pair:
                end.close()


@contextmanager
def echoing(sock: socket.socket) -> Iterator[None]:
    """A server that has come back to life, until the client has what it was waiting for."""

    def echo() -> None:
        with suppress(BrokenPipeError):
            while data := sock.recv(SIZE):
                sock.sendall(data)

    thread = threading.Thread(target=echo)
    thread.start()
    try:
        yield
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=200), st.sampled_from([0.001, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_percentile_is_the_exact_one_to_a_hundredth(values: list[int], fraction: float) -> None:
    """Two relays would differ, or be alike, by the width of a bucket."""
    latencies = _client.Latencies()
    for value in values:
        latencies.add(value)
    exact = sorted(values)[math.ceil(fraction * len(values)) - 1]
    assert abs(latencies.at(fraction) - exact) <= (exact / 100 if exact >= EXACT_BELOW else 0)


@given(st.integers(0, 2**63 - 1))
def test_buckets_keep_the_order_of_values(value: int) -> None:
    """A percentile at the edge of a bucket would be smaller than one below it."""
    latencies = _client.Latencies()
    latencies.add(value)
    latencies.add(value + 1)
    assert latencies.at(0.5) <= latencies.at(1.0)


def test_nothing_measured_has_no_percentile() -> None:
    """A workload that failed whole would show the best latencies of all."""
    with pairs() as (fds, _):
        exchange = _load.Exchange(fds, SIZE)
        assert (exchange.at_us(0.5), exchange.greatest_us()) == (None, None)


def test_requests_are_what_the_server_has_echoed() -> None:
    """Requests per second would be of requests that nobody answered, or answers would be counted twice."""
    with served() as (server, (echo, _, _)):
        found = client("pingpong", echo, "--connections", 8, "--bytes", SIZE)
        served_bytes = server.end()["echo"]
    assert found["errors"] == {}
    assert found["unanswered"] == 0
    assert found["requests"] > 0
    assert served_bytes == {"connections": 8, "bytes": (found["requests"] + found["late"]) * SIZE}
    assert 0 < found["p50_us"] <= found["p90_us"] <= found["p99_us"] <= found["p999_us"] <= found["max_us"]


def test_large_messages_come_back_whole() -> None:
    """What neither a send nor a receive takes at once would hang, or be counted before it is there."""
    size = 8 << 20
    with served() as (server, (echo, _, _)):
        found = client("pingpong", echo, "--connections", 2, "--bytes", size)
        served_bytes = server.end()["echo"]["bytes"]
    assert (found["errors"], found["unanswered"]) == ({}, 0)
    assert served_bytes == (found["requests"] + found["late"]) * size > 0


def test_connections_are_what_the_server_has_accepted() -> None:
    """Connections per second would hold some that failed."""
    with served() as (server, (echo, _, _)):
        found = client("churn", echo, "--connections", 4, "--total", 500)
        served_bytes = server.end()["echo"]
    assert (found["errors"], found["unanswered"]) == ({}, 0)
    count = found["connections"] + found["late"]
    assert 0 < count <= 500
    assert served_bytes == {"connections": count, "bytes": count * SIZE}


def test_no_more_connections_than_the_bound() -> None:
    """A long run would use up the ports of the machine, and measure that."""
    with served() as (server, (echo, _, _)):
        found = client("churn", echo, "--connections", 4, "--total", 5, "--seconds", DEADLINE)
        assert server.end()["echo"]["connections"] == found["connections"] == 5
    assert found["seconds"] < DEADLINE


@pytest.mark.parametrize("copy", [False, True])
def test_bulk_up_is_what_the_sink_has_counted(copy: bool) -> None:
    """Throughput would be of bytes that never arrived."""
    with generator("serve", HOST, "--ports", 0, 0, 0, *["--copy"] * copy) as server:
        found = client("bulk", server.line()["ports"][1], "--connections", 4, "--direction", "up")
        served_bytes = server.end()["sink"]
    assert found["errors"] == {}
    assert 0 < found["bytes"] <= found["sent_bytes"]
    assert found["sink_bytes"] == found["sent_bytes"] == served_bytes["bytes"]


@pytest.mark.parametrize("options", [[], ["--copy"]], ids=["discarded", "copied"])
def test_bulk_down_is_at_most_what_the_source_has_sent(options: list[str]) -> None:
    """Discarding in the kernel would count what it asked for, not what was there."""
    with served() as (server, (_, _, source)):
        found = client("bulk", source, "--connections", 4, "--direction", "down", *options)
        sent = server.end()["source"]
    assert found["errors"] == {}
    assert 0 < found["bytes"] <= sent["bytes"]


def test_discarding_counts_what_was_there() -> None:
    """MSG_TRUNC answers the size of a whole message for datagrams; for a stream it must be what was taken."""
    with (
        socket.create_server((HOST, 0)) as listener,
        socket.create_connection(listener.getsockname()) as ours,
        listener.accept()[0] as theirs,
    ):
        theirs.sendall(b"x" * 1000)
        theirs.shutdown(socket.SHUT_WR)
        ours.setblocking(False)
        bulk = _load.Bulk([ours.fileno()], False)
        bulk.run(DEADLINE)
    assert (bulk.arrived(), bulk.errors()) == (1000, {"EOF": 1})


def test_a_schedule_counts_what_a_stalled_server_kept_waiting() -> None:
    """A relay that stalls would look good, because nobody asked it meanwhile (coordinated omission)."""
    rate = 1000
    with pairs() as (fds, (server,)):
        exchange = _load.Exchange(fds, SIZE, rate)
        watch = Stopwatch()
        exchange.run(SECONDS)
        assert exchange.done == 0
        with echoing(server):
            exchange.drain(DEADLINE)
        seconds = watch.seconds
    due = rate * SECONDS
    assert due <= exchange.late <= due + 1
    assert exchange.unanswered == 0
    # The first was due at the begin of the stall, the last at its end: half of them waited for at least half of it.
    assert exchange.greatest_us() >= SECONDS * 1e6
    assert exchange.at_us(0.55) >= SECONDS * 1e6 / 2
    assert exchange.at_us(0.001) <= (seconds - (due - 1) / rate) * 1e6 * 1.01


def test_without_a_schedule_the_stall_is_one_request() -> None:
    """The closed loop would claim to have asked what it never did."""
    with pairs() as (fds, (server,)):
        exchange = _load.Exchange(fds, SIZE)
        exchange.run(SECONDS)
        with echoing(server):
            exchange.drain(DEADLINE)
    assert (exchange.done, exchange.late) == (0, 1)


@pytest.mark.parametrize("rate", [0, 1000])
def test_what_is_never_answered_counts_with_its_age(rate: int) -> None:
    """The worst requests would be missing from the latencies, because they never ended."""
    with pairs(2) as (fds, _):
        exchange = _load.Exchange(fds, SIZE, rate)
        exchange.run(SECONDS)
        exchange.drain(0)
    due = rate * SECONDS or 2
    assert due <= exchange.unanswered <= due + 1
    assert exchange.late == 0
    assert exchange.greatest_us() >= SECONDS * 1e6


def test_a_schedule_asks_each_connection_in_its_turn() -> None:
    """Some connections would carry the whole load, and others idle."""
    with pairs(4) as (fds, servers):
        exchange = _load.Exchange(fds, SIZE, 1000)
        exchange.run(0.05)
        asked = [server.recv(1 << 16) for server in servers]
    assert [len(data) for data in asked] == [SIZE] * 4


def test_warming_up_is_forgotten() -> None:
    """The slow first requests would be in every percentile."""
    with pairs() as (fds, (server,)), echoing(server):
        exchange = _load.Exchange(fds, SIZE)
        exchange.run(0.05)
        assert exchange.done > 0
        exchange.begin()
        assert (exchange.done, exchange.at_us(0.5)) == (0, None)
        exchange.run(0.05)
        assert exchange.done > 0


def test_marks_are_around_the_seconds() -> None:
    """The relay's CPU would be measured over another time than its requests."""
    with served() as (_, (echo, _, _)):
        options = ("--to", HOST, "--port", echo, "--seconds", SECONDS, "--warmup", 0.05, "--marks")
        with generator("pingpong", *options) as started:
            assert [started.line(), started.line()] == [{"measuring": True}, {"ended": True}]
            assert started.end()["requests"] > 0


def test_an_end_where_an_answer_was_due_is_an_error() -> None:
    """A peer that closes on its clients would be the fastest of all."""
    with pairs() as (fds, (server,)):
        server.shutdown(socket.SHUT_WR)
        exchange = _load.Exchange(fds, SIZE)
        exchange.run(DEADLINE)
    assert (exchange.done, exchange.errors()) == (0, {"EOF": 1})


def test_an_end_is_an_error_of_all_that_was_due() -> None:
    """A thousand requests that a relay lost would look like one."""
    with pairs() as (fds, (server,)):
        exchange = _load.Exchange(fds, SIZE, 1000)
        exchange.run(SECONDS)
        server.shutdown(socket.SHUT_WR)
        exchange.drain(DEADLINE)
    due = 1000 * SECONDS
    assert due <= exchange.errors()["EOF"] <= due + 1
    assert (exchange.done, exchange.late, exchange.unanswered) == (0, 0, 0)


def test_an_end_behind_an_answer_is_an_error() -> None:
    """A connection would be lost between two requests, and with it the rest of its load, unseen."""
    with pairs() as (fds, (server,)):
        server.sendall(b"x" * SIZE)
        server.shutdown(socket.SHUT_WR)
        exchange = _load.Exchange(fds, SIZE, 10)
        exchange.run(DEADLINE)
    assert (exchange.done, exchange.errors()) == (1, {"EOF": 1})


def test_what_is_due_on_a_lost_connection_is_an_error() -> None:
    """One connection of two would fail, and half of the load with it, unseen."""
    with pairs(2) as (fds, (server, other)):
        server.shutdown(socket.SHUT_WR)
        exchange = _load.Exchange(fds, SIZE, 100)
        with echoing(other):
            exchange.run(SECONDS)
            exchange.drain(DEADLINE)
    due = 100 * SECONDS / 2
    assert due <= exchange.errors()["EOF"] <= due + 1
    assert due <= exchange.done + exchange.late <= due + 1


def test_errors_have_their_names() -> None:
    """Whoever looks for the cause of a bad figure would find a number."""
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        port = nobody.getsockname()[1]
        for role, count in (("churn", 3), ("pingpong", 1), ("transfer", 1)):
            found = client(role, port, *(["--total", 3] if role == "churn" else []))
            assert found["errors"] == {"ECONNREFUSED": count}
            assert found.get("p50_us") is None


def test_a_reset_is_named() -> None:
    """A relay that resets could not be told from one that ends."""
    with socket.create_server((HOST, 0)) as listener:
        churn = _load.Churn([-1], HOST, listener.getsockname()[1], 1)

        def reset() -> None:
            with listener.accept()[0] as sock:
                assert sock.recv(SIZE)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        thread = threading.Thread(target=reset)
        thread.start()
        churn.run(DEADLINE)
        thread.join(DEADLINE)
    assert (churn.done, churn.errors()) == (0, {"ECONNRESET": 1})


@pytest.mark.parametrize("size", [1, 1 << 20, 3_000_001])
def test_a_transfer_carries_exactly_so_many_bytes(size: int) -> None:
    """The cost of a byte would be of more bytes, or of fewer, than it is divided by."""
    with served() as (server, (_, sink, _)):
        found = client("transfer", sink, "--bytes", size, "--connections", 3, "--seconds", 0)
        served_bytes = server.end()["sink"]
    assert (found["errors"], found["connections"], found["bytes"]) == ({}, 3, 3 * size)
    assert served_bytes == {"connections": 3, "bytes": 3 * size}


def test_transfers_begin_for_as_long_as_they_are_asked_to() -> None:
    """A megabyte takes less time than it takes to tell what it cost."""
    with served() as (server, (_, sink, _)):
        found = client("transfer", sink, "--bytes", 1)
        assert server.end()["sink"]["connections"] == found["connections"] > 1
    assert found["seconds"] >= SECONDS


def test_a_transfer_that_does_not_arrive_is_an_error() -> None:
    """A relay that loses the end of a connection would be the cheapest of all."""
    with socket.create_server((HOST, 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as sock:
                while sock.recv(1 << 16):
                    pass
                sock.sendall(b"99")

        thread = threading.Thread(target=answer)
        thread.start()
        found = client("transfer", listener.getsockname()[1], "--bytes", 100, "--seconds", DEADLINE)
        thread.join(DEADLINE)
    assert (found["errors"], found["connections"], found["bytes"]) == ({"EOF": 1}, 0, 0)


def test_connections_are_held_until_stdin_ends() -> None:
    """The memory of idle connections would be measured while they come or go."""
    with (
        served() as (server, (echo, _, _)),
        generator("hold", "--to", HOST, "--port", echo, "--connections", 50, "--ask") as held,
    ):
        assert held.line() == {"open": 50, "errors": {}}
        observe(SECONDS)
        assert held.process.poll() is None
        held.end()
        assert server.end()["echo"] == {"connections": 50, "bytes": 50 * SIZE}
