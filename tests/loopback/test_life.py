"""The life of the process: how it starts, what it is told by signals, environment and service managers, how it ends."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.support.clock import DEADLINE, Stopwatch
from tests.support.peers import expect_reset, receive, receive_all, text_of
from tests.support.relay import PROGRAM
from tests.support.world import World, looped

START_SECONDS = 0.150  # from exec to listening

# What a service manager does: the socket becomes descriptor 3, the variables name it, the program takes over the process.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="loop")
os.execv(sys.argv[2], sys.argv[2:])
"""


def served(world: World) -> None:
    """A new connection goes through."""
    client, origin, _ = world.path.pair()
    client.sendall(b"alive")
    assert receive(origin, 5) == b"alive"


def test_it_listens_soon() -> None:
    """Every millisecond of the sidecar's start delays the app's first connection."""
    watch = Stopwatch()
    with looped():
        assert watch.seconds < 10 * START_SECONDS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_drains(number: signal.Signals) -> None:
    """What is under way is finished, and an empty relay ends at once."""
    with looped() as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        world.relay.signal(number)
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b"last words"
        origin.sendall(b"heard")
        origin.close()
        assert receive_all(client) == b"heard"
        assert world.relay.exit_status() == 0
        assert world.ended(name) == "finished"


def test_connections_that_wait_are_still_served_by_a_drain() -> None:
    """A client whose connection the kernel has accepted knows nothing of our end: it must not be reset."""
    with looped() as world:
        world.path.listen()
        with world.relay.frozen():
            clients = [world.path.dial() for _ in range(50)]
            world.relay.signal(signal.SIGTERM)
        for client in clients:
            client.sendall(b"x")
            client.shutdown(socket.SHUT_WR)
        for _ in clients:
            origin = world.path.accept()
            assert receive_all(origin) == b"x"
            origin.close()
        for client in clients:
            assert receive_all(client) == b""
        assert world.relay.exit_status() == 0


def test_the_deadline_of_a_drain() -> None:
    """A flow that does not end must not keep a pod from ending; it is counted, and the status is 0 all the same."""
    with looped(settings={"relay": {"drain_timeout": "500ms"}}) as world:
        world.path.listen()
        pair = world.path.pair()
        watch = Stopwatch()
        world.relay.signal(signal.SIGTERM)
        expect_reset(pair.client)
        assert 0.45 < watch.seconds < 5
        assert world.relay.exit_status() == 0
        assert world.ended(pair.name) == "drained"
        assert world.relay.await_records(1, event="stop")[0]["flows_cut"] == 1


def test_a_second_signal_ends_at_once() -> None:
    """Whoever presses Ctrl-C twice means now."""
    with looped(settings={"relay": {"drain_timeout": "1h"}}) as world:
        world.path.listen()
        pair = world.path.pair()
        world.relay.signal(signal.SIGINT)
        world.relay.await_records(1, event="drain")
        world.relay.signal(signal.SIGINT)
        expect_reset(pair.client)
        world.relay.expected_status = 1
        assert world.relay.exit_status() == 1


def test_drain_by_command() -> None:
    """`relay-sidecar drain` does what SIGTERM does, for those who cannot send signals."""
    with looped() as world:
        world.path.listen()
        done = command(world, "drain", "--json")
        assert done.returncode == 0
        assert world.relay.exit_status() == 0


def command(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    """A subcommand, put to this relay by its configuration."""
    argv = [*PROGRAM, words[0], "--config", str(world.relay.config_path), *words[1:]]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [("wait",), ("stats",), ("flows",), ("check",), ("reload",)], ids=" ".join)
def test_commands_answer(words: tuple[str, ...]) -> None:
    """What an operator types answers in text and in JSON."""
    with looped() as world:
        world.path.listen()
        served(world)
        for extra in ((), ("--json",)) if words != ("check",) else ((),):
            done = command(world, *words, *extra)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith("{") == bool(extra)


def test_the_environment_goes_before_the_file() -> None:
    """TARGET_ADDR says where connections go, as it did in older proxies."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(DEADLINE)
        with looped(environment={"TARGET_ADDR": text_of(elsewhere.getsockname())}) as world:
            client = world.path.dial()
            origin, _ = elsewhere.accept()
            with origin:
                client.sendall(b"there?")
                assert receive(origin, 6) == b"there?"


def test_a_service_manager_is_told() -> None:
    """systemd starts what depends on us when we are ready, not when we were started."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind("\0" + f"relay-tests-{os.getpid()}")
        with looped(environment={"NOTIFY_SOCKET": f"@relay-tests-{os.getpid()}"}):
            assert b"READY=1" in manager.recv(1000)
        assert b"STOPPING=1" in manager.recv(1000)


def test_a_socket_that_is_handed_over_is_used() -> None:
    """Socket activation: the port is open before the relay runs, and no connection is lost meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, address = listener.fileno(), listener.getsockname()
        handed_over = [sys.executable, "-c", HAND_OVER, str(fd)]
        with looped(launcher=handed_over, pass_fds=[fd]) as world:
            world.path.listen()
            assert world.path.dial_to == address
            served(world)
