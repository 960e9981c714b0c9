"""Rules that somebody has changed by hand, that somebody else has made under our names, or that would meet others' marks."""

import json
from collections.abc import Callable, Mapping

import pytest

from tests.support.foreign import of_others, snapshot
from tests.support.netns import Namespace
from tests.support.rule_commands import Pod, backends, made
from tests.support.ways import UNTRACKED

pytestmark = pytest.mark.usefixtures("rules_of_others")

PROGRAMS = {"iptables": "iptables-nft", "iptables-legacy": "iptables-legacy"}


def handles(namespace: Namespace, chain: str) -> list[str]:
    listing = namespace.run(["nft", "-a", "list", "chain", "inet", "relay_sidecar", chain]).stdout
    return [line.rpartition("# handle ")[2] for line in listing.splitlines() if line.startswith("\t\t") and "handle" in line]


def nft(command: str) -> Callable[[Namespace], None]:
    """A command of nft; FIRST stands for the handle of the first rule of mangle_output."""

    def change(namespace: Namespace) -> None:
        first = handles(namespace, "mangle_output")[0] if "FIRST" in command else ""
        namespace.nft(command.replace("FIRST", first))

    return change


def ipt(*commands: str) -> Callable[[Namespace, str], None]:
    def change(namespace: Namespace, program: str) -> None:
        for command in commands:
            namespace.run([program, "-w", "-t", *command.split()])

    return change


BY_NFT = {
    "a rule deleted": (nft("delete rule inet relay_sidecar mangle_output handle FIRST"), "mangle_output: changed"),
    "a rule added": (nft("insert rule inet relay_sidecar mangle_prerouting tcp dport 99 accept"), "- tcp dport 99 accept"),
    "a rule moved": (
        nft(
            "delete rule inet relay_sidecar mangle_output handle FIRST\n"
            'add rule inet relay_sidecar mangle_output meta l4proto != tcp counter return comment "TCP alone"'
        ),
        "mangle_output: changed",
    ),
    "a chain flushed": (nft("flush chain inet relay_sidecar mangle_prerouting"), "mangle_prerouting: changed"),
    "a chain added": (nft("add chain inet relay_sidecar mine"), "inet relay_sidecar chain mine: removed"),
    "a set added": (nft("add set inet relay_sidecar mine { type ipv4_addr; }"), "inet relay_sidecar set mine: removed"),
    "the policy changed": (nft("add chain inet relay_sidecar mangle_output { policy drop; }"), "policy drop"),
    "the table flushed": (nft("flush table inet relay_sidecar"), "mangle_output: changed"),
    "the table deleted": (nft("delete table inet relay_sidecar"), "mangle_output: new"),
}
BY_IPTABLES = {
    "a rule deleted": (ipt("mangle -D RELAY_OUT 1"), "ip mangle RELAY_OUT: changed"),
    "a rule added": (ipt("mangle -I RELAY_IN 2 -p tcp --dport 99 -j ACCEPT"), "--dport 99"),
    "a rule moved": (ipt("mangle -D RELAY_OUT 1", "mangle -A RELAY_OUT ! -p tcp -j RETURN"), "RELAY_OUT: changed"),
    "a chain flushed": (ipt("mangle -F RELAY_IN"), "ip mangle RELAY_IN: changed"),
    "a jump deleted": (ipt("mangle -D OUTPUT -p tcp -m comment --comment relay-sidecar -j RELAY_OUT"), "mangle OUTPUT"),
    "a jump doubled": (ipt("mangle -A OUTPUT -p tcp -m comment --comment relay-sidecar -j RELAY_OUT"), "mangle OUTPUT"),
    "a jump of another kind": (ipt("mangle -I OUTPUT -j RELAY_OUT"), "ip mangle OUTPUT: changed"),
    "a jump from elsewhere": (ipt("mangle -A INPUT -p tcp -j RELAY_OUT_1"), "ip mangle INPUT"),
    "a goto from elsewhere": (ipt("mangle -A INPUT -p tcp -g RELAY_OUT_1"), "ip mangle INPUT"),
    "the record emptied": (ipt("mangle -F RELAY_RECORD"), "the record of what the rules are: changed"),
}
BY_IP = {
    "an ip rule deleted": ("rule del pref 32764 fwmark 0x111/0xfff", "+ ip -4 rule add pref 32764 fwmark 0x111/0xfff"),
    "an ip rule doubled": (
        "rule add pref 32764 fwmark 0x111/0xfff iif lo lookup 100 protocol 82",
        "- ip -4 rule add pref 32764",
    ),
    "an old ip rule": ("rule add pref 7 fwmark 0x113/0xfff lookup 100 protocol 82", "- ip -4 rule add pref 7 fwmark 0x113"),
    "the route deleted": ("route del local default dev lo table 100", "+ ip -4 route add local default dev lo table 100"),
}


def check_repair(pod: Pod, change: Callable[[], object], told: str) -> None:
    """Seen, named, put right; nobody else has noticed."""
    untouched = snapshot(pod.namespace)
    pod.run("apply")
    planned = snapshot(pod.namespace)
    change()
    drifted = snapshot(pod.namespace)
    assert drifted != planned, "the test changes nothing"
    assert pod.state() in ("drifted", "missing")
    shown = pod.run("plan", "--exit-code", status=3).stdout
    assert told in shown, shown
    assert told in pod.run("status", status=1).stdout
    assert snapshot(pod.namespace) == drifted, "looking has changed something"
    pod.run("apply")
    assert snapshot(pod.namespace) == planned
    assert pod.state() == "applied"
    assert pod.run("plan", "--exit-code").stdout.startswith("nothing to change")
    change()
    pod.run("remove")
    assert snapshot(pod.namespace) == untouched


@pytest.mark.parametrize("what", BY_NFT)
def test_what_is_changed_by_nft(pod: Pod, what: str) -> None:
    """`rules status` would say applied while connections pass the relay by."""
    change, told = BY_NFT[what]
    pod.configure("tproxy", "nft")
    check_repair(pod, lambda: change(pod.namespace), told)


RAW: Mapping[str, tuple[Callable[..., None], str]] = {
    "nft": (nft("flush chain inet relay_sidecar raw_output"), "raw_output: changed"),
    "iptables": (ipt("raw -F RELAY_OUT"), "ip raw RELAY_OUT: changed"),
    "iptables-legacy": (ipt("raw -D PREROUTING 1"), "ip raw PREROUTING: new"),
}


@pytest.mark.parametrize("backend", RAW)
def test_what_is_changed_before_conntrack(pod: Pod, backend: str) -> None:
    """Half of each connection would be tracked, and `rules status` would say applied."""
    change, told = RAW[backend]
    programs = [PROGRAMS[backend]] if backend in PROGRAMS else []
    pod.configure(UNTRACKED, backend)
    check_repair(pod, lambda: change(pod.namespace, *programs), told)


@pytest.mark.parametrize("what", BY_IPTABLES)
@pytest.mark.parametrize("backend", PROGRAMS)
def test_what_is_changed_by_iptables(pod: Pod, backend: str, what: str) -> None:
    """The same; or a second apply would double what is still there."""
    change, told = BY_IPTABLES[what]
    pod.configure("tproxy", backend)
    check_repair(pod, lambda: change(pod.namespace, PROGRAMS[backend]), told)


@pytest.mark.parametrize("what", BY_IP)
def test_what_is_changed_by_ip(pod: Pod, what: str) -> None:
    """Marked packets would leave by the default route, with nobody to say why."""
    command, told = BY_IP[what]
    pod.configure("tproxy", "nft")
    check_repair(pod, lambda: pod.namespace.ip(command, family=4), told)


@pytest.mark.parametrize("backend", PROGRAMS)
def test_a_flush_of_nat_takes_the_jumps(backend: str) -> None:
    """Somebody's firewall script empties every chain: nothing is captured, and apply would have to notice."""
    with made() as pod:  # without rules of others, which the script would empty too
        before = snapshot(pod.namespace)
        pod.configure("redirect", backend)
        pod.run("apply")
        ipt("nat -F")(pod.namespace, PROGRAMS[backend])
        assert pod.state() == "drifted"
        assert "ip nat OUTPUT: new" in pod.run("plan").stdout
        pod.run("apply")
        assert pod.state() == "applied"
        # The record of what apply had to make went too: empty base chains of nat stay.
        pod.run("remove")
        assert of_others(snapshot(pod.namespace)) == of_others(before)


@backends
def test_all_together(pod: Pod, backend: str) -> None:
    """Two kinds of damage at a time, in both families, would be half repaired."""
    pod.configure("tproxy", backend)
    pod.run("apply")
    planned = snapshot(pod.namespace)
    for family in (4, 6):
        pod.namespace.ip("rule del pref 32764 fwmark 0x111/0xfff", "route flush table 100", family=family)
        if backend != "nft":
            program = PROGRAMS[backend].replace("ip", "ip6" if family == 6 else "ip", 1)
            ipt("mangle -F RELAY_IN", "mangle -D RELAY_OUT 2")(pod.namespace, program)
    if backend == "nft":
        pod.namespace.nft("flush table inet relay_sidecar")
    assert pod.state() == "drifted"
    pod.run("apply")
    assert snapshot(pod.namespace) == planned


FOREIGN_NAMES = {
    "nft": "table inet relay_sidecar { chain theirs { tcp dport 7 accept; }\n}",
    "iptables": "*mangle\n:RELAY_OUT - [0:0]\n-A OUTPUT -p tcp -j RELAY_OUT\n-A RELAY_OUT -p tcp --dport 7 -j ACCEPT\nCOMMIT\n",
    "iptables-legacy": "*nat\n:RELAY_IN - [0:0]\n-A RELAY_IN -p tcp --dport 7 -j ACCEPT\nCOMMIT\n",
}


@backends
@pytest.mark.parametrize("theirs", FOREIGN_NAMES)
def test_what_others_made_under_our_names_is_left_to_them(pod: Pod, backend: str, theirs: str) -> None:
    """apply would delete somebody's rules because of their name."""
    if theirs == "nft":
        pod.namespace.nft(FOREIGN_NAMES[theirs])
    else:
        pod.namespace.run([f"{PROGRAMS[theirs]}-restore", "--noflush"], stdin=FOREIGN_NAMES[theirs])
    before = snapshot(pod.namespace)
    pod.configure("redirect", backend)
    assert pod.state() == "foreign"
    for command in ("plan", "apply"):
        assert "expected nothing, or our own, found chains that we did not make" in pod.run(command, status=1).stderr
    pod.run("apply", "--confirm", "1m", status=1)
    assert snapshot(pod.namespace) == before


@backends
def test_remove_leaves_what_others_made_under_our_names(pod: Pod, backend: str) -> None:
    """remove would delete somebody's rules because of their name."""
    for program in PROGRAMS.values():
        pod.namespace.run([f"{program}-restore", "--noflush"], stdin=FOREIGN_NAMES["iptables"])
    pod.namespace.nft(FOREIGN_NAMES["nft"])
    before = snapshot(pod.namespace)
    pod.configure("redirect", backend)
    pod.run("remove", status=None)
    assert snapshot(pod.namespace) == before


CLASHES = {
    "rule add pref 100 fwmark 0x539 lookup 9": "rules.mark",
    "rule add pref 100 fwmark 0x111/0xfff lookup 9": "rules.local_mark",
    "rule add pref 100 fwmark 0x112/0xff2 lookup 9": "rules.capture_mark",
    "rule add pref 100 fwmark 0x113/0xfff lookup 9": "rules.client_mark",
    "route add 192.0.2.0/24 dev lo table 100": "rules.route_table",
    "rule add pref 9 from 192.0.2.0/24 lookup 100": "rules.route_table",
}


@pytest.mark.parametrize("command", CLASHES)
@backends
def test_a_clash_is_told_before_anything_is_changed(pod: Pod, backend: str, command: str) -> None:
    """Somebody's VPN would lose its packets to us, and it would be too late when it is noticed."""
    pod.namespace.ip(command, family=4)
    before = snapshot(pod.namespace)
    pod.configure(UNTRACKED, backend)
    for subcommand in ("plan", "apply"):
        done = pod.run(subcommand, status=1)
        assert f"choose another {CLASHES[command]}" in done.stderr
        assert snapshot(pod.namespace) == before
    assert pod.state() == "missing"


@backends
def test_packets_are_counted_by_rule(pod: Pod, backend: str) -> None:
    """Nobody could see which rule let a connection pass."""
    pod.configure("redirect", backend)
    pod.run("apply")

    def counted() -> int:
        rules = json.loads(pod.run("status", "--json").stdout)["rules"]
        return sum(rule["packets"] or 0 for rule in rules if "localhost and own addresses" in rule["rule"])

    before = counted()
    dial = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    for _ in range(3):
        pod.namespace.run(["python3", "-c", dial])
    assert counted() == before + 3
    after = of_others(snapshot(pod.namespace))
    pod.run("apply")
    assert counted() == before + 3, "applying what is there resets nothing"
    assert of_others(snapshot(pod.namespace)) == after
