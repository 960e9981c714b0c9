"""[rules] of a gateway: each key decides by packets sent, for every back end and both families. It is always TPROXY.

The pod is the gateway: `client` is behind its link to-client, the servers behind to-server. Whoever answers is the verdict.
"""

import socket
from collections.abc import Mapping

import pytest

from tests.support.catcher import CLOSED_PORT, SHORT, Scene, ask, at
from tests.support.network import CLIENT, FAMILIES, POD, POD_TO_SERVER, SERVER, V4, V6
from tests.support.peers import local, remote
from tests.support.rule_commands import backends, every_capture
from tests.support.traffic import MIB, Stream, exchange
from tests.support.ways import UNTRACKED
from tests.support.world import Way, captured

Captures = Mapping[str, str]

CLIENTS = {"gateway_interfaces": ["to-client"]}


@pytest.fixture(params=["tproxy", UNTRACKED])
def gateway(request: pytest.FixtureRequest) -> Captures:
    """The capture of a gateway's listener."""
    return {"gateway": request.param}


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """The pod forwards what is not captured."""
    scene.forward(True)
    return scene


class Passing:
    """Connections that pass by the gateway, and who took them."""

    def __init__(self, scene: Scene, family: int) -> None:
        self.scene = scene
        self.family = family

    def to(self, port: int, *, source: str = "") -> str:
        """From a client to a server."""
        start = (source, 0) if source else None
        answer = ask(self.scene.client, self.family, at(SERVER, self.family, port), source=start)
        assert answer.by != "gateway" or answer.caller == (source or CLIENT[self.family])
        return answer.by

    def back(self, port: int) -> str:
        """From the servers' side to the clients'."""
        return ask(self.scene.server, self.family, at(CLIENT, self.family, port)).by

    def to_gateway(self, port: int, where: dict[int, str] = POD) -> str:
        """From a client to the gateway itself."""
        return ask(self.scene.client, self.family, at(where, self.family, port)).by

    def of_gateway(self, port: int) -> str:
        """From the gateway itself."""
        return ask(self.scene.pod, self.family, at(SERVER, self.family, port), uid=1000).by


def each_family(scene: Scene) -> list[Passing]:
    return [Passing(scene, family) for family in FAMILIES]


@backends
def test_what_comes_from_the_clients_and_goes_elsewhere_is_captured(scene: Scene, gateway: Captures, backend: str) -> None:
    """Clients of another network would be captured, and the gateway's own ssh, web server and connections with them."""
    with scene.ruled(backend, gateway, CLIENTS):
        for passing in each_family(scene):
            assert [passing.to(port) for port in (22, 80, CLOSED_PORT)] == ["gateway"] * 3
            assert passing.back(80) == "client"
            assert [passing.to_gateway(port) for port in (22, 80)] == ["app"] * 2
            assert passing.to_gateway(80, POD_TO_SERVER) == "app"
            assert passing.to_gateway(CLOSED_PORT) == "refused"
            assert passing.of_gateway(80) == "server"


@backends
def test_gateway_interfaces(scene: Scene, gateway: Captures, backend: str) -> None:
    """Clients behind a link that nobody named would be captured, or those behind a second one missed."""
    with scene.ruled(backend, gateway, {"gateway_interfaces": ["to-server", "to-client", "to-client", "tun0"]}):
        for passing in each_family(scene):
            assert (passing.to(80), passing.back(80)) == ("gateway", "gateway")
    with scene.ruled(backend, gateway, {"gateway_interfaces": ["tun0"]}):
        for passing in each_family(scene):
            assert (passing.to(80), passing.back(80)) == ("server", "client")


SECOND = {V4: "10.1.0.77", V6: "fd01::77"}  # of the client


@backends
def test_gateway_cidrs(scene: Scene, gateway: Captures, backend: str) -> None:
    """Clients that nobody listed would be captured; a family of which none is listed has none."""
    scene.client.ip(f"addr add {SECOND[V4]}/24 dev eth0", f"addr add {SECOND[V6]}/64 dev eth0 nodad")
    networks = ["10.1.0.77", "10.9.0.0/16", "fd01::70/124"]
    with scene.ruled(backend, gateway, {**CLIENTS, "gateway_cidrs": networks}):
        for passing in each_family(scene):
            own, second = CLIENT[passing.family], SECOND[passing.family]
            assert [passing.to(80, source=source) for source in (own, second)] == ["server", "gateway"]
    with scene.ruled(backend, gateway, {**CLIENTS, "gateway_cidrs": ["10.0.0.0/8"]}):
        assert [Passing(scene, family).to(80) for family in (V4, V6)] == ["gateway", "server"]


@backends
def test_outbound_keys_select_what_passes(scene: Scene, gateway: Captures, backend: str) -> None:
    """A gateway would capture destinations that its operator excluded; its own services are not destinations."""
    with scene.ruled(backend, gateway, {**CLIENTS, "outbound_ports": [80, *range(2000, 2060, 2), "9000-9010"]}):
        for passing in each_family(scene):
            assert [passing.to(port) for port in (80, 9000, 9010, 2058)] == ["gateway"] * 4
            assert [passing.to(port) for port in (443, 9011)] == ["server"] * 2
    with scene.ruled(backend, gateway, {**CLIENTS, "outbound_exclude_ports": [53, *range(2000, 2060, 2), "9000-9010"]}):
        for passing in each_family(scene):
            assert [passing.to(port) for port in (80, 9011, 2057)] == ["gateway"] * 3
            assert [passing.to(port) for port in (53, 9000, 9010)] == ["server"] * 3
    with scene.ruled(backend, gateway, {**CLIENTS, "outbound_exclude_cidrs": ["10.2.0.1", "fd02::/64"]}):
        for passing in each_family(scene):
            assert passing.to(80) == "server"
    with scene.ruled(
        backend, gateway, {**CLIENTS, "outbound_cidrs": ["10.2.0.0/24"], "gateway_cidrs": ["fd01::/64", CLIENT[V4]]}
    ):
        assert [Passing(scene, family).to(80) for family in (V4, V6)] == ["gateway", "server"]


@backends
def test_ports_of_the_gateway_itself_are_not_those_of_the_world(scene: Scene, gateway: Captures, backend: str) -> None:
    """ssh to a server behind the gateway would escape the relay, because ssh to the gateway does."""
    with scene.ruled(backend, {**gateway, "inbound": gateway["gateway"]}, {**CLIENTS, "inbound_ports": [443]}):
        for passing in each_family(scene):
            assert [passing.to(port) for port in (22, 443, 8080)] == ["gateway"] * 3
            assert [passing.to_gateway(port) for port in (22, 443, 8080)] == ["app", "inbound", "app"]


@every_capture
@backends
def test_a_gateway_that_has_an_app(scene: Scene, backend: str, capture: str) -> None:
    """The three directions on one machine would take each other's connections."""
    passing_by = "tproxy" if capture == "redirect" else capture
    with scene.ruled(backend, {"gateway": passing_by, "inbound": capture, "outbound": capture}, CLIENTS):
        for passing in each_family(scene):
            assert (passing.to(80), passing.back(80)) == ("gateway", "client")
            assert [passing.to_gateway(port) for port in (22, 80, CLOSED_PORT)] == ["app", "inbound", "refused"]
            assert passing.of_gateway(80) == "outbound"
            assert ask(scene.pod, passing.family, at(POD, passing.family, 80)).by == "app"


@backends
def test_ipv6_may_be_left_out(scene: Scene, gateway: Captures, backend: str) -> None:
    """Where IPv6 is switched off its rules could not be applied; then its connections pass by."""
    with scene.ruled(backend, gateway, {**CLIENTS, "ipv6": False}):
        assert [Passing(scene, family).to(80) for family in (V4, V6)] == ["gateway", "server"]


@backends
def test_connections_that_passed_before_go_on(scene: Scene, gateway: Captures, backend: str) -> None:
    """Rules on a live router would cut everybody off; apply over apply does not cut what was captured either."""
    for family in FAMILIES:
        with scene.server.entered():
            listener = socket.create_server((SERVER[family], 7000), family=socket.AF_INET6 if family == V6 else socket.AF_INET)
        with scene.client.entered():
            client = socket.create_connection((SERVER[family], 7000), timeout=3)
        origin, _ = listener.accept()
        with listener, client, origin, scene.ruled(backend, gateway, CLIENTS):
            origin.settimeout(3)
            for end, other in ((client, origin), (origin, client)):
                end.sendall(b"still there?")
                assert other.recv(100) == b"still there?"
            assert Passing(scene, family).to(7000) == "gateway"


@backends
@pytest.mark.parametrize("family", FAMILIES)
def test_a_server_sees_the_client_behind_the_gateway(family: int, backend: str) -> None:
    """With preserve_client the gateway borrows the client's address: the answers must come back to the relay."""
    with captured(Way("tproxy", family, "gateway", backend), {"listener": {"preserve_client": True}}) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        assert origin.getpeername()[0] == CLIENT[family]
        assert remote(client) == local(origin)
        exchange(client, origin, Stream(3, MIB), Stream(4, MIB))
        assert world.ended(name) == "finished"
        name = world.path.come_back(3)
        world.relay.await_records(3, event="access", client=name, reason="finished")


@backends
def test_a_gateway_of_which_the_relay_is_dead(scene: Scene, gateway: Captures, backend: str) -> None:
    """Clients would wait for nothing, or pass by unseen, where on_failure says otherwise."""
    choices = {"auto": "timeout", "drop": "timeout"}
    if backend == "nft":
        choices = {"auto": "refused", "reset": "refused", "drop": "timeout", "open": "server"}
    for choice, expected in choices.items():
        scene.reapply(backend, gateway, {**CLIENTS, "on_failure": choice})
        for family in FAMILIES:
            patience = SHORT if expected == "timeout" else 3.0
            assert ask(scene.client, family, at(SERVER, family, 80), within=patience).by == expected, choice
