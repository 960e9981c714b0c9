"""`rules apply` that fails or dies, at every step: nothing of others has changed, and ours are as before or as planned."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import fake_programs
from tests.support.clock import eventually, observe
from tests.support.fake_programs import FakePrograms
from tests.support.foreign import Snapshot, of_others, snapshot
from tests.support.rule_commands import Pod

pytestmark = pytest.mark.usefixtures("rules_of_others")

# The keeper is not traced: it is the one who undoes.
TRACED = "sendto,vfork,wait4,write"
STEP = re.compile(r"^(\w+)\(", re.M)


class Change:
    """From one configuration to another, or from none."""

    def __init__(self, pod: Pod, capture: str, backend: str, earlier: tuple[str, str] | None) -> None:
        self.pod = pod
        self.untouched = snapshot(pod.namespace)
        if earlier:
            pod.configure(earlier[0], earlier[1], inbound_exclude_ports=[2222])
            pod.run("apply")
        self.earlier = earlier
        self.before = snapshot(pod.namespace)
        pod.configure(capture, backend)
        pod.run("apply")
        self.planned = snapshot(pod.namespace)
        self.again()

    def again(self) -> None:
        """Back to before."""
        if not self.earlier:
            self.pod.run("remove")
            assert snapshot(self.pod.namespace) == self.before
            return
        text = self.pod.config.read_text()
        self.pod.configure(self.earlier[0], self.earlier[1], inbound_exclude_ports=[2222])
        self.pod.run("apply")
        self.pod.config.write_text(text)
        assert snapshot(self.pod.namespace) == self.before

    def result(self) -> Snapshot:
        """What there is once everybody has done his part."""
        self.pod.await_rest()
        return snapshot(self.pod.namespace)


CHANGES = [
    ("tproxy", "nft", None),
    ("redirect", "iptables", None),
    ("tproxy", "iptables", ("redirect", "nft")),
    ("redirect", "nft", ("tproxy", "iptables-legacy")),
    ("tproxy", "iptables-legacy", ("tproxy", "nft")),
]
changes = pytest.mark.parametrize(("capture", "backend", "earlier"), CHANGES)


def steps(pod: Pod, log: Path) -> list[tuple[str, int]]:
    """What apply does from the moment when its keeper is there, as the name of a system call and its number."""
    pod.run("apply", launcher=["strace", "-o", str(log), "-e", f"trace={TRACED},clone"])
    names = STEP.findall(log.read_text())
    numbered = [(name, names[: index + 1].count(name)) for index, name in enumerate(names)]
    return [step for step in numbered[names.index("clone") :] if step[0] in TRACED.split(",")]


def killed_at(pod: Pod, tmp_path: Path, change: Change, part: slice) -> None:
    found = steps(pod, tmp_path / "log")
    assert len(found) > 20, "the trace is not of apply"
    seen = set()
    for name, number in found[part]:
        change.again()
        inject = f"inject={name}:signal=KILL:when={number}"
        pod.run("apply", launcher=["strace", "-o", "/dev/null", "-e", inject], status=None)
        now = change.result()
        assert now in (change.before, change.planned), f"{name} {number}: {different(now, change)}"
        seen.add(now == change.planned)
    assert False in seen, "it was never killed half-way"
    pod.run("apply")
    assert snapshot(pod.namespace) == change.planned
    pod.run("remove")
    assert snapshot(pod.namespace) == change.untouched


def different(now: Snapshot, change: Change) -> list[str]:
    return [name for name in now if now[name] not in (change.before[name], change.planned[name])]


@changes
def test_killed_at_every_so_many_steps(
    pod: Pod, tmp_path: Path, capture: str, backend: str, earlier: tuple[str, str] | None
) -> None:
    """An init container that runs out of memory would leave half of the rules: traffic captured that nobody takes."""
    killed_at(pod, tmp_path, Change(pod, capture, backend, earlier), slice(None, None, 17))


@pytest.mark.long
@changes
def test_killed_at_every_step(pod: Pod, tmp_path: Path, capture: str, backend: str, earlier: tuple[str, str] | None) -> None:
    """The same, wherever it happens; at every third step where each one begins with other rules to be applied."""
    killed_at(pod, tmp_path, Change(pod, capture, backend, earlier), slice(None, None, 3 if earlier else 1))


DEEDS = {
    "fails": fake_programs.FAIL,
    "fails after it has done it": fake_programs.FAIL_AFTERWARDS,
    "kills us": fake_programs.KILL_PARENT,
    "kills us after it has done it": fake_programs.KILL_PARENT_AFTERWARDS,
}


@pytest.mark.parametrize("deed", DEEDS)
@changes
def test_a_program_that_goes_wrong(
    pod: Pod, tmp_path: Path, capture: str, backend: str, earlier: tuple[str, str] | None, deed: str
) -> None:
    """A kernel that takes the rules of one family and refuses the other's would be left with half of them."""
    change = Change(pod, capture, backend, earlier)
    number = 1
    while True:
        fakes = FakePrograms(tmp_path, DEEDS[deed], number)
        done = pod.run("apply", status=None, environment=fakes.environment)
        now = change.result()
        if fakes.changes < number:
            break
        assert now == change.before, (number, different(now, change))
        assert done.returncode not in (0, 3)
        if "fails" in deed:
            assert "expected success, found Error: " in done.stderr
        number += 1
    assert done.returncode == 0
    assert number > 1
    assert now == change.planned


@pytest.mark.parametrize("deed", [fake_programs.KILL_BOTH, fake_programs.KILL_BOTH_AFTERWARDS], ids=["before", "after"])
@changes
def test_who_kills_the_keeper_too_can_go_on_by_hand(
    pod: Pod, tmp_path: Path, capture: str, backend: str, earlier: tuple[str, str] | None, deed: str
) -> None:
    """A machine that runs out of memory may lose both; the next apply or remove would refuse, or leave something."""
    change = Change(pod, capture, backend, earlier)
    for number, repair in ((1, "apply"), (1, "remove"), (2, "apply")):
        fakes = FakePrograms(tmp_path, deed, number)
        pod.run("apply", status=None, environment=fakes.environment)
        if fakes.changes < number:
            return
        now = change.result()
        assert of_others(now) == of_others(change.untouched)
        pod.run(repair)
        assert snapshot(pod.namespace) == (change.planned if repair == "apply" else change.untouched)
        if change.earlier:
            change.again()
        else:
            pod.run("remove")


@pytest.mark.parametrize("backend", ["nft", "iptables"])
def test_a_program_that_outlives_us_is_waited_for(pod: Pod, tmp_path: Path, backend: str) -> None:
    """It would put rules there after the keeper has taken them away: nobody would ever remove them."""
    change = Change(pod, "redirect", backend, None)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    fakes = FakePrograms(tmp_path, f"read _ <{gate}; {{real}}", 1)
    environment = {**os.environ, **fakes.environment}
    process = pod.popen("apply", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert eventually(lambda: fakes.changes == 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    observe(0.5)
    assert pod.kept()
    gate.write_text("go\n")
    assert change.result() == change.before
