"""A running relay and what becomes of its rules: noticed within five seconds, by a process that has no privilege left."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sidecar.rules import observe, watch
from sidecar.rules.observe import Observation
from tests.support import rules
from tests.support.clock import Stopwatch
from tests.support.clock import observe as let_pass
from tests.support.netns import Namespace
from tests.support.network import Network
from tests.support.relay import NO_ENDPOINTS, UID, Relay
from tests.support.users import launcher
from tests.support.world import Way, World, captured, listeners

NOTICED_SECONDS = 5.0
FOREIGN = "table ip theirs {\nchain out {\ntype filter hook output priority 0;\ncounter\n}\n}\n"
WAYS = [Way(capture, backend=backend) for capture in ("redirect", "tproxy") for backend in ("nft", "iptables")]

# By command: the state then, and a word of the detail.
NFT_CHANGES = {
    "nft delete table inet relay_sidecar": ("missing", "no rules"),
    "nft flush table inet relay_sidecar": ("missing", "no rules"),
    "nft flush chain inet relay_sidecar nat_output": ("changed", "inet relay_sidecar"),
    "nft add rule inet relay_sidecar nat_output counter": ("changed", "other rules"),
    "nft insert rule inet relay_sidecar nat_output accept": ("changed", "other rules"),
    "nft add chain inet relay_sidecar theirs": ("changed", "other rules"),
    "nft add table inet relay_sidecar { flags dormant; }": ("changed", "other rules"),
}
IPTABLES_CHANGES = {
    "iptables-nft -t nat -F": ("changed", "only in ip6 nat"),
    "iptables-nft -t nat -F RELAY_OUT": ("changed", "ip nat"),
    "iptables-nft -t nat -F OUTPUT": ("changed", "ip nat"),
    "ip6tables-nft -t nat -F OUTPUT": ("changed", "ip6 nat"),
    "iptables-nft -t nat -A RELAY_OUT -j RETURN": ("changed", "ip nat"),
    "iptables-nft -t nat -D RELAY_RECORD 1": ("changed", "ip nat"),
}
ROUTING_CHANGES = {
    "ip -4 rule del pref 32764 fwmark 0x111/0xfff": ("changed", "ip -4 rule add pref 32764 fwmark 0x111/0xfff"),
    "ip -6 rule del pref 32764 fwmark 0x112/0xfff": ("changed", "ip -6 rule add pref 32764 fwmark 0x112/0xfff"),
    "ip -4 route flush table 100": ("changed", "ip -4 route add local default dev lo table 100"),
}


def state(relay: Relay) -> str:
    return str(relay.ask("stats")["rules"])


def told(relay: Relay, count: int) -> dict[str, Any]:
    """The newest of so many records on the rules."""
    return relay.await_records(count, event="rules", within=NOTICED_SECONDS)[-1]


@contextlib.contextmanager
def watched(way: Way, **rules: Any) -> Iterator[World]:
    """A relay that root started, with rules that are as planned."""
    with captured(way, {"rules": rules} if rules else None) as world:
        assert world.relay.await_records(1, event="start")[0]["rules"] == "ok"
        assert state(world.relay) == "ok"
        yield world


def change(world: World, command: str) -> None:
    world.captured.pod.run(command.split())


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_rules_that_are_gone_and_come_back(way: Way) -> None:
    """Connections would pass the relay by, and nobody would know since when."""
    with watched(way) as world:
        change(world, "nft flush ruleset")
        gone = told(world.relay, 1)
        assert (gone["level"], gone["state"], gone["by"].partition(" (pid")[0]) == ("warn", "missing", "nft")
        world.relay.await_message("warning: rules: ", "missing by nft", "rules apply")
        world.apply_rules()
        again = told(world.relay, 2)
        assert (again["level"], again["state"], again["detail"]) == ("info", "ok", None)
        assert state(world.relay) == "ok"


@pytest.mark.parametrize("changes", [NFT_CHANGES, IPTABLES_CHANGES, ROUTING_CHANGES], ids=["nft", "iptables", "ip"])
def test_what_is_done_by_hand_is_noticed(changes: Mapping[str, tuple[str, str]]) -> None:
    """Traffic would pass the relay by, or hang, and it would go on saying ok."""
    way = {"nft": Way(), "ip": Way("tproxy")}.get(next(iter(changes)).split()[0], Way(backend="iptables"))
    with watched(way) as world:
        for number, (command, (expected, detail)) in enumerate(changes.items()):
            change(world, command)
            found = told(world.relay, 2 * number + 1)
            assert found["state"] == expected, command
            assert detail in found["detail"]
            if way.capture == "redirect":
                assert found["by"].startswith(command.split()[0][:12])
            world.apply_rules()
            assert told(world.relay, 2 * number + 2)["state"] == "ok", command


def test_rules_before_conntrack_are_watched_too() -> None:
    """With notrack there is a table more, without which half of every connection would be tracked."""
    for way in (Way("tproxy", direction="inbound"), Way("tproxy", direction="inbound", backend="iptables")):
        with watched(way, notrack=True) as world:
            command = "nft flush chain inet relay_sidecar raw_output"
            change(world, command if way.backend == "nft" else "iptables-nft -t raw -F RELAY_OUT")
            found = told(world.relay, 1)
            assert found["state"] == "changed"
            assert ("inet relay_sidecar" if way.backend == "nft" else "ip raw") in found["detail"]
            world.apply_rules()
            assert told(world.relay, 2)["state"] == "ok"


def test_one_rule_less_is_noticed() -> None:
    """The relay's own connections could be captured for want of an exemption."""
    with watched(Way()) as world:
        listing = world.captured.pod.run(["nft", "-a", "list", "chain", "inet", "relay_sidecar", "nat_output"]).stdout
        handle = listing.rpartition("handle ")[2].split()[0]
        world.captured.pod.nft(f"delete rule inet relay_sidecar nat_output handle {handle}")
        assert told(world.relay, 1)["state"] == "changed"
        assert "inet relay_sidecar" in told(world.relay, 1)["detail"]


@pytest.mark.parametrize("way", [Way(), Way("tproxy", backend="iptables")], ids=str)
def test_what_others_do_is_no_news(way: Way) -> None:
    """Each change of somebody else's firewall would raise an alarm."""
    with watched(way) as world:
        world.captured.pod.nft(FOREIGN)
        change(world, "iptables-nft -t nat -A OUTPUT -p tcp -j RETURN")
        change(world, "iptables-nft -t nat -D OUTPUT -p tcp -j RETURN")
        change(world, "nft delete table ip theirs")
        change(world, "ip rule add pref 7 fwmark 9 lookup 9")
        change(world, "ip route add 192.0.2.0/24 via 10.2.0.1")
        world.apply_rules()
        let_pass(1.5)  # longer than it waits before it looks, twice
        assert world.relay.await_records(0, event="rules") == []
        assert state(world.relay) == "ok"
        change(world, "nft flush ruleset")
        assert told(world.relay, 1)["state"] == "missing"


def test_it_is_noticed_soon() -> None:
    """Five seconds are promised."""
    with watched(Way()) as world:
        clock = Stopwatch()
        change(world, "nft delete table inet relay_sidecar")
        told(world.relay, 1)
        assert clock.seconds < NOTICED_SECONDS


def test_without_rules_it_starts_quietly_and_sees_them_come() -> None:
    """A relay that is there before its rules would warn at each start, or never say that they are there."""
    way = Way()
    bound = listeners(way, {})
    with Network.made() as network, Relay(network.pod, bound) as relay:
        relay.await_ready()
        assert relay.await_records(1, event="start")[0]["rules"] == "missing"
        assert [line for line in relay.messages.all() if "rules" in line] == []
        rules.apply(network.pod, {"listener": bound, "admin": NO_ENDPOINTS})
        assert told(relay, 1)["state"] == "ok"


def test_rules_of_another_configuration_are_told_apart() -> None:
    """A relay on new ports would believe that the old rules serve it."""
    bound = listeners(Way(), {})
    with Network.made() as network:
        rules.apply(network.pod, {"listener": bound})
        with Relay(network.pod, bound) as relay:
            relay.await_ready()
            stats = relay.ask("stats")
            assert stats["rules"] == "changed"
            assert "another configuration" in stats["rules_detail"]


@pytest.mark.parametrize("capabilities", [[], ["net_raw"]], ids=["none", "net_raw"])
def test_who_may_not_look_never_says_ok(capabilities: list[str]) -> None:
    """A relay that cannot know would be believed, and its dashboard would be green."""
    settings = {"admin": {"metrics": "127.0.0.1:15020"}}
    with captured(Way(), settings, launcher=launcher(UID, *capabilities)) as world:
        assert world.relay.await_records(1, event="start")[0]["rules"] == "not observable"
        assert state(world.relay) == "not observable"
        assert "relay_rules_ok" not in metrics(world)


def test_who_may_look_has_a_figure() -> None:
    """No alarm could be built on it."""
    with captured(Way(), {"admin": {"metrics": "127.0.0.1:15020"}}, launcher=launcher(UID, "net_admin", "net_raw")) as world:
        assert state(world.relay) == "ok"
        assert "relay_rules_ok 1\n" in metrics(world)
        change(world, "nft flush ruleset")
        told(world.relay, 1)
        assert "relay_rules_ok 0\n" in metrics(world)


def metrics(world: World) -> str:
    return world.captured.pod.run(["curl", "-s", "http://127.0.0.1:15020/metrics"]).stdout


def test_legacy_rules_are_not_observable() -> None:
    """The kernel tells nobody of them: `missing` would be as wrong as `ok`."""
    with captured(Way(backend="iptables-legacy")) as world:
        assert state(world.relay) == "not observable"


def test_a_reload_changes_what_is_expected() -> None:
    """After SIGHUP and `rules apply` of the new file, as users do it, the relay would warn of the right rules."""
    with watched(Way()) as world:
        text = world.relay.config_path.read_text()
        world.relay.write_config(text + "\n[rules]\noutbound_exclude_ports = [9999]\n")
        world.relay.ask("reload")
        assert told(world.relay, 1)["state"] == "changed"
        rules.apply(world.captured.pod, {**world.relay.config, "rules": {"outbound_exclude_ports": [9999]}})
        assert told(world.relay, 2)["state"] == "ok"


def test_a_flood_is_not_mistaken_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """After thousands of messages that nobody could read, the relay would go on saying ok, whatever had happened among them."""
    monkeypatch.setattr(watch, "RULES_BUFFER_BYTES", 4096)
    pod = Namespace("pod")
    tables = {"listener": listeners(Way(), {})}
    rules.apply(pod, tables)
    with pod.entered():
        observation = Observation(rules.configured(tables))
    assert observation.verdict().state == "ok"
    pod.nft(FOREIGN + "add rule ip theirs out counter\n" * 400)
    pod.nft("delete table inet relay_sidecar")
    observation.hear()
    assert observation.verdict().state == "unknown"
    rules.apply(pod, tables)
    pod.close()


def test_many_foreign_rules_are_no_flood() -> None:
    """Beside kube-proxy the relay would soon not know how its rules are."""
    pod = Namespace("pod")
    tables = {"listener": listeners(Way(), {})}
    rules.apply(pod, tables)
    with pod.entered():
        observation = Observation(rules.configured(tables))
    pod.nft(FOREIGN + "add rule ip theirs out ip daddr 192.0.2.1 tcp dport 80 counter accept\n" * 20_000)
    clock = Stopwatch()
    observation.hear()
    assert clock.seconds < 5  # ten times the figure
    assert observation.verdict().state == "ok"
    pod.close()


def test_a_legacy_table_that_may_not_be_read_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that was started as its own user would call rules missing that it was not allowed to see."""
    monkeypatch.setattr(observe, "LEGACY_TABLES", ("/proc/self/mem/names",))
    assert observe._legacy_could_hold_rules()
    monkeypatch.setattr(observe, "LEGACY_TABLES", ("/proc/self/net/no such file",))
    assert not observe._legacy_could_hold_rules()
