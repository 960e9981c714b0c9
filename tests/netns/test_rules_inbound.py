"""[rules], inbound: each key decides by packets sent, for both captures, every back end and both families.

A catcher listens where the relay would and the app where the connections were going: whoever answers is the verdict.
"""

import socket

import pytest

from tests.support.catcher import CLOSED_PORT, SHORT, Answer, Scene, ask, at
from tests.support.netns import Namespace
from tests.support.network import CLIENT, FAMILIES, FAMILY, LOOPBACK, POD, POD_TO_SERVER, SERVER, V4, V6
from tests.support.rule_commands import backends, every_capture


class Inbound:
    """Connections to the pod, and who took them."""

    def __init__(self, scene: Scene, family: int) -> None:
        self.scene = scene
        self.family = family

    def to(self, port: int, *, source: str = "", within: float = 5.0) -> str:
        """From the client's side."""
        start = (source, 0) if source else None
        return ask(self.scene.client, self.family, at(POD, self.family, port), source=start, within=within).by

    def from_server(self, port: int) -> str:
        """From the other side, by the other link."""
        return ask(self.scene.server, self.family, at(POD_TO_SERVER, self.family, port)).by

    def from_pod(self, port: int, where: dict[int, str]) -> str:
        """From the pod itself."""
        return ask(self.scene.pod, self.family, at(where, self.family, port)).by


def each_family(scene: Scene) -> list[Inbound]:
    return [Inbound(scene, family) for family in FAMILIES]


@every_capture
@backends
def test_by_default_every_open_port_is_captured_but_ssh_and_the_relays_own(scene: Scene, backend: str, capture: str) -> None:
    """Whoever repairs a relay could not get in, and whoever scrapes its metrics would meet the relay instead."""
    with scene.ruled(backend, {"inbound": capture}):
        for client in each_family(scene):
            assert [client.to(port) for port in (80, 443, 8080, 9090)] == ["inbound"] * 4
            assert [client.to(port) for port in (22, 15020, 15021)] == ["app"] * 3
            assert client.from_server(8080) == "inbound"
            assert client.to(CLOSED_PORT) == "refused"
            assert [client.from_pod(8080, where) for where in (LOOPBACK, POD, POD_TO_SERVER)] == ["app"] * 3
            assert client.from_pod(8080, SERVER) == "server"
            # Straight to the relay's port: it is the catcher that answers, as itself.
            direct = ask(scene.client, client.family, at(POD, client.family, 15006))
            assert direct == Answer("inbound", f"{POD[client.family]},15006", CLIENT[client.family])


@every_capture
@backends
def test_own_ports_follow_the_configuration(scene: Scene, backend: str, capture: str) -> None:
    """A moved metrics port would be captured, and one that is no longer the relay's would not."""
    admin = {"metrics": "127.0.0.1:9090", "health": ""}
    with scene.ruled(backend, {"inbound": capture}, admin=admin):
        for client in each_family(scene):
            assert [client.to(port) for port in (9090, 15020, 15021)] == ["app", "inbound", "inbound"]


@every_capture
@backends
def test_inbound_ports(scene: Scene, backend: str, capture: str) -> None:
    """Ports that nobody listed would be captured, or listed ones missed; one line of iptables takes fifteen."""
    listed = [*range(2000, 2060, 2), 80, "9000-9010"]
    with scene.ruled(backend, {"inbound": capture}, {"inbound_ports": listed}):
        for client in each_family(scene):
            assert [client.to(port) for port in (80, 9000, 9005, 9010)] == ["inbound"] * 4
            assert [client.to(port) for port in (443, 9011, 9090)] == ["app"] * 3
            assert [client.to(port) for port in (2058, 2057)] == ["refused"] * 2
    with scene.ruled(backend, {"inbound": capture}, {"inbound_ports": []}):
        for client in each_family(scene):
            assert client.to(80) == "app"


@every_capture
@backends
def test_ssh_is_captured_when_it_is_listed(scene: Scene, backend: str, capture: str) -> None:
    """The default exception would silently win over what a user wrote; what a user excludes wins over all."""
    with scene.ruled(backend, {"inbound": capture}, {"inbound_ports": [22, 80]}):
        for client in each_family(scene):
            assert [client.to(port) for port in (22, 80, 443)] == ["inbound", "inbound", "app"]
    with scene.ruled(backend, {"inbound": capture}, {"inbound_ports": ["1-100"], "inbound_exclude_ports": [22]}):
        for client in each_family(scene):
            assert [client.to(port) for port in (22, 80)] == ["app", "inbound"]
    with scene.ruled(backend, {"inbound": capture}, {"inbound_exclude_ports": []}):
        for client in each_family(scene):
            assert [client.to(port) for port in (22, 80)] == ["app", "inbound"]


@every_capture
@backends
def test_inbound_exclude_ports(scene: Scene, backend: str, capture: str) -> None:
    """A port that must not be relayed would be; its neighbours, and ssh that was left out, stay as they are."""
    excluded = [*range(2000, 2060, 2), 443, "9000-9010"]
    with scene.ruled(backend, {"inbound": capture}, {"inbound_exclude_ports": excluded}):
        for client in each_family(scene):
            assert [client.to(port) for port in (443, 9000, 9005, 9010, 22)] == ["app"] * 5
            assert [client.to(port) for port in (80, 9011)] == ["inbound"] * 2


@every_capture
@backends
def test_inbound_exclude_cidrs(scene: Scene, backend: str, capture: str) -> None:
    """A monitoring network's connections would be relayed; it is the client's address that counts."""
    networks = ["10.1.0.1", "10.1.0.0/24", "192.0.2.0/24", "fd01::1", "fd01::/64"]
    with scene.ruled(backend, {"inbound": capture}, {"inbound_exclude_cidrs": networks}):
        for client in each_family(scene):
            assert (client.to(80), client.from_server(80)) == ("app", "inbound")
    with scene.ruled(backend, {"inbound": capture}, {"inbound_exclude_cidrs": ["0.0.0.0/0"]}):
        assert [Inbound(scene, family).to(80) for family in (V4, V6)] == ["app", "inbound"]


@every_capture
@backends
def test_inbound_exclude_interfaces(scene: Scene, backend: str, capture: str) -> None:
    """A management network's connections would be relayed; an interface that does not exist yet may be named."""
    with scene.ruled(backend, {"inbound": capture}, {"inbound_exclude_interfaces": ["to-client", "tun0"]}):
        for client in each_family(scene):
            assert (client.to(80), client.from_server(80)) == ("app", "inbound")


@every_capture
@backends
def test_only_open_ports(scene: Scene, backend: str, capture: str) -> None:
    """A probe of an app that is down would find it well; whoever wants every port captured says so."""
    with scene.ruled(backend, {"inbound": capture}, {"only_open_ports": False}):
        for client in each_family(scene):
            assert [client.to(port) for port in (80, CLOSED_PORT, 22)] == ["inbound", "inbound", "app"]
    with scene.ruled(backend, {"inbound": capture}):
        for client in each_family(scene):
            assert client.to(8081) == "inbound"
            scene.others.leave(scene.listening[client.family, 8081])
            assert client.to(8081) == "refused"


# Where the app listens decides whether its port is open.
BOUND = {
    "every address": {V4: "0.0.0.0", V6: "::0"},
    "one address": {V4: POD[V4], V6: POD[V6]},
    "this machine alone": LOOPBACK,
}


@pytest.mark.parametrize("bound", BOUND)
@every_capture
@backends
def test_an_app_is_captured_where_it_can_be_reached(scene: Scene, backend: str, capture: str, bound: str) -> None:
    """An app on its pod's address would be missed; one on loopback alone, which was private, would be open to the network."""
    with scene.ruled(backend, {"inbound": capture}):
        for client in each_family(scene):
            scene.others.listen(scene.pod, "app", client.family, 7000, BOUND[bound][client.family])
            assert client.to(7000) == ("refused" if bound == "this machine alone" else "inbound")
            assert client.from_server(7000) == ("inbound" if bound == "every address" else "refused")


@every_capture
@backends
def test_a_dual_stack_app_is_captured_in_both_families(scene: Scene, backend: str, capture: str) -> None:
    """An app on [::], as Go and Java make it, would be captured for half of its clients; one for IPv6 alone stays so."""
    with scene.ruled(backend, {"inbound": capture}):
        scene.others.listen(scene.pod, "app", V6, 7000, "::")
        assert [Inbound(scene, family).to(7000) for family in FAMILIES] == ["inbound"] * 2
        scene.others.listen(scene.pod, "app", V6, 7001)  # V6ONLY
        assert [Inbound(scene, family).to(7001) for family in (V4, V6)] == ["refused", "inbound"]


@every_capture
@backends
def test_ipv6_may_be_left_out(scene: Scene, backend: str, capture: str) -> None:
    """Where IPv6 is switched off its rules could not be applied; then its connections are not captured."""
    with scene.ruled(backend, {"inbound": capture}, {"ipv6": False}):
        assert [Inbound(scene, family).to(80) for family in (V4, V6)] == ["inbound", "app"]


@backends
def test_a_tproxy_listener_at_an_address_of_its_own(scene: Scene, backend: str) -> None:
    """TPROXY finds the listener by the address that the rule names, also on loopback; the other family is left alone."""
    for address, family in (("127.0.0.1", V4), (POD[V4], V4), ("::1", V6), (POD[V6], V6), ("0.0.0.0", V4)):
        with scene.ruled(backend, {"inbound": "tproxy"}, listeners={"address": address}):
            verdicts = {other: Inbound(scene, other).to(80) for other in FAMILIES}
            assert verdicts == {other: "inbound" if other == family else "app" for other in FAMILIES}, address


def passing(scene: Scene, family: int) -> tuple[Namespace, tuple[str, int]]:
    return scene.client, at(SERVER, family, 80)


@every_capture
@backends
def test_what_passes_by_is_not_captured(scene: Scene, backend: str, capture: str) -> None:
    """A neighbour that routes its traffic by the pod would find an open relay there; a router still routes."""
    with scene.ruled(backend, {"inbound": capture, "outbound": capture}, {"only_open_ports": False}):
        for family in FAMILIES:
            where, to = passing(scene, family)
            scene.forward(False)
            assert ask(where, family, to, within=SHORT).by in ("timeout", "unreachable")
            scene.forward(True)
            assert ask(where, family, to).by == "server"


@every_capture
@backends
def test_both_directions_at_once(scene: Scene, backend: str, capture: str) -> None:
    """Rules of one direction would take the answers of the other's connections."""
    with scene.ruled(backend, {"inbound": capture, "outbound": capture}):
        for client in each_family(scene):
            assert (client.to(80), client.to(22), client.to(CLOSED_PORT)) == ("inbound", "app", "refused")
            assert (client.from_pod(80, SERVER), client.from_pod(80, POD)) == ("outbound", "app")


@pytest.mark.parametrize(("outbound", "inbound"), [("redirect", "tproxy"), ("tproxy", "redirect")])
@backends
def test_a_capture_for_each_direction(scene: Scene, backend: str, outbound: str, inbound: str) -> None:
    """The marks of one capture would meet the address translation of the other."""
    with scene.ruled(backend, {"inbound": inbound, "outbound": outbound}):
        for client in each_family(scene):
            assert (client.to(80), client.to(22), client.to(CLOSED_PORT)) == ("inbound", "app", "refused")
            assert (client.from_pod(80, SERVER), client.from_pod(80, POD)) == ("outbound", "app")


@every_capture
@backends
def test_datagrams_are_left_alone(scene: Scene, backend: str, capture: str) -> None:
    """Name resolution by UDP would vanish into a relay of TCP."""
    with scene.ruled(backend, {"inbound": capture, "outbound": capture}, {"only_open_ports": False, "on_failure": "drop"}):
        for family in FAMILIES:
            assert echoed(scene.pod, scene.server, at(SERVER, family, 53), family)
            assert echoed(scene.client, scene.pod, at(POD, family, 53), family)


def echoed(near: Namespace, far: Namespace, where: tuple[str, int], family: int) -> bool:
    """A datagram goes there and comes back."""
    with far.entered():
        server = socket.socket(FAMILY[family], socket.SOCK_DGRAM)
    with near.entered():
        client = socket.socket(FAMILY[family], socket.SOCK_DGRAM)
    with server, client:
        for sock in (server, client):
            sock.settimeout(3.0)
        server.bind(where)
        client.sendto(b"name?", where)
        data, caller = server.recvfrom(100)
        server.sendto(data, caller)
        data, answerer = client.recvfrom(100)
        return (data, answerer[:2]) == (b"name?", where)


@every_capture
@backends
def test_strict_reverse_path_filters_do_not_matter(scene: Scene, backend: str, capture: str) -> None:
    """Distributions set rp_filter=1: captured packets that come back by lo would be dropped as martians."""
    for name in ("all", "default", "lo", "to-client", "to-server"):
        scene.pod.sysctl(f"net.ipv4.conf.{name}.rp_filter", "1")
    with scene.ruled(backend, {"inbound": capture, "outbound": capture}):
        for client in each_family(scene):
            assert (client.to(80), client.from_server(80)) == ("inbound", "inbound")
            assert client.from_pod(80, SERVER) == client.from_pod(80, CLIENT) == "outbound"
