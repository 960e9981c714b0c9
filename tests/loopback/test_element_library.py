"""The elements that come with the relay, in a running relay: what clients, origins and mirrors see of them."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

from tests.support.clock import DEADLINE
from tests.support.peers import receive, receive_all, receive_until_reset, text_of
from tests.support.traffic import MIB, Stream, same, together
from tests.support.world import World, looped


@contextmanager
def using(element: str, **options: object) -> Iterator[World]:
    """A relay whose flows go through this element."""
    with looped(elements=[{"name": "x", "use": f"relaycore.elements.{element}", "options": options}]) as world:
        world.path.listen()
        yield world


def test_a_client_has_one_connection_at_a_time() -> None:
    """A client that is over its limit would get through, or never again."""
    with using("limits:Connections", most=1) as world:
        client, origin, name = world.path.live_pair()
        refused = world.path.dial_in_vain()
        record = world.relay.access(client=refused)
        assert (record["reason"], record["element"], record["connect_ms"]) == ("rejected", "x", None)
        client.close()
        assert receive_all(origin) == b""
        origin.close()
        assert world.relay.access(client=name)["reason"] == "finished"
        world.path.live_pair()


def test_the_origin_is_told_who_the_client_is() -> None:
    """The header would name the relay, or come too late."""
    with using("proxy_protocol:ProxyProtocol", version=1) as world:
        client, origin, _ = world.path.pair()
        host, port = client.getsockname()
        expected = f"PROXY TCP4 {host} {world.path.origin[0]} {port} {world.path.origin[1]}\r\n".encode()
        assert receive(origin, len(expected)) == expected
        client.sendall(b"hello")
        assert receive(origin, 5) == b"hello"


def test_a_flow_is_reset_after_exactly_so_many_bytes() -> None:
    """A truncated answer would look finished, or be cut elsewhere."""
    with using("faults:ResetAfter", bytes=100_000, direction="responses") as world:
        client, origin, name = world.path.pair()
        data = Stream(1, 200_000).bytes()
        client.sendall(b"question")
        assert receive(origin, 8) == b"question"
        origin.sendall(data[:60_000])
        same(receive(client, 60_000), data[:60_000])
        origin.sendall(data[60_000:110_000])
        same(receive_until_reset(client), data[60_000:100_000])
        assert receive_until_reset(origin) == b""
        assert world.relay.access(client=name)["reason"] == "rejected"


def test_a_mirror_gets_the_same_bytes() -> None:
    """A mirror would show other requests than there were."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(DEADLINE)
        with using("mirror:Mirror", to=text_of(server.getsockname()), buffer="64MiB") as world:
            client, origin, _ = world.path.pair()
            data = Stream(2, 8 * MIB).bytes()

            def send() -> None:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)

            def copied() -> bytes:
                copy, _ = server.accept()
                with copy:
                    copy.settimeout(DEADLINE)
                    return receive_all(copy)

            _, received, mirrored = together(send, lambda: receive_all(origin), copied)
            same(received, data)
            same(mirrored, data)
