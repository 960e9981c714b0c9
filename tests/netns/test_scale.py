"""Many flows at once, and many one after the other: what a flow costs is given back."""

import pytest

from tests.support import loads
from tests.support.clock import eventually
from tests.support.network import V6
from tests.support.ways import NFT_WAYS
from tests.support.world import Way, World, captured

OUTBOUND = [way for way in NFT_WAYS if way.direction == "outbound"]

IDLE_FLOWS = 9000
IDLE_FLOW_BYTES = 400  # what an idle flow may add to the relay's resident memory

WARM_UP = 20_000
ROUNDS, ROUND = 4, 25_000
AT_ONCE = 200

IPV4_NOW_IPV6_LATER = [pytest.param(way, id=str(way), marks=[pytest.mark.long] if way.family == V6 else []) for way in OUTBOUND]


@pytest.mark.parametrize("way", OUTBOUND, ids=str)
def test_idle_flows(way: Way) -> None:
    """Thousands of connections that wait for something must cost neither CPU nor much memory, and must still be there."""
    with captured(way, {"log": {"access": False}}) as world:
        world.path.unlisten()
        resident = world.relay.resident_bytes()
        with (
            loads.echo(world.path.far, world.path.origin),
            loads.clients(world.path.near, world.path.dial_to, IDLE_FLOWS, IDLE_FLOWS, "--hold") as clients,
        ):
            assert clients.answer() == {"served": IDLE_FLOWS, "held": IDLE_FLOWS, "errors": {}}
            assert len(world.relay.flows()) == IDLE_FLOWS
            grown = world.relay.resident_bytes() - resident
            assert grown < 10 * IDLE_FLOWS * IDLE_FLOW_BYTES
            world.relay.assert_idle()
            clients.proceed()
            assert clients.answer() == {"served": 2 * IDLE_FLOWS, "held": 0, "errors": {}}


def churn(world: World, connections: int) -> None:
    """So many connections, some at once, each a question, an answer and the origin's FIN; all of them answered."""
    with loads.clients(world.path.near, world.path.dial_to, connections, AT_ONCE) as clients:
        assert clients.answer() == {"served": connections, "held": 0, "errors": {}}
    assert eventually(lambda: world.relay.counted().live == 0)


@pytest.mark.parametrize("way", IPV4_NOW_IPV6_LATER)
def test_connections_leave_nothing_behind(way: Way) -> None:
    """A relay that loses a descriptor, a pipe or some bytes with each connection dies after days."""
    with captured(way) as world:
        world.path.unlisten()
        with loads.echo(world.path.far, world.path.origin, "--once"):
            churn(world, WARM_UP)
            assert eventually(world.relay.at_rest)
            kinds = world.relay.descriptor_kinds()
            growth = []
            for _ in range(ROUNDS):
                resident = world.relay.resident_bytes()
                churn(world, ROUND)
                growth.append(world.relay.resident_bytes() - resident)
            assert eventually(lambda: world.relay.descriptor_kinds() == kinds)
            # At most a byte per connection. A leak grows in every round, a heap that found a new high-water mark does not.
            assert min(growth) <= ROUND
