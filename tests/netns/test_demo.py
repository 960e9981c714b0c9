"""`relay-sidecar demo`: all is real, all is shown, and whatever happens nothing is left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import eventually
from tests.support.foreign import snapshot
from tests.support.netns import Namespace
from tests.support.relay import PROGRAM
from tests.support.rule_commands import backends, captures
from tests.support.users import launcher

SMALL = ("--size", "16MiB")
NOBODY = 65534


@contextmanager
def started(place: Namespace, *arguments: str, before: Sequence[str] = (), **more: Any) -> Iterator["subprocess.Popen[str]"]:
    """In a namespace of the tests, as in a machine; what it says is read line by line."""
    with place.entered():
        process = subprocess.Popen(
            [*before, *PROGRAM, "demo", *SMALL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def events(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), err
    return [json.loads(line) for line in out.splitlines()]


def family_of(pid: int) -> list[Path]:
    """What is there of a process and all that came of it; a directory of /proc goes with its process."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [Path(f"/proc/{pid}"), *(path for child in children for path in family_of(int(child)))]


def are_gone(family: Sequence[Path]) -> bool:
    return not any(path.exists() and "State:\tZ" not in (path / "status").read_text() for path in family)


@captures
@backends
def test_each_connection_is_real_and_explained(namespace: Namespace, capture: str, backend: str) -> None:
    """A newcomer would see a show, or a failure in his first minute."""
    before = snapshot(namespace)
    configuring = {"RELAY_CONFIG": "/nowhere", "LOG_LEVEL": "error", "TARGET_ADDR": "10.2.0.2:80", "NOTIFY_SOCKET": "/nowhere"}
    settings = {**os.environ, **configuring}
    with started(namespace, "--json", "--capture", capture, "--backend", backend, env=settings) as process:
        told = events(process)
    scenes = [event for event in told if event["event"] == "scene"]
    assert [scene["record"]["reason"] if scene["record"] else None for scene in scenes] == [
        *("finished", "finished", "finished", "refused", None)
    ]
    page, bulk, half, _, closed = scenes
    assert page["seen"].startswith("HTTP/1.0 200 OK")
    assert bulk["seen"] == "16.0 MiB, each byte as it was sent"
    assert 0 <= bulk["record"]["bytes_received"] - (16 << 20) < 100, "all of it, and the answer's head"
    assert half["seen"].endswith("the server answered '5000000'")
    assert half["record"]["client"].startswith("[fd00:")
    assert "inbound: to inbound" in page["rules"]
    assert "outbound: to outbound" in bulk["rules"]
    assert "inbound: to inbound" not in closed["rules"]
    assert all(scene["fine"] for scene in scenes)
    counters, end = told[-2:]
    assert sum(counters["rules"].values()) > 0
    assert end["fine"]
    assert snapshot(namespace) == before


@captures
def test_it_needs_no_root(namespace: Namespace, capture: str) -> None:
    """Whoever may not become root would never see it."""
    with started(namespace, "--json", "--capture", capture, before=launcher(NOBODY)) as process:
        told = events(process)
    assert told[0]["relay_user"] == 0
    (applied,) = [event for event in told if event.get("command", "").startswith("relay-sidecar rules apply")]
    assert sum(": captured: " in line for line in applied["printed"]) == 4, "an exemption by mark leaves all to be captured"
    assert told[-1]["fine"]


def test_a_terminal_shows_the_way_of_each_connection(namespace: Namespace) -> None:
    """The page for human eyes would say less than JSON does, or break where there is no terminal."""
    with started(namespace) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "\x1b" not in out
    for words in ("-> relay :15006 -> app 10.1.0.2:8080", "-> relay :15002 -> server 10.2.0.2:80", "MiB/s", "lane splice"):
        assert words in out, words
    assert out.count(": as it should be\n") == 5
    last = out.rstrip().splitlines()[-1]
    assert last.startswith("All as it should be, in ")
    assert last.endswith(" demo --keep` leaves it for playing.")


def test_a_reader_who_leaves_ends_it_in_silence(namespace: Namespace) -> None:
    """`make demo | head` would print a traceback."""
    with started(namespace) as process:
        assert process.stdout
        process.stdout.readline()
        family = family_of(process.pid)
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
    assert eventually(lambda: are_gone(family))


SHARED = 'mount --make-rshared /; before=$1; shift; cat /proc/self/mountinfo >"$before"; "$@"; cat /proc/self/mountinfo'
LAST_LINE_BEFORE_DOWNLOAD = 22
LINES = (0, 1, 5, 6, 9, 15, 21, 22, 30, 40)  # that many have come; 0: none


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("lines", LINES)
def test_interrupted_it_leaves_nothing(namespace: Namespace, lines: int, number: signal.Signals) -> None:
    """A demo that was stopped half-way would leave a relay, servers or namespaces on somebody's machine."""
    before = snapshot(namespace)
    with started(namespace, start_new_session=True) as process:
        assert process.stdout
        for _ in range(lines):
            assert process.stdout.readline()
        family = family_of(process.pid)
        os.killpg(process.pid, number)  # as a terminal sends Ctrl-C
        status = process.wait(10)
        assert are_gone(family[1:]), "at its return"
        assert process.stderr
        told = process.stderr.read()
    if lines:  # before, the interpreter may be starting
        assert status == 128 + number
        assert told == f"\n{number.name}: the demo is gone, and all that it had made\n"
    assert snapshot(namespace) == before


@pytest.mark.parametrize("lines", LINES)
def test_killed_it_leaves_nothing(namespace: Namespace, lines: int) -> None:
    """Nobody can handle SIGKILL, which is what a session that ends may send."""
    with started(namespace, "--size", "64GiB") as process:
        assert process.stdout
        for _ in range(min(lines, LAST_LINE_BEFORE_DOWNLOAD)):
            assert process.stdout.readline()
        family = family_of(process.pid)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        assert eventually(lambda: are_gone(family)), "long before the download would have ended"


def test_mounts_that_are_shared_stay_as_they_are(namespace: Namespace, tmp_path: Path) -> None:
    """Where systemd shares the mounts of /, the demo's /run and /proc would cover the machine's."""
    before = tmp_path / "before"
    with started(namespace, before=["unshare", "-m", "sh", "-ec", SHARED, "sh", str(before)]) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.endswith(before.read_text())


@pytest.mark.parametrize("who", [0, NOBODY])
def test_kept_it_can_be_played_with_and_ended(namespace: Namespace, who: int) -> None:
    """`--keep` would leave hosts that nobody can enter, or nobody can get rid of."""
    with started(namespace, "--json", "--keep", before=launcher(who) if who else ()) as process:
        told = events(process)
    pid = told[-1]["pid"]
    enter = [*(launcher(who) if who else ()), *told[-1]["enter"].split()]

    def printed(*argv: str) -> str:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        return subprocess.run([*enter, *argv], env=environment, capture_output=True, text=True, check=True).stdout

    try:
        family = family_of(pid)
        users = [path.stat().st_uid for path in family]
        assert json.loads(printed(sys.executable, "-m", "sidecar", "stats", "--json"))["state"] == "ready"
        config = "/run/relay-demo/relay.toml"
        assert printed(sys.executable, "-m", "sidecar", "rules", "status", "--config", config).startswith("rules applied")
        assert "It works" in printed("ip", "netns", "exec", "client", "curl", "-s", "http://10.1.0.2:8080/")
        assert "It works" in printed("curl", "-s", "http://10.2.0.2/")
        assert len(printed("curl", "-s", "http://10.2.0.2/12345")) == 12345
        printed("sh", "-c", "true & exec true")  # an orphan, for process 1 to reap
        assert eventually(lambda: "State:\tZ" not in "".join((path / "status").read_text() for path in family_of(pid)))
    finally:
        os.kill(pid, signal.SIGTERM)
    assert len(users) > 3
    assert (1337 in users) == (who == 0), "as root the relay is another user, without root it cannot be"
    assert eventually(lambda: are_gone(family))


@pytest.mark.parametrize(
    ("before", "environment", "told"),
    [
        ((), {"PATH": "/nowhere"}, "mount: expected the program in PATH, found none; apt-get install mount"),
        (
            ("unshare", "-Ur", "sh", "-c", 'echo 0 >/proc/sys/user/max_net_namespaces; exec "$@"', "sh"),
            {},
            "demo: expected namespaces of its own, for root or in a user namespace, found No space left on device; "
            "run it outside of this container, or where user namespaces are allowed",
        ),
    ],
)
def test_what_it_lacks_is_told(namespace: Namespace, before: Sequence[str], environment: dict[str, str], told: str) -> None:
    """A newcomer would meet a traceback and never come back."""
    with started(namespace, before=before, env={**os.environ, **environment}) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "", f"{told}\n")
