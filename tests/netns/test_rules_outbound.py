"""[rules], outbound: each key decides by packets sent, for both captures, every back end and both families.

A catcher listens where the relay would and servers where the connections were going: whoever answers is the verdict.
"""

from tests.support.catcher import CLOSED_PORT, SHORT, Scene, ask, at
from tests.support.network import CLIENT, FAMILIES, LOOPBACK, POD, POD_TO_SERVER, SERVER, V4, V6
from tests.support.relay import UID
from tests.support.rule_commands import backends, captures

APP = 1000  # a user that is not the relay's


class Outbound:
    """Connections of the pod, and who took them."""

    def __init__(self, scene: Scene, family: int) -> None:
        self.scene = scene
        self.family = family

    def to(self, port: int, where: dict[int, str] = SERVER, *, uid: int = APP, gid: int = 0, mark: int = 0) -> str:
        return ask(self.scene.pod, self.family, at(where, self.family, port), uid=uid, gid=gid, mark=mark).by


def each_family(scene: Scene) -> list[Outbound]:
    return [Outbound(scene, family) for family in FAMILIES]


@captures
@backends
def test_by_default_everything_is_captured_but_what_stays_here(scene: Scene, backend: str, capture: str) -> None:
    """The app could not reach itself, or the relay itself: a connection to an own address would come back for ever."""
    with scene.ruled(backend, {"outbound": capture}):
        for app in each_family(scene):
            assert [app.to(port) for port in (22, 80, 9090)] == ["outbound"] * 3
            assert app.to(80, CLIENT) == "outbound"
            assert app.to(80, uid=0, gid=5) == "outbound"
            assert [app.to(80, where) for where in (LOOPBACK, POD, POD_TO_SERVER)] == ["app"] * 3
            assert app.to(CLOSED_PORT, POD) == "refused"


@captures
@backends
def test_outbound_ports(scene: Scene, backend: str, capture: str) -> None:
    """Ports that nobody listed would be captured, or listed ones missed; one line of iptables takes fifteen."""
    listed = [*range(2000, 2060, 2), 80, "9000-9010"]
    with scene.ruled(backend, {"outbound": capture}, {"outbound_ports": listed}):
        for app in each_family(scene):
            assert [app.to(port) for port in (80, 9000, 9005, 9010)] == ["outbound"] * 4
            assert [app.to(port) for port in (443, 9011, 9090)] == ["server"] * 3
            assert (app.to(2058), app.to(2057)) == ("outbound", "refused")
    with scene.ruled(backend, {"outbound": capture}, {"outbound_ports": []}):
        for app in each_family(scene):
            assert app.to(80) == "server"


@captures
@backends
def test_outbound_exclude_ports(scene: Scene, backend: str, capture: str) -> None:
    """A database that must not be relayed would be."""
    excluded = [53, *range(2000, 2060, 2), "9000-9010"]
    with scene.ruled(backend, {"outbound": capture}, {"outbound_exclude_ports": excluded}):
        for app in each_family(scene):
            assert [app.to(port) for port in (53, 9000, 9005, 9010)] == ["server"] * 4
            assert [app.to(port) for port in (80, 9011, 2057)] == ["outbound"] * 3
            assert app.to(2058) == "refused"


@captures
@backends
def test_an_excluded_port_wins_over_a_listed_one(scene: Scene, backend: str, capture: str) -> None:
    """Which of two keys decides would be chance."""
    settings = {"outbound_ports": ["1-10000"], "outbound_exclude_ports": [443]}
    with scene.ruled(backend, {"outbound": capture}, settings):
        for app in each_family(scene):
            assert (app.to(80), app.to(443)) == ("outbound", "server")


@captures
@backends
def test_outbound_cidrs(scene: Scene, backend: str, capture: str) -> None:
    """Networks that nobody listed would be captured; a family of which none is listed has no captured network at all."""
    networks = ["192.0.2.0/24", "10.2.0.0/16", "10.2.0.0/24", "fd02::/64", "fd02::1"]
    with scene.ruled(backend, {"outbound": capture}, {"outbound_cidrs": networks}):
        for app in each_family(scene):
            assert (app.to(80), app.to(80, CLIENT)) == ("outbound", "client")
    with scene.ruled(backend, {"outbound": capture}, {"outbound_cidrs": ["10.0.0.0/8"]}):
        assert Outbound(scene, V4).to(80, CLIENT) == "outbound"
        assert Outbound(scene, V6).to(80) == "server"
    with scene.ruled(backend, {"outbound": capture}, {"outbound_cidrs": []}):
        for app in each_family(scene):
            assert app.to(80) == "server"


@captures
@backends
def test_outbound_exclude_cidrs(scene: Scene, backend: str, capture: str) -> None:
    """A metadata service, or a network that the relay must not touch, would be captured; single addresses count."""
    networks = ["10.1.0.1", "10.1.0.0/24", "192.0.2.0/24", "fd01::1", "fd01::/64"]
    with scene.ruled(backend, {"outbound": capture}, {"outbound_exclude_cidrs": networks}):
        for app in each_family(scene):
            assert (app.to(80), app.to(80, CLIENT)) == ("outbound", "client")
    with scene.ruled(backend, {"outbound": capture}, {"outbound_exclude_cidrs": ["::/0"]}):
        assert (Outbound(scene, V4).to(80), Outbound(scene, V6).to(80)) == ("outbound", "server")


@captures
@backends
def test_outbound_exclude_interfaces(scene: Scene, backend: str, capture: str) -> None:
    """A tunnel's own connections would go into the relay; an interface that does not exist yet may be named."""
    excluded = ["to-client", "tun0"]
    with scene.ruled(backend, {"outbound": capture}, {"outbound_exclude_interfaces": excluded}):
        for app in each_family(scene):
            assert (app.to(80), app.to(80, CLIENT)) == ("outbound", "client")


@captures
@backends
def test_outbound_uids(scene: Scene, backend: str, capture: str) -> None:
    """Connections of users who are not the app would be captured."""
    with scene.ruled(backend, {"outbound": capture}, {"outbound_uids": [APP, 1001]}):
        for app in each_family(scene):
            assert [app.to(80, uid=uid) for uid in (APP, 1001, 1002, 0)] == ["outbound", "outbound", "server", "server"]
            assert app.to(80, LOOPBACK) == "app"
    with scene.ruled(backend, {"outbound": capture}, {"outbound_uids": [APP], "outbound_ports": [443]}):
        for app in each_family(scene):
            assert (app.to(80), app.to(443), app.to(443, uid=0)) == ("server", "outbound", "server")


@captures
@backends
def test_outbound_uid_ports(scene: Scene, backend: str, capture: str) -> None:
    """A user with ports of its own would lose connections to others, or have none of its own captured."""
    own = {"1000": [443], "1001": "all", "1002": []}
    with scene.ruled(backend, {"outbound": capture}, {"outbound_uid_ports": own, "outbound_ports": [80]}):
        for app in each_family(scene):
            assert [app.to(port, uid=1000) for port in (80, 443, 8080)] == ["server", "outbound", "server"]
            assert [app.to(port, uid=1001) for port in (80, 443, 8080)] == ["outbound"] * 3
            assert [app.to(port, uid=1002) for port in (80, 443, 8080)] == ["server"] * 3
            assert [app.to(port, uid=1003) for port in (80, 443, 8080)] == ["outbound", "server", "server"]


@captures
@backends
def test_outbound_uid_ports_beside_outbound_uids(scene: Scene, backend: str, capture: str) -> None:
    """The two keys would cancel each other: users listed in either are captured, and nobody else."""
    settings = {"outbound_uids": [1000, 1001], "outbound_uid_ports": {"1000": [443], "1002": [443]}, "outbound_ports": [80]}
    with scene.ruled(backend, {"outbound": capture}, settings):
        for app in each_family(scene):
            for uid, expected in {
                1000: ["server", "outbound"],
                1001: ["outbound", "server"],
                1002: ["server", "outbound"],
                1003: ["server", "server"],
            }.items():
                assert [app.to(port, uid=uid) for port in (80, 443)] == expected, uid


@captures
@backends
def test_outbound_exclude_uids_and_gids(scene: Scene, backend: str, capture: str) -> None:
    """An agent that runs as a user or a group of its own would be relayed; the exclusion wins over a list."""
    settings = {
        "outbound_exclude_uids": [1001, 1002],
        "outbound_exclude_gids": [2001, 2002],
        "outbound_uids": [1000, 1001],
        "outbound_uid_ports": {"1002": "all"},
    }
    with scene.ruled(backend, {"outbound": capture}, settings):
        for app in each_family(scene):
            assert [app.to(80, uid=uid) for uid in (1000, 1001, 1002)] == ["outbound", "server", "server"]
            assert [app.to(80, gid=gid) for gid in (2001, 2002, 2003)] == ["server", "server", "outbound"]


@captures
@backends
def test_exempt_owner(scene: Scene, backend: str, capture: str) -> None:
    """The relay would capture itself; or, where the app is the same user, the app would never be captured."""
    with scene.ruled(backend, {"outbound": capture}):
        for app in each_family(scene):
            assert [app.to(80, uid=UID), app.to(80, uid=APP, gid=UID), app.to(80, uid=UID + 1)] == [
                "server",
                "server",
                "outbound",
            ]
    with scene.ruled(backend, {"outbound": capture}, {"exempt_owner": False}):
        for app in each_family(scene):
            assert [app.to(80, uid=UID), app.to(80, gid=UID)] == ["outbound"] * 2
            assert app.to(80, uid=UID, mark=0x539) == "server"


@captures
@backends
def test_mark(scene: Scene, backend: str, capture: str) -> None:
    """The relay's connections are known by their mark, whoever makes them, whatever the bits beside ours say."""
    with scene.ruled(backend, {"outbound": capture}, {"mark": 0x77}):
        for app in each_family(scene):
            assert [app.to(80, mark=mark) for mark in (0x77, 0x1077, 0x6BCDE077)] == ["server"] * 3
            assert [app.to(80, mark=mark) for mark in (0x539, 0x78, 0x7F, 0x40000)] == ["outbound"] * 4


@backends
def test_without_a_mark_the_owner_decides(scene: Scene, backend: str) -> None:
    """A relay that may not set a mark would capture itself."""
    with scene.ruled(backend, {"outbound": "redirect"}, {"mark": 0}):
        for app in each_family(scene):
            assert (app.to(80), app.to(80, uid=UID), app.to(80, mark=0x539)) == ("outbound", "server", "outbound")


@captures
@backends
def test_ipv6_may_be_left_out(scene: Scene, backend: str, capture: str) -> None:
    """Where IPv6 is switched off its rules could not be applied; then its connections are not captured."""
    with scene.ruled(backend, {"outbound": capture}, {"ipv6": False}):
        assert [Outbound(scene, family).to(80) for family in (V4, V6)] == ["outbound", "server"]


@captures
@backends
def test_a_listener_of_one_family_takes_that_one(scene: Scene, backend: str, capture: str) -> None:
    """The other family's connections would be brought to a port where nobody listens."""
    for address, family in (("127.0.0.1", V4), ("::1", V6), ("0.0.0.0", V4)):
        with scene.ruled(backend, {"outbound": capture}, listeners={"address": address}):
            verdicts = {other: Outbound(scene, other).to(80) for other in FAMILIES}
            assert verdicts == {other: "outbound" if other == family else "server" for other in FAMILIES}, address


@captures
@backends
def test_the_apps_servers_are_left_alone(scene: Scene, backend: str, capture: str) -> None:
    """Outbound rules alone would take the answers of the app's servers for connections of its own."""
    with scene.ruled(backend, {"outbound": capture}):
        for family in FAMILIES:
            for port in (22, 80, 8080):
                answer = ask(scene.client, family, at(POD, family, port))
                assert (answer.by, answer.caller) == ("app", CLIENT[family])
            assert ask(scene.client, family, at(POD, family, CLOSED_PORT), within=SHORT).by == "refused"


NOTRACK = """
table inet untracked {
  chain out { type filter hook output priority -300; notrack; }
  chain in { type filter hook prerouting priority -300; notrack; }
}
"""


@backends
def test_what_conntrack_does_not_track_never_passes_by(scene: Scene, backend: str) -> None:
    """Rules of others may exempt connections from conntrack, which capture needs: they fail, and are not relayed unseen."""
    scene.pod.nft(NOTRACK)
    with scene.ruled(backend, {"outbound": "tproxy"}):
        for family in FAMILIES:
            assert ask(scene.pod, family, at(SERVER, family, 80), uid=APP, within=SHORT).by in ("refused", "reset", "timeout")
            assert ask(scene.pod, family, at(SERVER, family, 80), uid=UID).by == "server"
