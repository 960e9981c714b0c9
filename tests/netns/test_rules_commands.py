"""The commands as people and init containers meet them: privileges, programs, namespaces, output, many at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import foreign
from tests.support.clock import Stopwatch
from tests.support.fake_programs import linked
from tests.support.foreign import of_others, snapshot
from tests.support.netns import Namespace
from tests.support.relay import PROGRAM, UID
from tests.support.rule_commands import Pod, backends, captures
from tests.support.users import launcher

NEEDED = {"nft": ["net_admin"], "iptables": ["net_admin"], "iptables-legacy": ["net_admin", "net_raw"]}
COMMANDS = ("plan", "apply", "status", "remove")


# Who may.


@captures
@backends
def test_the_relays_user_with_exactly_what_it_takes(pod: Pod, backend: str, capture: str) -> None:
    """An init container would have to be root, which many clusters forbid."""
    foreign.by_all(pod.namespace)
    before = snapshot(pod.namespace)
    pod.configure(capture, backend)
    user = launcher(UID, *NEEDED[backend])
    pod.run("apply", launcher=user)
    assert pod.state() == "applied"
    pod.run("status", launcher=user)
    pod.run("remove", launcher=user)
    assert snapshot(pod.namespace) == before


@backends
def test_without_the_privilege_it_says_which(pod: Pod, backend: str) -> None:
    """A pod would stay in Init:Error, and its log would name a program instead of the missing capability."""
    before = snapshot(pod.namespace)
    pod.configure("tproxy", backend)
    for command in COMMANDS:
        done = pod.run(command, launcher=launcher(UID), status=77)
        assert "CAP_NET_ADMIN" in done.stderr
        assert "give the container this capability" in done.stderr
    assert snapshot(pod.namespace) == before


def test_legacy_names_the_second_capability(pod: Pod) -> None:
    """iptables-legacy opens a raw socket; whoever gave the container NET_ADMIN alone would not guess that."""
    pod.configure("redirect", "iptables-legacy")
    assert "CAP_NET_RAW" in pod.run("apply", launcher=launcher(UID, "net_admin"), status=77).stderr


# Where.

READ_ONLY = ("unshare", "-m", "sh", "-c", 'mount -o bind,remount,ro / && mount -t tmpfs -o ro none /run && exec "$@"', "sh")


@captures
@backends
def test_with_a_read_only_root(pod: Pod, backend: str, capture: str) -> None:
    """A hardened container has no place for a lock or a state file."""
    before = snapshot(pod.namespace)
    pod.configure(capture, backend)
    for _ in range(2):
        pod.run("apply", launcher=READ_ONLY)
    assert pod.run("status", launcher=READ_ONLY).stdout.startswith("rules applied")
    pod.run("remove", launcher=READ_ONLY)
    assert snapshot(pod.namespace) == before


def test_from_outside_the_namespace(pod: Pod, tmp_path: Path) -> None:
    """A node agent applies rules for a pod without entering it."""
    elsewhere = Namespace("elsewhere")
    outside = Pod(tmp_path, elsewhere)
    for each in (pod, outside):
        each.configure("tproxy", "nft")
    empty = snapshot(elsewhere)
    inside = ("--netns", pod.namespace.path)
    outside.run("apply", *inside)
    assert pod.state() == "applied"
    assert outside.run("status", *inside).stdout.startswith("rules applied")
    assert outside.state() == "missing"
    outside.run("apply", "--confirm", "1m", *inside)
    outside.run("rollback", *inside)
    outside.run("rollback", status=1)
    outside.run("remove", *inside)
    assert pod.state() == "missing"
    assert snapshot(elsewhere) == empty
    elsewhere.close()


@pytest.mark.parametrize("path", ["/no/such/file", "/etc/passwd", "/proc/self/ns/mnt", "/proc/self/ns"])
def test_what_is_no_namespace(pod: Pod, path: str) -> None:
    """A typing error would apply rules to the node itself."""
    pod.configure()
    for command in (*COMMANDS, "confirm", "rollback"):
        done = pod.run(command, "--netns", path, status=1)
        assert f"--netns {path}: expected a network namespace, found " in done.stderr
    assert pod.state() == "missing"


@backends
def test_in_a_user_namespace_without_the_relays_user(pod: Pod, backend: str) -> None:
    """A rootless container cannot name user 1337 in a rule: exclusion by mark alone has to do."""
    pod.configure("redirect", backend, exempt_owner=False)
    argv = " && ".join(" ".join(pod.argv(command)) for command in ("apply", "status", "apply", "remove"))
    done = pod.namespace.run(["unshare", "-Urn", "sh", "-c", f"ip link set lo up; {argv}"])
    assert "rules as planned already" in done.stdout
    assert "rules removed: " in done.stdout


@pytest.mark.parametrize("backend", ["iptables", "iptables-legacy"])
def test_a_user_whom_the_kernel_does_not_know_leaves_nothing(pod: Pod, backend: str) -> None:
    """Half of the rules would stay in a rootless container whose user namespace lacks 1337."""
    pod.configure("redirect", backend)
    argv = pod.argv("apply")
    shell = f"ip link set lo up; {' '.join(argv)}; echo status $?; {backend}-save 2>&1; nft list ruleset"
    done = pod.namespace.run(["unshare", "-Urn", "sh", "-c", shell.replace("iptables-save", "iptables-nft-save")])
    assert "status 1" in done.stdout
    assert "rules.exempt_owner = false leaves it to the mark" in done.stderr
    assert "RELAY_" not in done.stdout


# With what.


def backend_of(pod: Pod, **environment: str) -> str:
    return str(json.loads(pod.run("plan", "--json", environment=environment).stdout)["backend"])


XTABLES = {"iptables": "iptables-nft", "ip6tables": "ip6tables-nft"}
RESTORE = {f"{name}-restore": f"{real}-restore" for name, real in XTABLES.items()}


@pytest.fixture
def no_programs() -> tuple[str, ...]:
    """The system's directories hidden from the command: it looks there, whatever PATH says."""
    hide = "for d in /usr/local/sbin /usr/sbin /sbin /usr/local/bin; do [ -L $d ] || mount -t tmpfs none $d; done"
    return ("unshare", "-m", "sh", "-c", f'{hide}; exec "$@"', "sh")


@pytest.mark.parametrize("names", ["both", "short"])
@captures
def test_without_nft_auto_takes_iptables(
    pod: Pod, tmp_path: Path, no_programs: tuple[str, ...], names: str, capture: str
) -> None:
    """Small images have one of the two; some call it iptables and nothing else."""
    multi = "xtables-nft-multi"
    programs = dict.fromkeys((*XTABLES, *RESTORE), multi)
    if names == "both":
        programs.update(dict.fromkeys((*XTABLES.values(), *RESTORE.values()), multi))
    before = snapshot(pod.namespace)
    pod.configure(capture, "auto")
    bin_path = tmp_path / "bin"
    environment = copied(bin_path, programs)
    assert "(iptables-nft)" in pod.run("apply", launcher=no_programs, environment=environment).stdout
    assert "rules applied (iptables-nft" in pod.run("status", launcher=no_programs, environment=environment).stdout
    pod.run("remove", launcher=no_programs, environment=environment)
    assert snapshot(pod.namespace) == before


def copied(directory: Path, programs: dict[str, str]) -> dict[str, str]:
    """The programs themselves: their own directory is hidden."""
    environment = linked(directory, programs)
    for link in directory.iterdir():
        data = link.resolve().read_bytes()
        link.unlink()
        link.write_bytes(data)
        link.chmod(0o755)
    return {"PATH": f"{environment['PATH']}:/usr/bin:/bin"}


@pytest.mark.parametrize(("backend", "package"), [("auto", "iptables"), ("nft", "nftables"), ("iptables-legacy", "iptables")])
def test_without_any_program_the_package_is_named(pod: Pod, no_programs: tuple[str, ...], backend: str, package: str) -> None:
    """`No such file or directory` helps nobody."""
    pod.configure("redirect", backend)
    done = pod.run("apply", launcher=no_programs, environment={"PATH": "/usr/bin:/bin"}, status=1)
    assert f"apt-get install {package})" in done.stderr


@pytest.mark.parametrize(
    ("theirs", "chosen"), [("none", "nft"), ("iptables-nft", "nft"), ("iptables-legacy", "legacy"), ("nft", "nft")]
)
def test_the_variant_that_others_use(pod: Pod, theirs: str, chosen: str) -> None:
    """Rules of two variants are two rulesets, of which people see one."""
    foreign.FOREIGN.get(theirs, foreign.none)(pod.namespace)
    pod.configure("redirect", "iptables")
    assert backend_of(pod) == f"iptables-{chosen}"
    pod.configure("redirect", "auto")
    assert backend_of(pod) == "nft"


# What it says.


@captures
@backends
def test_everything_is_there_for_machines(pod: Pod, backend: str, capture: str) -> None:
    """A script would have to read prose."""
    pod.configure(capture, backend)
    planned = pod.ask("plan")
    assert planned["changes"]
    assert json.loads(pod.run("show", "--format", "json").stdout)["digest"] == planned["digest"]
    applied = pod.ask("apply")
    assert applied == {**applied, "changes": planned["changes"], "probes": [], "confirm_within_s": None}
    found = pod.ask("status")
    assert found["state"] == "applied"
    assert set(found["found"].values()) == {planned["digest"]}
    assert found["differences"] == found["foreign"] == []
    assert len(found["ways"]) == (6 if capture == "tproxy" else 0)
    assert pod.ask("apply")["changes"] == []
    assert pod.ask("apply", "--confirm", "5s")["confirm_within_s"] == 5
    assert pod.ask("rollback") == {"answer": "rolled back"}
    removed = pod.ask("remove")
    assert removed["removed"]
    assert removed["ways"] == len(found["ways"])
    assert pod.ask("remove") == {"removed": [], "ways": 0}


def test_what_people_read(pod: Pod) -> None:
    """What was done, and what is there, has to be clear at a glance."""
    pod.configure("tproxy", "nft")
    assert pod.run("plan").stdout.startswith("inet relay_sidecar chain mangle_prerouting: new\n")
    assert pod.run("apply").stdout == "rules applied (nft)\n"
    assert pod.run("apply").stdout == "rules as planned already (nft)\n"
    assert pod.run("plan").stdout == "nothing to change: the rules are as planned (nft)\n"
    page = pod.run("status").stdout.splitlines()
    assert page[0].startswith("rules applied (nft, plan ")
    assert "ip -4 route add local default dev lo table 100 proto 82" in page
    assert pod.run("remove").stdout == "rules removed: 2 chains, 6 ip rules and routes\n"


@pytest.mark.parametrize("command", ["show", "plan", "apply", "status", "remove"])
def test_an_output_that_is_full_is_an_error(pod: Pod, command: str) -> None:
    """A script would take an empty file for an answer."""
    pod.configure()
    with pod.namespace.entered(), open("/dev/full", "wb") as full:
        done = subprocess.run(pod.argv(command), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1, done
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    if command == "apply":
        assert pod.state() in ("applied", "missing")


# How many.


def test_twenty_at_a_time(pod: Pod) -> None:
    """Several containers of a pod apply at once: doubled jumps, or the rules of none."""
    foreign.by_all(pod.namespace)
    before = snapshot(pod.namespace)
    pod.configure("tproxy", "iptables")
    pod.run("apply")
    planned = snapshot(pod.namespace)
    pod.run("remove")
    processes = [pod.popen("apply", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(20)]
    assert [process.communicate()[1] for process in processes] == [b""] * 20
    assert {process.returncode for process in processes} == {0}
    assert snapshot(pod.namespace) == planned
    processes = [
        pod.popen(("apply", "remove")[number % 2], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for number in range(10)
    ]
    assert [process.communicate()[1] for process in processes] == [b""] * 10
    assert {process.returncode for process in processes} == {0}
    assert snapshot(pod.namespace) in (planned, before)
    pod.run("remove")
    assert snapshot(pod.namespace) == before


MANY = 60_000


@pytest.mark.long
@pytest.mark.parametrize("theirs", ["nft", "iptables-nft"])
@backends
def test_sixty_thousand_rules_of_others(pod: Pod, backend: str, theirs: str) -> None:
    """On a large node every pod's start would take seconds, or fail."""
    rules = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(MANY)]
    if theirs == "nft":
        lines = "".join(f"ip daddr {address} tcp dport 80 counter accept\n" for address in rules)
        pod.namespace.nft(f"table ip many {{ chain c {{\n{lines}}}\n}}\n")
    else:
        lines = "".join(f"-A MANY -d {address}/32 -j ACCEPT\n" for address in rules)
        pod.namespace.run(["iptables-nft-restore"], stdin=f"*filter\n:MANY - [0:0]\n{lines}COMMIT\n")
    pod.configure("tproxy", backend)
    for command in ("apply", "status", "remove"):
        watch = Stopwatch()
        pod.run(command)
        sys.stdout.write(f"{backend} {command} among {MANY} of {theirs}: {watch.seconds:.2f} s\n")
        assert watch.seconds < 20
    assert of_others(snapshot(pod.namespace))


def test_flags_that_exclude_each_other(pod: Pod) -> None:
    """A guard that goes back by itself is neither."""
    pod.configure()
    assert "not allowed with" in pod.run("apply", "--guard", "--confirm", "5s", status=2).stderr
    assert pod.run("apply", "--confirm", "0s", status=2).stderr
    with pod.namespace.entered():
        done = subprocess.run([*PROGRAM, "rules"], capture_output=True, check=False)
    assert done.returncode == 2


@captures
def test_where_ipv6_is_disabled_the_rest_works(pod: Pod, capture: str) -> None:
    """In most containers lo has no IPv6, and the whole transaction would fail for it."""
    pod.namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")
    before = snapshot(pod.namespace)
    pod.configure(capture, "nft")
    pod.run("apply")
    assert pod.state() == "applied"
    pod.run("remove")
    assert snapshot(pod.namespace) == before


def test_tables_that_legacy_left_are_no_hindrance(pod: Pod) -> None:
    """nft needs CAP_NET_ADMIN alone, and would ask for CAP_NET_RAW because of a program that it does not use."""
    pod.configure("redirect", "iptables-legacy")
    pod.run("apply")
    pod.run("remove")
    pod.configure("redirect", "nft")
    pod.run("apply", launcher=launcher(0, "net_admin"))
    assert pod.state() == "applied"
    pod.run("remove", launcher=launcher(0, "net_admin"))


def test_lo_that_is_down_is_named(pod: Pod) -> None:
    """The kernel says "Network is down", and a user would look at the wrong interface."""
    pod.namespace.ip("link set lo down")
    pod.configure("tproxy", "nft")
    assert "lo: expected an interface that is up" in pod.run("apply", status=1).stderr
