"""Connections that must not be relayed, and rules that change under the relay."""

import errno
import socket

from tests.faults.case import Case, scenario
from tests.support import rules
from tests.support.adversity import watch_dials
from tests.support.clock import Stopwatch
from tests.support.network import FAMILY, FOREIGN, LOOPBACK, POD, POD_TO_SERVER, V4, V6
from tests.support.peers import Endpoint, expect_reset, local, receive
from tests.support.relay import UID
from tests.support.world import World

PROBES = 20
NOTICED_SECONDS = 5.0

# A peer whose packets no longer arrive is noticed by nothing else.
FAST_KEEPALIVE = {"keepalive_time": "1s", "keepalive_interval": "1s", "keepalive_probes": 3}


def probe(world: World, place_name: str, address: Endpoint, *, v6_socket: bool = False) -> str:
    """Connect, and be reset within ten times 10 ms; who was it."""
    place = getattr(world.captured, place_name)
    family = socket.AF_INET6 if v6_socket or ":" in address[0] else socket.AF_INET
    for _ in range(PROBES):
        with place.entered():
            sock = socket.socket(family)
        with sock:
            watch = Stopwatch()
            if sock.connect_ex(address) == errno.ECONNRESET:
                continue  # the reset was faster than connect(), after which the socket does not know its name any more
            name = local(sock)
            expect_reset(sock)
            assert watch.seconds < 0.1
        return name.replace("[::ffff:", "").replace("]", "") if "::ffff:" in name else name
    raise AssertionError("reset before connect() returned, every time")


@scenario("loop")
def straight_to_our_own_ports(case: Case) -> None:
    family = case.way.family
    hosts = {
        "loopback": LOOPBACK[family],
        "loopback-other": {V4: "127.3.2.1", V6: "::1"}[family],
        "mapped": "::ffff:127.0.0.1",
        "pod": POD_TO_SERVER[family],
        "mapped-pod": f"::ffff:{POD[V4]}",
        "wildcard": {V4: "0.0.0.0", V6: "::"}[family],
    }
    with case.world() as world:
        dials = watch_dials(world.captured.pod, UID)
        for port in (rules.OUTBOUND_PORT, rules.INBOUND_PORT):
            for _ in range(PROBES // 2):
                name = probe(world, "pod", (hosts[case.variant], port))
                assert world.ended(name) == "loop"
        assert dials.seen() == 0
        world.path.listen()
        world.path.pair()
        assert dials.seen() == 1  # it does count


@scenario("not-captured")
def without_conntrack(case: Case) -> None:
    with case.world() as world:
        rules.remove(world.captured.pod)
        dials = watch_dials(world.captured.pod, UID)
        name = probe(world, "pod", (LOOPBACK[case.way.family], rules.OUTBOUND_PORT))
        assert world.ended(name) == "not_captured"
        assert dials.seen() == 0


@scenario("open-relay")
def a_neighbour_who_tries(case: Case) -> None:
    family = case.way.family
    with case.world() as world:
        dials = watch_dials(world.captured.pod, UID)
        if case.variant.startswith("foreign"):
            rules.remove(world.captured.pod)
            rules.apply_open(world.captured.pod, case.way.capture)
        address, reasons = {
            "direct-inbound": ((POD[family], rules.INBOUND_PORT), {"loop"}),
            "direct-outbound": ((POD[family], rules.OUTBOUND_PORT), {"loop"}),
            "routed": ((FOREIGN[family], 8080), set()),
            "foreign-origin": ((FOREIGN[family], rules.OPEN_TO_INBOUND), {"foreign_origin"}),
            "foreign-client": ((FOREIGN[family], rules.OPEN_TO_OUTBOUND), {"foreign_client"}),
        }[case.variant]
        for _ in range(PROBES):
            if reasons:
                assert world.ended(probe(world, "client", address)) in reasons
            else:
                with world.captured.client.entered(), socket.socket(FAMILY[family]) as sock:
                    sock.settimeout(0.02)
                    assert sock.connect_ex(address) != 0
        assert dials.seen() == 0


def pong(world: World, client: socket.socket, origin: socket.socket, first: str) -> None:
    """A word each way; who speaks first matters to conntrack."""
    for sender, receiver in ((client, origin), (origin, client))[:: 1 if first == "client" else -1]:
        sender.sendall(b"word")
        assert receive(receiver, 4) == b"word"


@scenario("conntrack-flushed")
def forgotten_by_conntrack(case: Case) -> None:
    first = case.variant.partition("-")[0]
    with case.world({"relay": {**FAST_KEEPALIVE, "idle_timeout": "3s"}}) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        pong(world, client, origin, first)
        world.captured.pod.run(["conntrack", "-F"])
        if case.way.capture == "tproxy":
            pong(world, client, origin, first)
            return
        for sock in (client, origin):
            sock.settimeout(1)
        try:
            pong(world, client, origin, first)
        except (ConnectionResetError, TimeoutError):
            assert world.ended(name) in ("reset_by_client", "reset_by_origin", "idle")
        fresh, accepted, _ = world.path.pair()
        pong(world, fresh, accepted, "client")


@scenario("rules-removed")
def without_rules_for_a_while(case: Case) -> None:
    with case.world() as world:
        world.path.listen()
        before = rules.held(world.captured.pod)
        rules.remove(world.captured.pod)
        (told,) = world.relay.await_records(1, event="rules", within=NOTICED_SECONDS)
        assert (told["level"], told["state"]) == ("warn", "missing")
        world.relay.await_message("warning: rules: ", "missing")
        direct, accepted, name = world.path.pair()
        pong(world, direct, accepted, "client")
        for _ in range(2):
            world.apply_rules()
        assert rules.held(world.captured.pod) == before
        world.relay.await_records(1, event="rules", state="ok", within=NOTICED_SECONDS)
        again, accepted_again, name = world.path.pair()
        pong(world, again, accepted_again, "client")
        again.close()
        accepted_again.close()
        assert world.ended(name) == "finished"
