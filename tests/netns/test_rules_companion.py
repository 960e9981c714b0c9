"""`run --with-rules`: the relay and its rules come and go together, whoever is killed."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import NO_PRIVILEGE
from tests.support.clock import eventually
from tests.support.netns import Namespace
from tests.support.network import POD_TO_SERVER, SERVER, V4, Network
from tests.support.path import Path as Way
from tests.support.relay import UID, Relay
from tests.support.rule_commands import captures, tables
from tests.support.toml import to_toml

APP_PORT = 8080


@contextmanager
def guarded(network: Network, capture: str, rules: Mapping[str, Any] = {}, launcher: Sequence[str] = ()) -> Iterator[Relay]:
    configuration = tables(capture, **rules)
    listeners = configuration.pop("listener")
    with Relay(network.pod, listeners, configuration, arguments=("--with-rules",), launcher=launcher) as relay:
        yield relay


def told(relay: Relay, what: str) -> dict[str, Any]:
    """The record about the rules that says so."""
    return relay.await_records(1, event="rules", what=what)[0]


def kernel(pod: Namespace) -> str:
    """Everything that rules could have left."""
    words = ["nft list ruleset", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all"]
    return "\n".join(pod.run(command.split()).stdout for command in words)


def round_trip(network: Network) -> str:
    """A connection from the pod to the server, a word each way; the client's address."""
    with Way(network.pod, network.server, V4, POD_TO_SERVER[V4], ("0.0.0.0", APP_PORT)) as path:
        path.dial_to = (SERVER[V4], APP_PORT)
        path.listen()
        client, origin, name = path.pair()
        client.sendall(b"word")
        assert origin.recv(4) == b"word"
        client.close()
        origin.close()
    return name


def children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


@captures
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_rules_come_with_the_relay_and_go_with_it(network: Network, capture: str, end: int) -> None:
    """A relay that died would leave rules that lead every connection nowhere."""
    before = kernel(network.pod)
    with guarded(network, capture) as relay:
        (ready,) = relay.await_records(1, event="ready")
        assert ready["rules"] == "ok"
        told = " ".join(ready["probes"])
        assert f"inbound {capture} IPv4: captured: " in told
        assert f"outbound {capture} IPv4: not probed: no route " in told
        assert relay.access(client=round_trip(network))["reason"] == "finished"
        relay.signal(end)
        relay.exit_status()
        assert eventually(lambda: kernel(network.pod) == before), kernel(network.pod)
    round_trip(network)


@captures
def test_rules_that_somebody_takes_away_come_back(network: Network, capture: str) -> None:
    """The app's connections would go past the relay until somebody noticed."""
    with guarded(network, capture) as relay:
        relay.await_ready()
        planned = kernel(network.pod)
        network.pod.nft("delete table inet relay_sidecar")
        assert told(relay, "repaired")["differences"] > 0
        assert [line for line in kernel(network.pod).splitlines() if "counter" not in line] == [
            line for line in planned.splitlines() if "counter" not in line
        ]
        assert relay.access(client=round_trip(network))["reason"] == "finished"
        relay.signal(signal.SIGTERM)
        assert relay.exit_status() == 0


@pytest.mark.parametrize("who", ["the companion", "the keeper"])
def test_without_its_companion_the_rules_go_and_the_relay_says_so(network: Network, who: str) -> None:
    """Rules that nobody guards any more would outlive the relay."""
    before = kernel(network.pod)
    with guarded(network, "tproxy") as relay:
        relay.await_ready()
        (companion,) = children(relay.process.pid)
        assert eventually(lambda: len(children(companion)) == 1), "the programs that it ran have ended"
        (keeper,) = children(companion)
        os.kill(companion if who == "the companion" else keeper, signal.SIGKILL)
        told(relay, "gone")
        assert eventually(lambda: kernel(network.pod) == before), kernel(network.pod)
        relay.signal(signal.SIGTERM)
        assert relay.exit_status() == 0


def test_with_a_guard_a_dead_relay_lets_connections_pass(network: Network) -> None:
    """on_failure = "open" would be a promise that nobody keeps."""
    with guarded(network, "redirect", {"on_failure": "open"}) as relay:
        relay.await_ready()
        relay.signal(signal.SIGKILL)
        relay.exit_status()
        assert eventually(lambda: "relay_sidecar" not in kernel(network.pod))
        round_trip(network)


def test_without_the_privilege_the_relay_does_not_start(network: Network) -> None:
    """A relay would run, say ready, and capture nothing."""
    launcher = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs")
    with guarded(network, "redirect", launcher=launcher) as relay:
        assert relay.exit_status() == NO_PRIVILEGE
        assert "CAP_NET_ADMIN" in relay.messages.rest()[-1]


def test_rules_that_cannot_be_are_told_before_the_start(network: Network) -> None:
    """The relay would be ready, and its rules would not be there."""
    with guarded(network, "tproxy", {"backend": "iptables", "on_failure": "reset"}) as relay:
        assert relay.exit_status() == 78
        assert "rules.on_failure" in relay.messages.rest()[-1]


def test_its_rules_change_with_a_restart(network: Network) -> None:
    """The relay would call its own rules those of another configuration, and name a way to mend them that it refuses itself."""
    with guarded(network, "redirect") as relay:
        relay.await_ready()
        relay.write_config(to_toml({**relay.config, "rules": {**relay.config["rules"], "outbound_ports": [8080]}}))
        relay.signal(signal.SIGHUP)
        (reload,) = relay.await_records(1, event="reload")
        assert (reload["restart"], reload["rules"]) == (["rules.outbound_ports"], [])
        relay.signal(signal.SIGTERM)
        assert relay.exit_status() == 0
        relay.records.rest()
        assert [record for record in relay.records.all() if record["event"] in ("rules", "warning")] == []
