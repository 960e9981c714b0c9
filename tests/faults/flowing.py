"""Faults of the network under live flows, and receivers that take their time: bytes exact, memory bounded, the dead noticed."""

from tests.faults.case import Case, scenario
from tests.faults.closing import ends
from tests.faults.guarding import FAST_KEEPALIVE
from tests.support.adversity import Hook, link_down, slow_down
from tests.support.clock import observe
from tests.support.peers import expect_reset, fill, receive
from tests.support.traffic import MIB, Stream, exchange, same

SMALL_BUFFER = 4096


@scenario("slow-peer")
def zero_window(case: Case) -> None:
    flows = 8
    with case.world({"relay": {"max_pending": "256KiB"}}) as world:
        world.path.listen(receive_buffer=SMALL_BUFFER)
        resident = world.relay.resident_bytes()
        stuck = []
        for _ in range(flows):
            pair = world.path.pair(receive_buffer=SMALL_BUFFER)
            sender, receiver = ends(pair, "origin" if case.variant == "client" else "client")
            stuck.append((receiver, fill(sender, case.payload, quiet=0.05)))
        pending = sum(flow["pending_sent"] + flow["pending_received"] for flow in world.relay.flows())
        assert pending <= (1 + flows) * 256 * 1024  # max_pending, and a pipe per spliced flow
        assert world.relay.resident_bytes() - resident < 2 * MIB
        world.relay.assert_idle()
        for receiver, sent in stuck:
            expected = case.payload * (sent // len(case.payload) + 1)
            same(receive(receiver, sent), expected[:sent])


@scenario("idle")
def idle_is_no_progress(case: Case) -> None:
    timeout, pause, steps = 1.0, 0.3, 8
    with case.world({"relay": {"idle_timeout": "1s"}}) as world:
        world.path.listen()
        pair = world.path.pair()
        for _ in range(steps):
            pair.client.sendall(b".")
            assert receive(pair.origin, 1) == b"."
            observe(pause)
        assert steps * pause > 2 * timeout
        expect_reset(pair.client, within=10 * timeout)
        expect_reset(pair.origin)
        assert world.ended(pair.name) == "idle"


@scenario("half-open-peer")
def link_lost(case: Case) -> None:
    with case.world({"relay": FAST_KEEPALIVE}) as world:
        world.path.listen()
        pair = world.path.pair()
        pair.client.sendall(b"hello")
        assert receive(pair.origin, 5) == b"hello"
        # Outbound it is the origin that is lost, inbound the client.
        lost, left, namespace = (
            ("origin", pair.client, world.captured.server)
            if case.way.direction == "outbound"
            else ("client", pair.origin, world.captured.client)
        )
        with link_down(namespace, "eth0"):
            expect_reset(left, within=40)
            assert world.ended(pair.name) == f"reset_by_{lost}"


@scenario("bad-link")
def bad_link(case: Case) -> None:
    with case.world() as world:
        outbound = case.way.direction == "outbound"
        far, link = (world.captured.server, "to-server") if outbound else (world.captured.client, "to-client")
        size = 4 * MIB
        if case.variant == "loss":
            size = 1 * MIB
            for place, arriving_by in ((far, "eth0"), (world.captured.pod, link)):
                Hook(place, "filter prerouting -350", f"iifname {arriving_by} meta l4proto tcp numgen random mod 100 < 3 drop")
        elif case.variant == "small-mss":
            Hook(far, "filter output 0", "tcp flags & syn == syn tcp option maxseg size set 88")
            Hook(far, "filter input 0", "tcp flags & syn == syn tcp option maxseg size set 88")
        else:
            slow_down(far, "eth0", "50mbit")
            slow_down(world.captured.pod, link, "50mbit")
        world.path.listen()
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(11, size), Stream(12, size))
        assert world.ended(name) == "finished"
