"""What earlier proxies of this kind got wrong: each test shows the fact, where the kernel decides it, and that we are right."""

import os
import signal
import socket
import struct

import pytest

from tests.support import rules
from tests.support.adversity import watch_dials
from tests.support.netns import Namespace
from tests.support.network import CLIENT, FAMILIES, LOOPBACK, POD, POD_TO_SERVER, Network
from tests.support.path import Path
from tests.support.peers import delivered, local, receive, receive_all, remote
from tests.support.relay import UID, Relay
from tests.support.rule_commands import captures
from tests.support.ways import BACKENDS, NFT_WAYS, POD_WAYS
from tests.support.world import ANY, APP_PORT, Way, captured, listeners

IP_ORIGDSTADDR = 20

nft_ways = pytest.mark.parametrize("way", NFT_WAYS, ids=str)
pod_ways = pytest.mark.parametrize("way", POD_WAYS, ids=str)
backends = pytest.mark.parametrize("backend", BACKENDS)
families = pytest.mark.parametrize("family", FAMILIES)


# 1: "TPROXY in OUTPUT".

TPROXY_IN_OUTPUT = {
    "iptables": ["iptables", "-t", "mangle", "-A", "OUTPUT", "-p", "tcp", "-j", "TPROXY", "--on-port", "15002"],
    "nft": ["nft", "-f", "-"],
}
TPROXY_IN_OUTPUT_NFT = """
table ip refused {
  chain out {
    type route hook output priority mangle;
    meta l4proto tcp tproxy to :15002
  }
}
"""


@backends
def test_the_kernel_refuses_tproxy_in_output(backend: str) -> None:
    """Rules that capture local traffic that way cannot even be applied."""
    namespace = Namespace("refused")
    assert namespace.run(TPROXY_IN_OUTPUT[backend], stdin=TPROXY_IN_OUTPUT_NFT, check=False).returncode != 0
    namespace.close()


@backends
@families
def test_local_traffic_is_captured_by_tproxy_all_the_same(family: int, backend: str) -> None:
    """The machine that traffic comes from can use TPROXY: a mark, a policy route to lo, and TPROXY in PREROUTING."""
    with captured(Way("tproxy", family, "outbound", backend)) as world:
        world.path.listen()
        pair = world.path.pair()
        pair.client.close()
        pair.origin.close()
        assert world.ended(pair.name) == "finished"


# 2: "getsockopt(IP_ORIGDSTADDR) gives the destination".


def test_ip_origdstaddr_is_no_destination_of_a_connection() -> None:
    """It is the switch of a control message for UDP; asked of a TCP socket it says 0, which is no address."""
    with socket.socket() as sock:
        assert sock.getsockopt(socket.SOL_IP, IP_ORIGDSTADDR, 16) == struct.pack("i", 0)


@nft_ways
def test_the_destination_is_found(way: Way) -> None:
    """By getsockname() where TPROXY left it in place, by SO_ORIGINAL_DST where NAT changed it."""
    with captured(way) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        destination = remote(client)
        client.close()
        origin.close()
        assert world.relay.access(client=name)["origin"] == destination


# 4: "with REDIRECT the client sees the proxy".


@pod_ways
def test_the_client_sees_the_origin_it_dialled(way: Way) -> None:
    """NAT rewrites the relay's answers, so that clients that check their peer's address are content."""
    with captured(way) as world:
        world.path.listen()
        client, _, _ = world.path.pair()
        assert client.getpeername()[:2] == world.path.dial_to


@nft_ways
def test_the_server_sees_the_relay(way: Way) -> None:
    """In both modes: whoever needs the client's address at the origin must ask for preserve_client."""
    with captured(way) as world:
        world.path.listen()
        client, origin, _ = world.path.pair()
        assert remote(origin) != local(client)
        assert origin.getpeername()[0] in (POD[way.family], POD_TO_SERVER[way.family])


# 5: "SO_ORIGINAL_DST fails when nothing was redirected". The fact itself is in test_kernel_capture.


@families
def test_a_connection_to_the_relay_itself_is_refused(family: int) -> None:
    """Its original destination is the relay's own address: dialled on, it would come back for ever."""
    with captured(Way("redirect", family)) as world:
        direct = Path(world.captured.pod, world.captured.pod, family, LOOPBACK[family], (ANY[family], 0))
        direct.dial_to = (LOOPBACK[family], rules.OUTBOUND_PORT)
        with direct:
            dials = watch_dials(world.captured.pod, UID)
            assert world.ended(direct.dial_in_vain()) == "loop"
            assert dials.seen() == 0


# 6: rules that loop, or miss.


@pod_ways
def test_the_relays_own_connections_are_not_captured(way: Way) -> None:
    """One connection is one flow: without an exclusion each dial would be captured again, without end."""
    with captured(way) as world:
        world.path.listen()
        for _ in range(3):
            pair = world.path.pair()
            pair.client.close()
            pair.origin.close()
            assert world.ended(pair.name) == "finished"
        assert world.relay.counted().opened == 3


@pytest.mark.parametrize("bound_to", ["everything", "pod address"])
@backends
@captures
@families
def test_inbound_capture_wherever_the_app_is_bound(family: int, capture: str, backend: str, bound_to: str) -> None:
    """An app on 0.0.0.0 must not loop, an app on the pod's own address must not be missed."""
    way = Way(capture, family, "inbound", backend)
    with captured(way) as world:
        world.path.unlisten()
        host = ANY[family] if bound_to == "everything" else POD[family]
        with Path(world.captured.client, world.captured.pod, family, CLIENT[family], (host, APP_PORT)) as path:
            path.dial_to = (POD[family], APP_PORT)
            path.listen()
            pair = path.pair()
            pair.client.sendall(b"app?")
            assert receive(pair.origin, 4) == b"app?"
        assert world.relay.access(client=pair.name)["listener"] == "inbound"
        assert world.relay.counted().opened == 1


# 8: the first EOF ends everything, or takes data with it.


@pod_ways
def test_data_that_comes_with_the_fin_arrives(way: Way) -> None:
    """A request and its half-close may be seen in one wake-up: the request counts, and the answer still comes back."""
    with captured(way) as world:
        world.path.listen()
        with world.relay.frozen():
            client = world.path.dial()
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            delivered(client)
        origin = world.path.accept()
        assert receive_all(origin) == b"question"
        origin.sendall(b"answer")
        origin.close()
        assert receive_all(client) == b"answer"


# 12: a listener that cannot bind goes unnoticed; the signal handler is never installed.


@pytest.mark.parametrize("taken", [rules.OUTBOUND_PORT, rules.INBOUND_PORT])
def test_a_port_that_is_taken_fails_the_start(taken: int) -> None:
    """A relay that listens on one of two ports black-holes half of the traffic: all or nothing, and the port is named."""
    with Network.made() as network:
        with network.pod.entered():
            holder = socket.create_server(("", taken))
        with holder, Relay(network.pod, listeners(Way(), {})) as relay:
            assert relay.exit_status() == 1
            relay.await_message(str(taken), str(os.getpid()))
            assert relay.records.rest() == []


def test_sigterm_is_heard() -> None:
    """Without a handler a pod's end would cut every connection, or take until SIGKILL."""
    with captured(Way()) as world:
        world.path.listen()
        pair = world.path.pair()
        world.relay.signal(signal.SIGTERM)
        pair.client.close()
        pair.origin.close()
        assert world.relay.exit_status() == 0
        assert world.ended(pair.name) == "finished"
