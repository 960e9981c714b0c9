"""Captured connections through the relay: every byte, both addresses, every direction, every rule set."""

import socket

import pytest

from tests.support.network import CLIENT
from tests.support.peers import local, receive, receive_all, remote
from tests.support.traffic import GIB, MIB, Stream, exchange
from tests.support.ways import EVERY_WAY, NFT_WAYS
from tests.support.world import Way, captured

every_way = pytest.mark.parametrize("way", EVERY_WAY, ids=str)
nft_ways = pytest.mark.parametrize("way", NFT_WAYS, ids=str)


@every_way
def test_bytes_arrive_whole(way: Way) -> None:
    """A lost, repeated or exchanged byte in either direction would corrupt what users send."""
    size = GIB if way.backend == "nft" else 64 * MIB
    with captured(way) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(1, size), Stream(2, size + 1))
        record = world.relay.access(client=name)
        assert (record["bytes_sent"], record["bytes_received"]) == (size, size + 1)
        assert (record["reason"], record["lane"]) == ("finished", "splice")


@every_way
def test_both_addresses_are_known(way: Way) -> None:
    """Logs and policies name the client and the origin; the client must see the origin that it dialled, not the relay."""
    with captured(way) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        destination = remote(client)
        assert destination == local(origin)
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b"question"
        origin.sendall(b"an answer")
        origin.close()
        assert receive_all(client) == b"an answer"
        record = world.relay.access(client=name)
        assert record["origin"] == destination
        assert (record["listener"], record["direction"]) == (way.direction, way.direction)
        assert (record["bytes_sent"], record["bytes_received"]) == (len(b"question"), len(b"an answer"))
        assert 0 < record["connect_ms"] <= record["duration_ms"]


@nft_ways
def test_the_server_may_speak_first(way: Way) -> None:
    """SSH, SMTP and MySQL greet their clients: a relay that waits for the client would wait for ever."""
    with captured(way) as world:
        world.path.listen()
        client, origin, _ = world.path.pair()
        origin.sendall(b"220 ready\r\n")
        assert receive(client, 11) == b"220 ready\r\n"


@pytest.mark.parametrize("way", [way for way in EVERY_WAY if way.capture == "tproxy" and way.direction != "outbound"], ids=str)
def test_the_origin_sees_the_client(way: Way) -> None:
    """With preserve_client an app's access lists and logs see who really called."""
    with captured(way, {"listener": {"preserve_client": True}}) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        assert origin.getpeername()[0] == CLIENT[way.family]
        exchange(client, origin, Stream(3, MIB), Stream(4, MIB))
        assert world.ended(name) == "finished"


INBOUND_TPROXY = [way for way in EVERY_WAY if way.capture == "tproxy" and way.direction == "inbound"]
NARROW = range(40000, 40100)


@pytest.mark.parametrize("way", INBOUND_TPROXY, ids=str)
def test_preserving_a_client_never_resets_another(way: Way) -> None:
    """When the ports that the relay may take are those of live clients, it must take others, not theirs."""
    with captured(way, {"listener": {"preserve_client": True}}) as world:
        world.captured.pod.sysctl("net.ipv4.ip_local_port_range", f"{NARROW[0]} {NARROW[-1]}")
        world.path.listen()
        pairs = []
        for port in NARROW[:40]:
            client = world.path.dial(port=port)
            pairs.append((client, world.path.accept()))
        for number, (client, origin) in enumerate(pairs):
            word = b"%05d" % number
            client.sendall(word)
            assert receive(origin, 5) == word
            origin.sendall(word)
            assert receive(client, 5) == word


@pytest.mark.parametrize("way", INBOUND_TPROXY, ids=str)
def test_a_preserved_client_may_use_its_port_again(way: Way) -> None:
    """What the relay leaves in TIME_WAIT at the client's own address must not stop it, nor let it slip past the relay."""
    with captured(way, {"listener": {"preserve_client": True}}) as world:
        world.path.listen()
        name = world.path.come_back(3)
        world.relay.await_records(3, event="access", client=name, reason="finished")
