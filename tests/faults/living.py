"""Faults of the relay's own life: signals, files, clocks and logs. The flows that there are do not notice."""

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile

from tests.faults.case import Case, scenario
from tests.faults.spoilt import spoilt_files
from tests.support import loads
from tests.support.clock import DEADLINE, Stopwatch, eventually
from tests.support.path import Pair
from tests.support.peers import expect_reset, receive, receive_all, reset
from tests.support.world import World

FLOWS = 1000


def answered(pair: Pair) -> None:
    """A word each way: the flow is alive."""
    for sender, receiver in ((pair.client, pair.origin), (pair.origin, pair.client)):
        sender.sendall(b"word")
        assert receive(receiver, 4) == b"word"


def refuses(world: World) -> bool:
    """Whether a new connection is refused, not just reset."""
    try:
        reset(world.path.dial())
    except ConnectionRefusedError:
        return True
    return False


@scenario("sigterm")
def told_to_end(case: Case) -> None:
    with case.world({"relay": {"drain_timeout": "1s" if case.variant == "deadline" else "1h"}}) as world:
        world.path.listen()
        pairs = [world.path.pair() for _ in range(FLOWS)]
        watch = Stopwatch()
        world.relay.signal(signal.SIGTERM)
        assert eventually(lambda: refuses(world))
        if case.variant == "flows-end":
            for pair in pairs:
                answered(pair)
                pair.client.shutdown(socket.SHUT_WR)
                assert receive_all(pair.origin) == b""
                pair.origin.close()
                assert receive_all(pair.client) == b""
            reason = "finished"
        else:
            answered(pairs[0])
            reason = "drained"
            if case.variant == "twice":
                watch = Stopwatch()
                world.relay.signal(signal.SIGTERM)
                world.relay.expected_status = 1
            for pair in pairs:
                expect_reset(pair.client, within=DEADLINE + 1)
            assert case.variant == "twice" or watch.seconds > 0.9
        assert world.relay.exit_status() == world.relay.expected_status
        world.relay.await_records(FLOWS, event="access", reason=reason)


@scenario("bad-reload")
def a_file_that_cannot_be_used(case: Case) -> None:
    with case.world() as world:
        world.path.listen()
        pair = world.path.pair()
        good = world.relay.config_path.read_bytes()
        for content, names in spoilt_files(good):
            said = len(world.relay.messages.all())
            world.relay.config_path.write_bytes(content)
            world.relay.signal(signal.SIGHUP)
            world.relay.await_message(str(world.relay.config_path), names, after=said)
        answered(pair)
        answered(world.path.pair())


def faked_clock(offset_file: str) -> dict[str, str]:
    """The environment of a program whose wall clock is off by what the file says; as in a step, CLOCK_MONOTONIC is not."""
    Path(offset_file).chmod(0o644)
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert libraries, "libfaketime is missing: apt-get install faketime"
    return {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": offset_file,
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@scenario("clock-step")
def the_wall_clock_jumps(case: Case) -> None:
    with NamedTemporaryFile("w") as offset, ExitStack() as stack:
        offset.write("+0d")  # libfaketime ends the process that finds it empty
        offset.flush()
        world = stack.enter_context(case.world({"relay": {"idle_timeout": "1h"}}, environment=faked_clock(offset.name)))
        world.path.listen()
        pair = world.path.pair()
        years = set()
        for step in ("+370d", "-370d"):
            offset.seek(0)
            offset.write(step)
            offset.flush()
            answered(pair)
            brief = world.path.pair()
            brief.client.close()
            brief.origin.close()
            record = world.relay.access(client=brief.name)
            years.add(record["time"][:4])
            assert 0 <= record["connect_ms"] <= record["duration_ms"] < DEADLINE * 1000
        assert len(years) == 2, "the clock did not jump"
        world.relay.assert_idle()


@scenario("log-stuck")
def nobody_takes_the_log(case: Case) -> None:
    flows, queue = 5000, 100
    unread, blocked = os.pipe()
    with (
        Path("/dev/full").open("wb") if case.variant == "disk-full" else os.fdopen(blocked, "wb") as stdout,
        case.world({"log": {"queue": queue}}, stdout=stdout) as world,
    ):
        world.path.unlisten()
        resident = world.relay.resident_bytes()
        with (
            loads.echo(world.path.far, world.path.origin, "--once"),
            loads.clients(world.path.near, world.path.dial_to, flows, 50) as clients,
        ):
            assert clients.answer() == {"served": flows, "held": 0, "errors": {}}
        assert eventually(lambda: world.relay.counted().lost_records > 0)
        assert world.relay.resident_bytes() - resident < 4 << 20
        world.relay.assert_idle()
    os.close(unread)
