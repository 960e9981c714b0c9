"""Faults of the network under live flows, and receivers that take their time: bytes exact, memory bounded, the dead noticed."""

from tests.faults.case import Case, scenario
from tests.faults.closing import ends
from tests.faults.guarding import FAST_KEEPALIVE
from tests.support.adversity import link_down, lose, shrink_segments, slow_down
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
        near, far = world.captured.pod, world.captured.server if outbound else world.captured.client
        ends_of_link = ((near, "to-server" if outbound else "to-client"), (far, "eth0"))
        make_bad = {"loss": lose, "small-mss": shrink_segments, "low-bandwidth": slow_down}[case.variant]
        seen = [make_bad(namespace, link) for namespace, link in ends_of_link]
        world.path.listen()
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(11, 2 * MIB), Stream(12, 2 * MIB))
        assert world.ended(name) == "finished"
        assert all(packets() > 0 for packets in seen)
