"""Faults of the machine: descriptors, flows, pipes and memory that run out, calls that fail, too many clients at once."""

import errno
import resource
import subprocess

from tests.faults.case import Case, scenario
from tests.support import loads
from tests.support.clock import Stopwatch, eventually
from tests.support.injection import injected
from tests.support.netns import Place
from tests.support.path import Path
from tests.support.peers import receive
from tests.support.relay import relay_user
from tests.support.traffic import MIB, Stream, exchange, together
from tests.support.users import launcher, script
from tests.support.world import World

FLOWS = 10


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
        assert world.relay.counted().counters["files_limited"] > 0


def limit_descriptors(world: World, count: int) -> None:
    """Only the relay's own user may, once it is no longer root."""
    argv = ["prlimit", "--pid", str(world.relay.process.pid), f"--nofile={count}:"]
    subprocess.run([*launcher(int(relay_user())), *argv], check=True)


@scenario("flows-limited")
def as_many_flows_as_allowed(case: Case) -> None:
    with case.world({"relay": {"max_flows": FLOWS}}) as world:
        at_the_limit(case, world)
        echoed(world)
        assert world.relay.counted().counters["flows_limited"] > 0


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
        names = together(*[world.path.dial_in_vain] * FLOWS)
        assert {world.ended(name) for name in names} == {"limit"}
        world.relay.assert_idle()
        for pair in served:
            pair.client.sendall(b"still")
            assert receive(pair.origin, 5) == b"still"
            pair.client.close()
            pair.origin.close()
    assert eventually(world.relay.at_rest)


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


# The budget of pipes is counted per user over the whole machine: a user of this test's own spares the others.
HOLDER = 20002
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
    user = {"relay": {"user": str(HOLDER), "group": str(HOLDER)}}
    with case.world(user) as world:
        with_pipes = bulk_seconds(world, "splice")
    holder = Place().popen(script(HOLDER, HOLD_PIPES), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with case.world(user) as world:
            without = bulk_seconds(world, "copy")
            assert world.relay.counted().counters["pipes_denied"] > 0
    finally:
        holder.kill()
        holder.communicate()
    assert without <= 2 * with_pipes


def bulk_seconds(world: World, lane: str) -> float:
    """The best of three."""
    world.path.listen()
    times = []
    for _ in range(3):
        watch = Stopwatch()
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(1, 32 * MIB), Stream(2, 32 * MIB))
        times.append(watch.seconds)
        assert world.relay.access(client=name)["lane"] == lane
    return min(times)


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
