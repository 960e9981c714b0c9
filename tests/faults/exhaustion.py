"""Faults of the machine: descriptors, flows, pipes and memory that run out, calls that fail, too many clients at once."""

import errno
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.case import Case, scenario
from tests.support import loads
from tests.support.clock import Stopwatch, eventually
from tests.support.injection import injected
from tests.support.netns import Place
from tests.support.path import Path
from tests.support.peers import receive
from tests.support.relay import relay_user
from tests.support.traffic import MIB, Stream, exchange, together
from tests.support.users import launcher, nobody_else, script
from tests.support.world import World

FLOWS = 10
PATIENCE = 1.0  # how long a limit may last before those who wait are told


def echoed(world: World, word: bytes = b"alive") -> None:
    """A new connection is served."""
    client, origin, _ = world.path.pair()
    client.sendall(word)
    assert receive(origin, len(word)) == word


@scenario("descriptors-gone")
def no_descriptor_left(case: Case) -> None:
    with case.world() as world:
        assert eventually(world.relay.at_rest)
        limit_descriptors(world, len(world.relay.descriptors()) + 2 * FLOWS)
        at_the_limit(case, world)
        limit_descriptors(world, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        echoed(world)
        assert_counted(case, world, "files_limited")


def limit_descriptors(world: World, count: int) -> None:
    """Only the relay's own user may, once it is no longer root."""
    argv = ["prlimit", "--pid", str(world.relay.process.pid), f"--nofile={count}:"]
    subprocess.run([*launcher(int(relay_user())), *argv], check=True)


@scenario("flows-limited")
def as_many_flows_as_allowed(case: Case) -> None:
    with case.world({"relay": {"max_flows": FLOWS}}) as world:
        at_the_limit(case, world)
        echoed(world)
        assert_counted(case, world, "flows_limited")


def at_the_limit(case: Case, world: World) -> None:
    """Fill the relay to its limit and let some wait; then make room, or let the limit last."""
    world.path.listen()
    served = [world.path.pair() for _ in range(FLOWS)]
    if case.variant == "freed-in-time":
        waiting = [world.path.dial() for _ in range(FLOWS)]
        for client in waiting:
            client.sendall(b"now")
        for pair in served:
            pair.client.close()
            pair.origin.close()
        for client in waiting:
            origin = world.path.accept()
            assert receive(origin, 3) == b"now"
            origin.close()
            client.close()
    else:
        watch = Stopwatch()
        names = together(*[world.path.dial_in_vain] * FLOWS)
        assert watch.seconds > PATIENCE * 0.9
        assert {world.ended(name) for name in names} == {"limit"}
        world.relay.assert_idle()
        for pair in served:
            pair.client.sendall(b"still")
            assert receive(pair.origin, 5) == b"still"
            pair.client.close()
            pair.origin.close()
    assert eventually(world.relay.at_rest)


def assert_counted(case: Case, world: World, limit: str) -> None:
    """The limit was counted, and that connections were shed because it lasted."""
    counters = world.relay.counted().counters
    assert counters[limit] > 0
    assert (counters["connections_shed"] > 0) == (case.variant == "lasting")


@scenario("injected")
def calls_that_fail(case: Case) -> None:
    call, _, error = case.variant.partition("-")
    with case.world() as world:
        world.path.listen()
        lost = 0
        # A pipe that was made stays in the pool, and after one that was not the relay waits before it asks again.
        every, errors = (1, 5) if call == "pipe2" else (3, 30)
        # Of epoll_ctl only ADD can fail in a kernel; small flows need nothing else.
        size = 1000 if call == "epoll_ctl" else MIB
        with injected(world.relay, call, error, every=every) as injection:
            while injection.count() < errors:
                lost += not relayed(world.path, size)
        assert lost <= (0 if error == "EINTR" else injection.count())
        for _ in range(10):
            assert relayed(world.path, size)


def relayed(path: Path, size: int) -> bool:
    """One flow, so many bytes both ways: every one of them, or a reset."""
    try:
        client = path.dial()
        origin = path.accept_for(client)
        exchange(client, origin, Stream(1, size), Stream(2, size))
    except OSError as error:
        assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN), error
        return False
    return True


HOLD_PIPES = """
import os, sys
held = []
for _ in range(1500):
    held.append(os.pipe())
print("held", flush=True)
sys.stdin.read()
"""


@scenario("pipes-gone")
def no_pipe_left(case: Case) -> None:
    uid = nobody_else()  # their pipes would count as ours, and ours as theirs
    user = {"relay": {"user": str(uid), "group": str(uid), "workers": 1}}
    with case.world(user) as rich:
        rich.path.listen()
        bulk_seconds(rich, "splice")  # its worker keeps the pipes that it has made
        with holding_pipes(uid), case.world(user) as poor:
            poor.path.listen()
            seconds = [(bulk_seconds(rich, "splice"), bulk_seconds(poor, "copy")) for _ in range(5)]
            assert poor.relay.counted().counters["pipes_denied"] > 0
    with_pipes, without = (min(times) for times in zip(*seconds, strict=True))
    assert without <= 2 * with_pipes


@contextmanager
def holding_pipes(uid: int) -> Iterator[None]:
    """All that the user may have are held by another of its processes."""
    holder = Place().popen(script(uid, HOLD_PIPES), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield
    finally:
        holder.kill()
        holder.communicate()


def bulk_seconds(world: World, lane: str) -> float:
    """How long some bulk takes, which must use this lane."""
    watch = Stopwatch()
    client, origin, name = world.path.pair()
    exchange(client, origin, Stream(1, 32 * MIB), Stream(2, 32 * MIB))
    seconds = watch.seconds
    assert world.relay.access(client=name)["lane"] == lane
    return seconds


@scenario("storm")
def all_at_once(case: Case) -> None:
    connections = 8000
    with case.world({"log": {"access": False}}) as world:
        world.path.unlisten()
        resident = world.relay.resident_bytes()
        with (
            loads.echo(world.path.far, world.path.origin),
            loads.clients(world.path.near, world.path.dial_to, connections, connections) as storm,
        ):
            assert storm.answer()["served"] > 0.99 * connections
            grown = world.relay.resident_bytes() - resident
        assert grown < connections * 4096
        world.relay.await_flows(0)
