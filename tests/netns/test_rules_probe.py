"""The probe: what it says of rules that work, that do not, and that it cannot try; and that it leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sidecar.rules import attempts
from sidecar.rules.probe import hints, run_trials
from sidecar.rules.trials import Outcome, trials_of
from tests.support import rules
from tests.support.clock import Stopwatch, eventually
from tests.support.netns import Namespace
from tests.support.network import FAMILIES, SERVER, V4, Network
from tests.support.relay import UID
from tests.support.rule_commands import captures
from tests.support.users import launcher
from tests.support.ways import BACKENDS
from tests.support.world import Way, captured, listeners

nft_or_iptables = pytest.mark.parametrize("backend", BACKENDS)
every_set = lambda test: captures(nft_or_iptables(test))  # noqa: E731

Tables = dict[str, Any]

# What a program of its own needs to try the same, with the capabilities that a test leaves it.
ALONE = textwrap.dedent("""
    import json, sys
    import relaycore
    from sidecar.rules.probe import run_trials
    from sidecar.rules.trials import trials_of
    from tests.support.rules import configured
    def refused(_):
        raise PermissionError(1, "Operation not permitted")
    tables, uid, seconds, namespaces = json.loads(sys.argv[1])
    if not namespaces:
        relaycore.unshare = refused
    trials = [trial if uid is None else trial._replace(uid=uid) for trial in trials_of(configured(tables))]
    print(json.dumps([outcome[1:] for outcome in run_trials(trials, 1337, 1337, seconds)]))
""")


APP = """
import socket
with socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True) as app:
    print("ready", flush=True)
    kept = []
    while True:
        kept.append(app.accept())
"""


# A user and ports that are not the probe's own choice, so that messages are told apart from chance.
SELECTED = {"inbound_ports": [80], "outbound_ports": [80], "outbound_uids": [65534]}
ANYBODY = {"inbound_ports": "all", "outbound_uids": []}
OTHERS = """
table inet others {
  chain in { type filter hook prerouting priority raw; tcp dport 80 iifname relay-* drop; }
  chain out {
    type filter hook output priority -160;
    ip6 nexthdr tcp ip6 daddr 2001:db8::1 reject with tcp reset
    ip daddr 192.0.2.1 drop
  }
}
"""


class Pod(NamedTuple):
    """Where the rules are."""

    namespace: Namespace
    tables: Tables

    def try_all(self, seconds: float = 0.5) -> dict[str, Outcome]:
        """What came of each trial, by "outbound 4" and so on."""
        with self.namespace.entered():
            return named(run_trials(trials_of(rules.configured(self.tables)), UID, UID, seconds))

    def apply(self) -> None:
        rules.apply(self.namespace, self.tables)


def named(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    return {f"{each.trial.direction} {4 if each.trial.family == 2 else 6}": each for each in outcomes}


def verdicts(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: outcome.verdict for name, outcome in outcomes.items()}


def all_are(verdict: str) -> dict[str, str]:
    return {f"{direction} {family}": verdict for direction in ("outbound", "inbound") for family in FAMILIES}


@contextmanager
def made(capture: str, backend: str = "nft", *, routes: bool = True, **keys: Any) -> Iterator[Pod]:
    """A pod without rules and without a relay; further keys of [rules]."""
    with Network.made() as network:
        network.server.sysctl("net.ipv4.ip_forward", "1")  # a router
        if routes:
            add_default_routes(network.pod)
        tables = {"rules": {"backend": backend, **SELECTED, **keys}, "listener": listeners(Way(capture), {})}
        yield Pod(network.pod, tables)


def add_default_routes(pod: Namespace) -> None:
    pod.ip(*(f"route add default via {SERVER[family]}" for family in FAMILIES))


def left_behind(pod: Namespace) -> list[str]:
    """Everything that the probe makes while it tries, as far as anybody can see it."""
    seen = [pod.run(argv).stdout for argv in (["ip", "-o", "addr"], ["ip", "-o", "link"], ["ip", "-o", "-6", "addr"])]
    return [*seen, pod.run(["ss", "-tanH"]).stdout, Path("/proc/thread-self/children").read_text()]


@every_set
def test_rules_that_work_are_seen_to_work(capture: str, backend: str) -> None:
    """`rules apply` in an init container would fail, or say nothing of whether connections will be captured."""
    with made(capture, backend) as pod:
        pod.apply()
        before = left_behind(pod.namespace)
        watch = Stopwatch()
        assert verdicts(pod.try_all()) == all_are("captured")
        assert watch.seconds < 3  # ten times the figure
        assert left_behind(pod.namespace) == before


@nft_or_iptables
def test_rules_without_conntrack_are_seen_to_work(backend: str) -> None:
    """The probe's own sockets have no mark of a relay's: good rules would be taken back."""
    with made("tproxy", backend, notrack=True) as pod:
        pod.apply()
        assert verdicts(pod.try_all()) == all_are("captured")


@pytest.mark.parametrize("preserved", [False, True])
@every_set
def test_a_relay_that_runs_is_seen_to_take_connections(capture: str, backend: str, preserved: bool) -> None:
    """On a host, applying again would take the relay's port for somebody else's, and the rules for broken."""
    options = {"preserve_client": True} if preserved and capture == "tproxy" else {}
    with captured(Way(capture, V4, "inbound", backend), {"listener": options}) as world:
        add_default_routes(world.captured.pod)
        pod = Pod(world.captured.pod, {"rules": {"backend": backend}, "listener": world.relay.config["listener"]})
        outcomes = pod.try_all()
        assert verdicts(outcomes) == all_are("captured")
        assert {"by the relay" in outcome.detail for outcome in outcomes.values()} == {True}


@captures
def test_an_app_that_listens_is_no_hindrance(capture: str) -> None:
    """The trial's port is often the app's: the probe could not listen there, and would blame the rules."""
    with made(capture) as pod:
        pod.apply()
        with listening(pod.namespace):
            assert verdicts(pod.try_all()) == all_are("captured")
            rules.remove(pod.namespace)
            assert verdicts(pod.try_all()) == all_are("failed")


@contextmanager
def listening(pod: Namespace) -> Iterator[None]:
    """An app on port 80, of both families, that accepts."""
    with pod.popen([sys.executable, "-c", APP], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as app:
        assert app.stdout is not None
        assert app.stdout.readline() == b"ready\n"
        yield
        app.terminate()


@captures
def test_without_rules_every_trial_fails(capture: str) -> None:
    """Rules that capture nothing would be reported as working."""
    with made(capture) as pod:
        outcomes = pod.try_all()
        assert verdicts(outcomes) == all_are("failed")
        router = "No route to host, as a router or a firewall says"  # the TTL ends there
        assert outcomes["outbound 4"].detail == f"user 65534 to 192.0.2.1:80: {router}"
        assert outcomes["inbound 6"].detail.endswith(":80: reached the port itself")


@captures
def test_without_rules_a_running_relay_does_not_hide_it(capture: str) -> None:
    """A connection that reaches the app directly also succeeds, and would be taken for a captured one."""
    with captured(Way(capture, V4, "inbound")) as world:
        add_default_routes(world.captured.pod)
        rules.remove(world.captured.pod)
        pod = Pod(world.captured.pod, {"rules": SELECTED, "listener": world.relay.config["listener"]})
        assert verdicts(pod.try_all()) == all_are("failed")
        with listening(pod.namespace):
            outcomes = pod.try_all()
        assert verdicts(outcomes) == all_are("failed")
        assert outcomes["inbound 4"].detail.endswith(":80: accepted by whoever listens on the port itself")


@captures
def test_rules_of_others_that_stop_connections_are_noticed(capture: str) -> None:
    """Rules that came first would make the capture useless, and nobody would say so."""
    with made(capture) as pod:
        pod.apply()
        pod.namespace.nft(OTHERS)
        outcomes = pod.try_all()
        assert verdicts(outcomes) == all_are("failed")
        assert outcomes["outbound 6"].detail == "user 65534 to [2001:db8::1]:80: Connection refused"
        assert outcomes["outbound 4"].detail == "user 65534 to 192.0.2.1:80: no answer within 0.5 s"
        assert "nft list ruleset" in hints(outcomes["outbound 4"].trial)


def test_a_destination_that_is_changed_on_the_way_is_noticed() -> None:
    """The relay would dial somewhere else than the client meant."""
    with made("tproxy") as pod:
        pod.apply()
        changing = "type nat hook output priority -100; ip daddr 192.0.2.1 tcp dport 80 dnat to 192.0.2.99:81"
        pod.namespace.nft(f"table ip others {{ chain out {{ {changing}; }}; }}")
        outcomes = pod.try_all()
        assert verdicts(outcomes) == {**all_are("captured"), "outbound 4": "failed"}
        told = "user 65534 to 192.0.2.1:80: arrived at 0.0.0.0:15002, but as one to 192.0.2.99:81"
        assert outcomes["outbound 4"].detail == told


@captures
def test_a_firewall_is_not_mistaken_for_rules_that_do_not_work(capture: str) -> None:
    """On a host that lets nothing in, `rules apply` would take good rules back."""
    with made(capture) as pod:
        pod.apply()
        pod.namespace.nft(
            "table inet firewall { chain in { type filter hook input priority 0; policy drop; iif lo accept; }; }"
        )
        outcomes = pod.try_all()
        assert verdicts(outcomes) == {**all_are("captured"), "inbound 4": "not probed", "inbound 6": "not probed"}
        assert "a firewall drops connections" in outcomes["inbound 4"].detail


@nft_or_iptables
def test_a_sysctl_that_breaks_tproxy_is_named(backend: str) -> None:
    """The kernel's TPROXY stops without a word, and a user would search for days."""
    with made("tproxy", backend) as pod:
        pod.apply()
        pod.namespace.sysctl("net.ipv4.tcp_fwmark_accept", "1")
        outcomes = pod.try_all()
        assert verdicts(outcomes) == all_are("failed")
        with pod.namespace.entered():
            told = hints(outcomes["inbound 4"].trial)
        assert told.startswith("net.ipv4.tcp_fwmark_accept is 1, ")
        pod.namespace.sysctl("net.ipv4.tcp_fwmark_accept", "0")
        pod.namespace.sysctl("net.ipv4.conf.all.src_valid_mark", "1")
        outcomes = pod.try_all()
        assert verdicts(outcomes) == {**all_are("captured"), "inbound 4": "failed"}
        with pod.namespace.entered():
            told = hints(outcomes["inbound 4"].trial)
        assert told.startswith("net.ipv4.conf.all.src_valid_mark is 1, ")


@captures
def test_a_strict_reverse_path_is_no_hindrance(capture: str) -> None:
    """Most distributions filter by reverse path: the probe would fail there and take good rules back."""
    with made(capture) as pod:
        pod.apply()
        for where in ("all", "default"):
            pod.namespace.sysctl(f"net.ipv4.conf.{where}.rp_filter", "1")
        assert verdicts(pod.try_all()) == all_are("captured")


def test_without_a_route_nothing_is_blamed() -> None:
    """A pod that has no way out yet would not get its rules."""
    with made("redirect", routes=False) as pod:
        pod.apply()
        outcomes = pod.try_all()
        assert verdicts(outcomes) == {**all_are("captured"), "outbound 4": "not probed", "outbound 6": "not probed"}
        assert outcomes["outbound 4"].detail == "no route to 192.0.2.1: Network is unreachable"


def test_addresses_that_this_machine_uses_are_left_alone() -> None:
    """The probe would cut a machine off from a network that it has behind a benchmark or documentation address."""
    with made("redirect") as pod:
        pod.apply()
        pod.namespace.ip("route add 198.18.0.0/15 dev lo", "route add 2001:db8:ffff::/48 dev lo")
        outcomes = pod.try_all()
        assert verdicts(outcomes) == all_are("captured")
        assert "192.0.2.253" in outcomes["inbound 4"].detail
        assert "2001:2:0:fffc::1" in outcomes["inbound 6"].detail


def alone(pod: Pod, uid: int, *capabilities: str, trial_uid: int | None = None, namespaces: bool = True) -> Any:
    """The trials by a program that is uid and holds these capabilities alone."""
    argument = json.dumps([pod.tables, trial_uid, 0.5, namespaces])
    return json.loads(pod.namespace.run([*launcher(uid, *capabilities), sys.executable, "-c", ALONE, argument]).stdout)


def test_an_init_container_is_told_what_it_lacks() -> None:
    """With NET_ADMIN alone, as mesh injectors give it, the probe would fail instead of saying what it could not try."""
    with made("tproxy") as pod:
        pod.apply()
        outbound4, _, inbound4, _ = alone(pod, 0, "net_admin", namespaces=False)
        assert outbound4 == ["not probed", "nobody can connect as user 65534: CAP_SETUID and CAP_SETGID missing"]
        assert inbound4[0] == "not probed"
        assert inbound4[1].endswith("Operation not permitted, CAP_SYS_ADMIN missing")
        told = [["not probed", "nobody listens on port 80: CAP_NET_BIND_SERVICE missing"]] * 2
        assert alone(pod, 0, "net_admin", "sys_admin")[2:] == told


def test_what_needs_no_capability_is_tried_without() -> None:
    """An init container could never know whether its rules work."""
    with made("tproxy", **ANYBODY) as pod:
        pod.apply()
        assert [verdict for verdict, _ in alone(pod, 0, "net_admin")] == ["captured"] * 4
    with made("redirect", **ANYBODY) as pod:
        pod.apply()
        assert [verdict for verdict, _ in alone(pod, 4242)] == ["captured"] * 2 + ["not probed"] * 2


def test_a_user_with_the_needed_capabilities_can_try() -> None:
    """Only root could apply rules and see whether they work."""
    with made("tproxy", **ANYBODY) as pod:
        pod.apply()
        held = ("net_admin", "sys_admin", "setuid", "setgid")
        assert [verdict for verdict, _ in alone(pod, UID, *held)] == ["captured"] * 4
        assert [verdict for verdict, _ in alone(pod, UID, *held, trial_uid=0)] == ["captured"] * 4


def test_nothing_is_left_of_a_probe_that_is_killed() -> None:
    """An interface and its addresses would stay on a host for ever."""
    with made("tproxy") as pod:
        before = left_behind(pod.namespace)
        argument = json.dumps([pod.tables, None, 60, True])
        process = pod.namespace.popen([sys.executable, "-c", ALONE, argument], stdout=subprocess.DEVNULL)
        assert eventually(lambda: "SYN-SENT" in pod.namespace.run(["ss", "-tanH"]).stdout)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert "relay-" in pod.namespace.run(["ip", "link"]).stdout
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert eventually(lambda: not is_alive(child))
        assert eventually(lambda: left_behind(pod.namespace) == before)


def test_a_probe_that_breaks_does_not_blame_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that work would be taken back because the probe had too few descriptors."""
    with made("redirect") as pod:
        pod.apply()
        monkeypatch.setattr(attempts, "Neighbour", lambda _: 1 / 0)
        told = "the process that was to try it has failed: ZeroDivisionError('division by zero')"
        assert {outcome[1:] for outcome in pod.try_all().values()} == {("not probed", told)}
        monkeypatch.setattr(attempts, "Neighbour", lambda _: os._exit(1))
        told = "the process that was to try it has failed: it ended early"
        assert {outcome[1:] for outcome in pod.try_all().values()} == {("not probed", told)}


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
