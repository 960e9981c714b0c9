"""Rules and connections that are already there: what was begun before a change goes on, what is begun after it is captured."""

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import product

import pytest

from tests.support import rules
from tests.support.catcher import Held, Scene, ask, at, hold
from tests.support.network import CLIENT, FAMILIES, POD, SERVER
from tests.support.path import Path
from tests.support.peers import local, receive
from tests.support.relay import Relay
from tests.support.rule_commands import BACKENDS, CAPTURES, backends, every_capture
from tests.support.ways import UNTRACKED
from tests.support.world import ANY, Way, captured

BOTH = {capture: {"outbound": capture, "inbound": capture} for capture in (*CAPTURES, UNTRACKED)}


def begun(scene: Scene) -> list[Held]:
    """A connection of the pod, one to the pod and one within it, in each family."""
    held = []
    for family in FAMILIES:
        held.append(hold(scene.pod, family, at(SERVER, family, 80), uid=1000))
        held.append(hold(scene.client, family, at(POD, family, 80)))
        held.append(hold(scene.pod, family, at(POD, family, 80), uid=1000))
    return held


def takers(held: list[Held]) -> list[str]:
    return [connection.answer.by for connection in held]


DIRECT = ["server", "app", "app"] * 2
CAPTURED = ["outbound", "inbound", "app"] * 2


@every_capture
@backends
def test_connections_older_than_the_rules_go_on(scene: Scene, backend: str, capture: str) -> None:
    """Rules applied to a machine that works would cut its connections, of which conntrack knows nothing yet."""
    before = begun(scene)
    assert takers(before) == DIRECT
    with scene.ruled(backend, BOTH[capture]):
        assert [connection.lives() for connection in before] == [True] * 6
        assert takers(begun(scene)) == CAPTURED
        assert [connection.lives() for connection in before] == [True] * 6
    assert [connection.lives() for connection in before] == [True] * 6


@every_capture
@backends
def test_the_first_to_speak_may_be_the_other_end(scene: Scene, backend: str, capture: str) -> None:
    """Of a connection older than the rules conntrack takes the first packet for its beginning, whoever sends it."""
    with ExitStack() as paths:
        pairs = []
        for family in FAMILIES:
            for near, far, address in ((scene.pod, scene.server, SERVER), (scene.client, scene.pod, POD)):
                path = paths.enter_context(Path(near, far, family, ANY[family], (ANY[family], 7000 + family)))
                path.dial_to = (address[family], 7000 + family)
                path.listen()
                pairs.append(path.pair())
        with scene.ruled(backend, BOTH[capture]):
            for pair in pairs:
                for end, other in ((pair.origin, pair.client), (pair.client, pair.origin)):
                    other.settimeout(3.0)
                    end.sendall(b"hello")
                    assert receive(other, 5) == b"hello"


# What is applied over rules that hold connections. Each says what changes.
CHANGES: Mapping[str, Mapping[str, object]] = {
    "nothing": {},
    "a port": {"outbound_exclude_ports": [53]},
    "failure": {"on_failure": "drop"},
    "these are excluded": {"outbound_exclude_ports": [80], "inbound_exclude_ports": [80]},
}


@pytest.mark.parametrize("change", CHANGES)
@every_capture
@backends
def test_captured_connections_survive_another_apply(scene: Scene, backend: str, capture: str, change: str) -> None:
    """A change of one key would cut everything that is captured."""
    with scene.ruled(backend, BOTH[capture]):
        before = begun(scene)
        assert takers(before) == CAPTURED
        scene.reapply(backend, BOTH[capture], CHANGES[change])
        assert [connection.lives() for connection in before] == [True] * 6
        assert takers(begun(scene)) == (DIRECT if change == "these are excluded" else CAPTURED)
        assert [connection.lives() for connection in before] == [True] * 6


@pytest.mark.parametrize(("before", "after"), [pair for pair in product(BACKENDS, repeat=2) if pair[0] != pair[1]])
@every_capture
def test_captured_connections_survive_another_back_end(scene: Scene, capture: str, before: str, after: str) -> None:
    """A machine that is moved from iptables to nft would be cut off."""
    with scene.ruled(before, BOTH[capture]):
        held = begun(scene)
        scene.reapply(after, BOTH[capture])
        assert [connection.lives() for connection in held] == [True] * 6
        assert takers(begun(scene)) == CAPTURED


@pytest.mark.parametrize("first", ["client", "origin"])
@every_capture
@backends
def test_conntrack_may_be_flushed(scene: Scene, backend: str, capture: str, first: str) -> None:
    """TPROXY needs no conntrack for what is captured; REDIRECT lives by it, and what was never captured lives in both."""
    with scene.ruled(backend, BOTH[capture], {"outbound_exclude_ports": [443], "inbound_exclude_ports": [443]}):
        held = begun(scene) if capture != "redirect" else []
        for family in FAMILIES:
            held.append(hold(scene.pod, family, at(SERVER, family, 443), uid=1000))
            held.append(hold(scene.client, family, at(POD, family, 443)))
        flush_conntrack(scene)
        if first == "origin":
            for desk in (scene.relay, scene.others):
                desk.speak(b"unasked")
            assert [connection.hears(b"unasked") for connection in held] == [True] * len(held)
        assert [connection.lives() for connection in held] == [True] * len(held)


def flush_conntrack(scene: Scene) -> None:
    """Make the kernel forget every connection of the pod."""
    for family in ("ipv4", "ipv6"):
        scene.pod.run(["conntrack", "-F", "-f", family])


@every_capture
@backends
def test_syn_cookies(scene: Scene, backend: str, capture: str) -> None:
    """Under a SYN flood the answer to a cookie belongs to no socket yet: every new connection would be lost."""
    scene.pod.sysctl("net.ipv4.tcp_syncookies", "2")
    with scene.ruled(backend, BOTH[capture]):
        held = begun(scene)
        assert takers(held) == CAPTURED
        assert [connection.lives() for connection in held] == [True] * 6


@backends
def test_syn_cookies_of_a_gateway(scene: Scene, backend: str) -> None:
    """The same for clients behind a gateway."""
    scene.pod.sysctl("net.ipv4.tcp_syncookies", "2")
    with scene.ruled(backend, {"gateway": "tproxy"}, {"gateway_interfaces": ["to-client"]}):
        for family in FAMILIES:
            held = hold(scene.client, family, at(SERVER, family, 80))
            assert held.answer.by == "gateway"
            assert held.lives()


WAYS = [
    Way(capture, family, direction, backend)
    for capture, family, direction, backend in product(CAPTURES, FAMILIES, ("outbound", "inbound"), BACKENDS)
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_client_may_use_its_port_again(way: Way) -> None:
    """A client that comes back on its port meets the relay's TIME_WAIT socket: it must neither wait nor slip past the relay."""
    with captured(way) as world:
        world.path.listen()
        name = world.path.come_back(3)
        world.relay.await_records(3, event="access", client=name, listener=way.direction, reason="finished")


MIXED = [("redirect", "tproxy"), ("tproxy", "redirect"), ("tproxy", "tproxy")]


@pytest.mark.parametrize(("outbound", "inbound"), MIXED)
@backends
def test_a_relay_with_a_capture_for_each_direction(backend: str, outbound: str, inbound: str) -> None:
    """Users capture inbound by TPROXY for the client's address and outbound by REDIRECT for its simplicity, or otherwise."""
    preserves = inbound == "tproxy"
    listeners = [
        {"name": "outbound", "direction": "outbound", "port": 15002, "capture": outbound},
        {"name": "inbound", "direction": "inbound", "port": 15006, "capture": inbound, "preserve_client": preserves},
    ]
    with Scene.made() as scene:
        rules.apply(scene.pod, {"rules": {"backend": backend}, "listener": listeners})
        with Relay(scene.pod, listeners) as relay, ExitStack() as sockets:
            relay.await_ready()
            for family in FAMILIES:
                out = hold(scene.pod, family, at(SERVER, family, 80), uid=1000)
                into = hold(scene.client, family, at(POD, family, 80))
                sockets.callback(out.sock.close)  # type: ignore[union-attr]
                assert (out.answer.by, into.answer.by) == ("server", "app")
                assert into.answer.caller == (CLIENT if preserves else POD)[family]
                assert out.lives() and into.lives()
                relay.await_flows(2)
                clients = {flow["client"]: flow["listener"] for flow in relay.flows()}
                assert clients == {local(out.sock): "outbound", local(into.sock): "inbound"}  # type: ignore[arg-type]
                # The pod's own address, ssh and its other servers are as they were.
                assert ask(scene.pod, family, at(POD, family, 80)).by == "app"
                assert ask(scene.client, family, at(POD, family, 22)).caller == CLIENT[family]
                relay.await_flows(2)
                for held in (out, into):
                    held.sock.close()  # type: ignore[union-attr]
                relay.await_flows(0)
            relay.finish()
