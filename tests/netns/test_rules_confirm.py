"""`rules apply --confirm`: back by itself, whatever becomes of the session; `--guard`: gone with whoever it stood beside."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import Stopwatch, eventually
from tests.support.fake_programs import FAIL, FakePrograms
from tests.support.foreign import snapshot
from tests.support.rule_commands import Pod, backends

pytestmark = pytest.mark.usefixtures("rules_of_others")


@backends
def test_it_goes_back_by_itself(pod: Pod, backend: str) -> None:
    """An administrator far away, who has locked himself out, would have to travel."""
    before = snapshot(pod.namespace)
    pod.configure("tproxy", backend)
    watch = Stopwatch()
    told = pod.run("apply", "--confirm", "5s").stdout  # which its end would hold open
    assert watch.seconds < 5
    assert "they go back in 5s unless `relay-sidecar rules confirm` comes" in told
    assert pod.state() == "applied"
    pod.await_rest()
    assert 5 <= watch.seconds < 20
    assert snapshot(pod.namespace) == before


@backends
def test_it_goes_back_to_an_earlier_configuration(pod: Pod, backend: str) -> None:
    """Going back to nothing would stop a relay that worked."""
    untouched = snapshot(pod.namespace)
    pod.configure("redirect", "nft" if backend != "nft" else "iptables", inbound_exclude_ports=[2222])
    pod.run("apply")
    before = snapshot(pod.namespace)
    pod.configure("tproxy", backend)
    pod.run("apply", "--confirm", "1m")
    assert pod.state() == "applied"
    assert pod.run("rollback").stdout == "rolled back: the rules are what they were before\n"
    assert snapshot(pod.namespace) == before
    assert not pod.kept()
    pod.run("remove")
    assert snapshot(pod.namespace) == untouched


def test_confirmed_rules_stay(pod: Pod) -> None:
    """Rules that work would vanish after half a minute."""
    pod.configure("tproxy", "iptables")
    pod.run("apply", "--confirm", "1m")
    planned = snapshot(pod.namespace)
    assert pod.ask("confirm") == {"answer": "confirmed"}
    pod.await_rest()
    assert snapshot(pod.namespace) == planned
    for command in ("confirm", "rollback"):
        done = pod.run(command, status=1)
        assert "expected a change that waits for its confirmation, found none" in done.stderr
        assert done.stdout == ""
    assert snapshot(pod.namespace) == planned


def waiting(pod: Pod) -> list[int]:
    """The processes that wait for a confirmation: those of this pod's namespace, as nothing else runs there."""
    ours = os.stat(pod.namespace.path).st_ino
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(pid for pid in pids if pid != os.getpid() and _network_of(pid) == ours)


def _network_of(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


@backends
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT, signal.SIGUSR1])
def test_who_waits_may_be_killed(pod: Pod, backend: str, number: int) -> None:
    """Rules that nobody confirmed would stay for ever, and lock out whoever applied them."""
    before = snapshot(pod.namespace)
    pod.configure("tproxy", backend)
    pod.run("apply", "--confirm", "1m")
    keeper, _ = waiting(pod)
    os.kill(keeper, number)
    assert eventually(lambda: not waiting(pod))
    assert snapshot(pod.namespace) == before


def test_whoever_stands_still_is_named(pod: Pod) -> None:
    """`rules remove`, the way out of everything, would wait and say nothing of for whom."""
    before = snapshot(pod.namespace)
    pod.configure("redirect", "nft")
    pod.run("apply", "--confirm", "1m")
    keeper, _ = waiting(pod)
    os.kill(keeper, signal.SIGSTOP)
    try:
        told = pod.run("remove", status=1).stderr
    finally:
        os.kill(keeper, signal.SIGKILL)
    assert f"`kill -KILL {keeper}` undoes its change" in told
    assert eventually(lambda: not waiting(pod))
    assert snapshot(pod.namespace) == before


def test_a_change_of_root_is_not_for_everybody(pod: Pod) -> None:
    """Any user of the machine could keep rules that lock its administrator out."""
    pod.configure("redirect", "nft")
    pod.run("apply", "--confirm", "1m")
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for command in ("confirm", "rollback"):
        assert "belongs to another user" in pod.run(command, status=77, launcher=stranger).stderr
    pod.run("rollback")


def test_nobody_else_changes_rules_meanwhile(pod: Pod) -> None:
    """The way back would lead over somebody's later rules, and undo them too."""
    pod.configure("redirect", "nft")
    pod.run("apply", "--confirm", "30s")
    waiting = snapshot(pod.namespace)
    for arguments in ((), ("--confirm", "5s"), ("--guard",)):
        done = pod.run("apply", *arguments, status=1)
        assert "found one that waits " in done.stderr
        assert "`relay-sidecar rules confirm` or `relay-sidecar rules rollback` first" in done.stderr
    found = pod.ask("status")
    assert found["keeper"]["state"] == "confirming"
    assert 0 < found["keeper"]["seconds_left"] <= 30
    assert snapshot(pod.namespace) == waiting
    assert "1 chains" not in pod.run("remove").stdout
    pod.await_rest()
    assert pod.state() == "missing"


@pytest.mark.parametrize("deadly", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_signals_do_not_stop_it(pod: Pod, deadly: signal.Signals) -> None:
    """Ctrl-C, a logout: the rules would stay, and nobody could reach the machine."""
    before = snapshot(pod.namespace)
    pod.configure("redirect", "nft")
    process = pod.popen("apply", "--confirm", "1s", start_new_session=True, stdout=subprocess.DEVNULL)
    assert process.wait() == 0
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        if str(pod.config).encode() in entry.read_bytes():
            os.kill(int(entry.parent.name), deadly)
    pod.await_rest()
    assert snapshot(pod.namespace) == before


def test_it_survives_its_terminal(pod: Pod) -> None:
    """The connection over which rules were applied is the first one that wrong rules cut."""
    before = snapshot(pod.namespace)
    pod.configure("redirect", "nft")
    master, slave = pty.openpty()
    shell = f"{' '.join(pod.argv('apply', '--confirm', '2s'))}; kill -HUP 0; sleep 60"
    argv = ["setsid", "--ctty", "sh", "-c", shell]
    with pod.namespace.popen(argv, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        assert eventually(lambda: pod.state() == "applied")
        os.close(master)
        assert process.wait() != 0
        assert pod.state() == "applied"
        pod.await_rest()
    assert snapshot(pod.namespace) == before


# The guard.


@contextmanager
def guarded(pod: Pod, *arguments: str, parent: tuple[str, ...] = (), **more: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Once it says that the rules are there."""
    argv = ["apply", "--guard", "--json", *arguments]
    with pod.popen(*argv, stdout=subprocess.PIPE, launcher=list(parent), **more) as process:
        try:
            assert told(process)["event"] == "applied"
            yield process
        finally:
            process.kill()


def told(process: "subprocess.Popen[bytes]") -> dict[str, object]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the guard has ended"
    return dict(json.loads(line))


@backends
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_the_rules_end_with_the_guard(pod: Pod, backend: str, number: signal.Signals) -> None:
    """A pod whose sidecar is gone would send every connection to a port where nobody listens."""
    before = snapshot(pod.namespace)
    pod.configure("tproxy", backend)
    with guarded(pod) as process:
        assert pod.state() == "applied"
        assert pod.ask("status")["keeper"] == {"state": "guarding", "seconds_left": 0}
        process.send_signal(number)
        assert process.wait() == (0 if number != signal.SIGKILL else -signal.SIGKILL)
        pod.await_rest()
    assert snapshot(pod.namespace) == before


def keeper_of(process: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])  # the oldest: a look runs programs


def test_the_rules_end_with_the_keeper(pod: Pod) -> None:
    """Nobody would be left to take them away when the guard is killed as well."""
    before = snapshot(pod.namespace)
    pod.configure("tproxy", "nft")
    with guarded(pod) as process:
        os.kill(keeper_of(process), signal.SIGKILL)
        assert told(process) == {"event": "removed", "because": "the keeper was killed"}
        assert process.wait() == 1
    assert snapshot(pod.namespace) == before


def test_the_rules_end_with_the_parent(pod: Pod) -> None:
    """A start script that dies would leave a guard that guards nothing."""
    before = snapshot(pod.namespace)
    pod.configure("redirect", "iptables")
    with guarded(pod, parent=("sh", "-c", '"$@" & wait', "sh")) as process:
        process.kill()
        assert told(process) == {"event": "removed", "because": "the parent has ended"}
        pod.await_rest()
    assert snapshot(pod.namespace) == before


def test_remove_ends_a_guard(pod: Pod) -> None:
    """The guard would repair what remove takes away, or report it as damage."""
    before = snapshot(pod.namespace)
    pod.configure("redirect", "nft")
    with guarded(pod, "--repair") as process:
        pod.run("remove")
        assert told(process) == {"event": "released", "because": "`rules remove` took over"}
        assert process.wait() == 0
    assert snapshot(pod.namespace) == before


@backends
def test_a_guard_reports_and_repairs(pod: Pod, backend: str) -> None:
    """Somebody flushes the rules, and connections pass the relay by until a person looks."""
    flush = {
        "nft": ["nft", "flush", "table", "inet", "relay_sidecar"],
        "iptables": ["iptables-nft", "-t", "mangle", "-F", "RELAY_OUT"],
        "iptables-legacy": ["iptables-legacy", "-t", "mangle", "-F", "RELAY_OUT"],
    }[backend]
    pod.configure("tproxy", backend)
    with guarded(pod) as process:
        planned = snapshot(pod.namespace)
        pod.namespace.run(flush)
        report = told(process)
        assert report["event"] == "changed"
        assert "changed" in str(report["first"])
        assert pod.state() == "drifted"
        process.terminate()
        pod.await_rest()
    with guarded(pod, "--repair") as process:
        pod.namespace.run(flush)
        assert told(process)["event"] == "repaired"
        assert snapshot(pod.namespace) == planned
        pod.namespace.ip("rule del fwmark 0x111/0xfff", family=6)
        assert told(process)["event"] == "repaired"
        assert snapshot(pod.namespace) == planned


def test_a_guard_tries_again(pod: Pod, tmp_path: Path) -> None:
    """One repair that fails, as while another program holds the lock, would take all rules away."""
    pod.configure("redirect", "nft")
    programs = FakePrograms(tmp_path, FAIL, 2)  # the first change applies, the second repairs
    with guarded(pod, "--repair", env={**os.environ, **programs.environment}) as process:
        planned = snapshot(pod.namespace)
        pod.namespace.run(["nft", "flush", "table", "inet", "relay_sidecar"])
        report = told(process)
        assert report["event"] == "unknown"
        assert "it is raining" in str(report["because"])
        assert told(process)["event"] == "repaired"
        assert snapshot(pod.namespace) == planned
