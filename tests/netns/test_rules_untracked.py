"""[rules] notrack, with a relay at work: what conntrack then knows, and that no connection is worse off for it.

That the rules select what they select without notrack, the other files of this directory show.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import pytest

from tests.support import rules
from tests.support.adversity import Hook
from tests.support.catcher import SHORT, Held, Scene, ask, at, hold
from tests.support.netns import Namespace
from tests.support.network import CLIENT, FAMILIES, FAMILY, POD, SERVER
from tests.support.peers import receive_all, reset
from tests.support.relay import UID, Relay
from tests.support.rule_commands import BACKENDS, backends
from tests.support.traffic import MIB, Stream, exchange
from tests.support.ways import UNTRACKED
from tests.support.world import Way, World, captured

TRACK = ("filter output 0", "ct state new accept")  # conntrack works as soon as somebody asks it
LENGTH = 3 * MIB  # more than is in flight, so that the end is sent after close()

Entry = tuple[str, str, str]  # of conntrack, whichever end began: source, destination, destination's port

WAYS = [
    Way("tproxy", family, direction, backend)
    for family, direction, backend in product(FAMILIES, ("inbound", "gateway"), BACKENDS)
]
ways = pytest.mark.parametrize("way", WAYS, ids=str)


def tracked(namespace: Namespace) -> list[Entry]:
    """What conntrack knows of TCP."""
    listing = "".join(namespace.run(["conntrack", "-L", "-p", "tcp", "-f", family]).stdout for family in ("ipv4", "ipv6"))
    return re.findall(r"^tcp .*?src=(\S+) dst=(\S+) .*?dport=(\d+)", listing, re.M)


def of_clients(world: World) -> list[Entry]:
    """Entries that have the client's address at either end."""
    own = CLIENT[world.way.family]
    return [entry for entry in tracked(world.captured.pod) if own in entry]


@contextmanager
def untracked(way: Way, **options: Any) -> Iterator[World]:
    """A relay with notrack, in a pod where conntrack is at work."""
    with captured(way, {"rules": {"notrack": True}}, **options) as world:
        Hook(world.captured.pod, *TRACK)
        world.path.listen()
        yield world


@ways
def test_conntrack_knows_what_the_relay_dials_and_no_client(way: Way) -> None:
    """The key would cost something and save nothing, or the relay's own connections would lose their address translation."""
    with untracked(way) as world:
        for first in ("client", "origin"):
            client, origin, name = world.path.live_pair()
            exchange(client, origin, Stream(3, MIB), Stream(4, MIB)) if first == "client" else origin.close()
            assert receive_all(client) == b""
            client.close()
            origin.close()
            assert world.ended(name) == "finished"
        client, origin, name = world.path.live_pair()
        reset(client)
        assert world.ended(name) == "reset_by_client"
        client, origin, name = world.path.live_pair()
        reset(origin)
        assert world.ended(name) == "reset_by_origin"
        assert of_clients(world) == []
        dialled = [entry for entry in tracked(world.captured.pod) if entry[2] == str(world.path.dial_to[1])]
        assert {entry[1] for entry in dialled} == {world.path.dial_to[0]}


@ways
def test_a_port_used_again_is_not_tracked_either(way: Way) -> None:
    """The last words of a connection come from TIME_WAIT, which no user owns: each would be a new entry, for days."""
    with untracked(way) as world:
        name = world.path.come_back(3)
        world.relay.await_records(3, event="access", client=name, reason="finished")
        assert of_clients(world) == []


@ways
def test_what_is_sent_after_close_arrives(way: Way) -> None:
    """The end of a stream would be lost, or tracked, because a closed socket belongs to nobody."""
    room = {"net.ipv4.tcp_wmem": f"4096 {2 * LENGTH} {2 * LENGTH}"}
    with untracked(way, sysctls=room) as world:
        sent = '"to-client" meta l4proto tcp'
        owned = Hook(world.captured.pod, "filter output 100", f"oifname {sent} meta skuid >= 0 counter name seen")
        every = Hook(world.captured.pod, "filter output 100", f"oifname {sent} counter name seen")
        client, origin, name = world.path.pair(receive_buffer=4096)
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b""
        Stream(7, LENGTH).send(origin)
        origin.close()
        assert world.ended(name) == "finished"  # the relay has closed both sockets, and the client has read nothing yet
        before = owned.seen(), every.seen()
        Stream(7, LENGTH).receive(client)
        assert owned.seen() == before[0]
        assert every.seen() > before[1]
        assert of_clients(world) == []


@pytest.mark.parametrize("exempt", [True, False])
@backends
def test_the_relay_is_told_from_its_app_by_marks_alone(backend: str, exempt: bool) -> None:
    """Where the app is the relay's user, its connections would be untracked, or the relay would capture itself."""
    listeners = [
        {"name": name, "direction": name, "port": port, "capture": "tproxy"}
        for name, port in (("outbound", rules.OUTBOUND_PORT), ("inbound", rules.INBOUND_PORT))
    ]
    settings = {"backend": backend, "notrack": True, "exempt_owner": exempt}
    with Scene.made() as scene, Relay(scene.pod, listeners, {"rules": settings}) as relay, ExitStack() as sockets:
        rules.apply(scene.pod, {"rules": settings, "listener": listeners})
        relay.await_ready()
        for family in FAMILIES:
            into = hold(scene.client, family, at(POD, family, 80))
            out = hold(scene.pod, family, at(SERVER, family, 80), uid=UID, gid=UID)
            direct = hold(scene.client, family, at(POD, family, 22))
            for held in (into, out, direct):
                assert held.sock
                sockets.callback(held.sock.close)
            assert (into.answer.by, into.answer.caller) == ("app", POD[family])
            assert (out.answer.by, direct.answer) == ("server", ("app", f"{POD[family]},22", CLIENT[family]))
            assert into.lives() and out.lives() and direct.lives()
            entries = tracked(scene.pod)
            assert (CLIENT[family], POD[family], "80") not in entries
            assert (CLIENT[family], POD[family], "22") in entries
            assert SERVER[family] in {destination for _, destination, port in entries if port == "80"}
        captures = {True: ["inbound"], False: ["inbound", "outbound"]}[exempt]
        relay.await_flows(2 * len(captures))
        assert {flow["listener"] for flow in relay.flows()} == set(captures)
        sockets.close()
        relay.finish()


def live(scene: Scene) -> list[Held]:
    """A connection of each kind, in each family."""
    return [
        hold(place, family, at(where, family, port), uid=1000)
        for family in FAMILIES
        for place, where, port in ((scene.pod, SERVER, 80), (scene.client, POD, 80), (scene.client, POD, 22))
    ]


CAPTURED = ["outbound", "inbound", "app"] * 2


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize(("before", "after"), list(product(BACKENDS, repeat=2)))
def test_notrack_changes_under_live_connections(scene: Scene, before: str, after: str, on: bool) -> None:
    """Whoever tries the key would cut everything that is captured, and whoever takes it back again."""
    old, new = ("tproxy", UNTRACKED) if on else (UNTRACKED, "tproxy")
    with scene.ruled(before, {"outbound": old, "inbound": old}):
        held = live(scene)
        assert [connection.answer.by for connection in held] == CAPTURED
        scene.reapply(after, {"outbound": new, "inbound": new})
        assert [connection.lives() for connection in held] == [True] * len(held)
        for desk in (scene.relay, scene.others):
            desk.speak(b"unasked")
        assert [connection.hears(b"unasked") for connection in held] == [True] * len(held)
        assert [connection.answer.by for connection in live(scene)] == CAPTURED


@backends
def test_a_translated_connection_that_is_older_goes_on(scene: Scene, backend: str) -> None:
    """A port of the host that is published for a container has a listener, and no socket here: it is not a SYN cookie's."""
    scene.forward(True)
    for family in FAMILIES:
        word = {4: "ip", 6: "ip6"}[family]
        target = {4: SERVER[4], 6: f"[{SERVER[6]}]"}[family]
        Hook(scene.pod, "nat prerouting -100", f"meta nfproto ipv{family} tcp dport 8080 dnat {word} to {target}:80")
    published = []
    for family in FAMILIES:
        with scene.client.entered():
            sock = socket.socket(FAMILY[family])
        sock.settimeout(3.0)
        sock.connect(at(POD, family, 8080))
        assert sock.recv(200).startswith(b"server ")
        published.append(sock)
    with scene.ruled(backend, {"inbound": UNTRACKED}):
        for sock in published:
            with sock:
                sock.sendall(b"still there?")
                assert sock.recv(100) == b"still there?"


@backends
def test_a_gateway_fails_closed_under_syn_cookies(scene: Scene, backend: str) -> None:
    """What the page says: the answer to a cookie passes by. It must end there, and not reach the origin as a connection."""
    scene.forward(True)
    scene.pod.sysctl("net.ipv4.tcp_syncookies", "2")
    with scene.ruled(backend, {"gateway": UNTRACKED}, {"gateway_interfaces": ["to-client"]}):
        for family in FAMILIES:
            assert ask(scene.client, family, at(SERVER, family, 80)).by == "reset"


@backends
def test_an_app_at_one_address_fails_closed_under_syn_cookies(scene: Scene, backend: str) -> None:
    """The same for such an app: nobody may reach it past the relay."""
    scene.pod.sysctl("net.ipv4.tcp_syncookies", "2")
    with scene.ruled(backend, {"inbound": UNTRACKED}):
        for family in FAMILIES:
            scene.others.listen(scene.pod, "app", family, 7000, POD[family])
            assert ask(scene.client, family, at(POD, family, 7000)).by == "reset"
            assert ask(scene.client, family, at(POD, family, 80)).by == "inbound"


FIREWALL = """
table inet firewall {
  chain in {
    type filter hook input priority filter; policy drop;
    iif lo accept
    meta l4proto ipv6-icmp accept
    ct state established,related accept
    tcp dport 443 ct state new accept
    tcp dport 80 accept
  }
  chain out {
    type filter hook output priority filter; policy drop;
    oif lo accept
    meta l4proto ipv6-icmp accept
    ct state established,related accept
    meta mark & 0xfff == 0x113 accept
  }
}
"""


@backends
def test_a_firewall_admits_captured_ports_as_such(scene: Scene, backend: str) -> None:
    """What the page says to users of a firewall: a rule that goes by `new` shuts a port, and no other is opened."""
    scene.pod.nft(FIREWALL)
    with scene.ruled(backend, {"inbound": UNTRACKED}):
        for family in FAMILIES:
            held = hold(scene.client, family, at(POD, family, 80))
            assert held.answer.by == "inbound"
            assert held.lives()
            assert [ask(scene.client, family, at(POD, family, port), within=SHORT).by for port in (443, 8080)] == [
                "timeout"
            ] * 2
