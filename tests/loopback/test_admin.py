"""How a running relay is asked: health for the kubelet, and clients who must never touch the data path."""

import socket
import urllib.error
import urllib.request

import pytest

from tests.support.clock import DEADLINE
from tests.support.peers import receive
from tests.support.world import World, looped

HEALTH = {"health": "127.0.0.1:0"}


def status_of(world: World, path: str) -> int:
    """What a probe of this path is told."""
    health = world.relay.await_records(1, event="start")[0]["admin"]["health"]
    try:
        with urllib.request.urlopen(f"http://{health}{path}", timeout=DEADLINE) as page:
            return int(page.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


@pytest.mark.parametrize("path", ["/readyz", "/healthz/ready"])
def test_a_draining_relay_is_alive_and_not_ready(path: str) -> None:
    """The kubelet must stop sending it new work, and must not kill it."""
    with looped(settings={"admin": HEALTH, "relay": {"drain_timeout": "1h"}}) as world:
        world.path.listen()
        pair = world.path.pair()
        assert (status_of(world, "/healthz"), status_of(world, path)) == (200, 200)
        world.relay.ask("drain")
        assert (status_of(world, "/healthz"), status_of(world, path)) == (200, 503)
        pair.client.close()
        pair.origin.close()
        assert world.relay.exit_status() == 0


def test_slow_admin_clients_hold_nobody_up() -> None:
    """Connections that never ask, and probes that never read, must not keep a flow or another probe waiting."""
    with looped(settings={"admin": HEALTH}) as world:
        world.path.listen()
        client, origin, _ = world.path.pair()
        host, _, port = world.relay.await_records(1, event="start")[0]["admin"]["health"].rpartition(":")
        stuck = [socket.create_connection((host, int(port))) for _ in range(100)]
        for number in range(100):
            word = b"%04d" % number
            client.sendall(word)
            assert receive(origin, 4) == word
        assert status_of(world, "/readyz") == 200
        assert world.relay.counted().live == 1
        for sock in stuck:
            sock.close()
