"""Faults between accept and connected: the client sees a reset, never a connection that closes politely."""

import socket

from tests.faults.case import Case, scenario
from tests.support.adversity import DROP, Hook, refuse
from tests.support.clock import Stopwatch
from tests.support.peers import delivered, expect_reset, fill, local, receive, receive_all, reset
from tests.support.world import APP_PORT, World

CONNECT_TIMEOUT = 0.5
UNREACHABLE = ("host-unreachable", "no-route", "admin-prohibited")
REASONS = {"tcp-reset": "refused", "port-unreachable": "refused"} | dict.fromkeys(UNREACHABLE, "unreachable")


def refused_by(world: World, how: str) -> Hook:
    """The origin's machine answers new connections in this way; inbound, that is the pod's own loopback."""
    return refuse(world.origins, APP_PORT, how, only="iif lo" if world.way.direction == "inbound" else "")


@scenario("refused")
def rejected_by_the_origins_machine(case: Case) -> None:
    with case.world() as world:
        world.path.listen()
        refused_by(world, case.variant)
        name = world.path.dial_in_vain()
        record = world.relay.access(client=name)
        assert (record["reason"], record["connect_ms"]) == (REASONS[case.variant], None)
        assert sum(world.relay.counted().dial_errors.values()) == 1


@scenario("closed-port")
def nobody_listens(case: Case) -> None:
    with case.world() as world:
        name = world.path.dial_in_vain()
        assert world.ended(name) == "refused"
        assert world.relay.counted().dial_errors == {"ECONNREFUSED": 1}


@scenario("black-hole")
def no_answer(case: Case) -> None:
    limited = case.variant != "bounded"
    with case.world({"relay": {"connect_timeout": f"{CONNECT_TIMEOUT * 1000:.0f}ms" if limited else "1h"}}) as world:
        if case.variant == "full-backlog":
            world.path.listen(0)
            for _ in range(3):  # one is queued, the others wait as this relay will
                world.path.dial_beside()
        else:
            world.path.listen()
            refused_by(world, DROP)
        watch = Stopwatch()
        client = world.path.dial(send_buffer=1 << 16)
        name = local(client)
        if limited:
            expect_reset(client)
            assert CONNECT_TIMEOUT * 0.9 < watch.seconds < CONNECT_TIMEOUT * 2
            assert world.ended(name) == "connect_timeout"
            return
        resident = world.relay.resident_bytes()
        assert fill(client, case.payload) < 8 << 20  # what the two sockets hold
        assert world.relay.resident_bytes() - resident < 1 << 20
        reset(client)
        assert world.ended(name) == "client_left"


@scenario("client-leaves-while-dialling")
def nobody_to_dial_for(case: Case) -> None:
    with case.world() as world:
        world.path.listen()
        refused_by(world, DROP)
        client = world.path.dial()
        name = local(client)
        world.relay.await_flows(1)
        watch = Stopwatch()
        reset(client)
        assert world.ended(name) == "client_left"
        assert watch.seconds < 0.1


@scenario("client-fin-while-dialling")
def a_client_that_has_said_all(case: Case) -> None:
    with case.world() as world:
        world.path.listen()
        closed = refused_by(world, DROP)
        client = world.path.dial()
        name = local(client)
        client.sendall(case.payload)
        client.shutdown(socket.SHUT_WR)
        delivered(client)
        closed.remove()
        origin = world.path.accept()
        assert receive_all(origin) == case.payload
        origin.sendall(case.payload)
        origin.close()
        assert receive_all(client) == case.payload
        assert world.ended(name) == "finished"


@scenario("reset-before-accept")
def gone_before_it_was_accepted(case: Case) -> None:
    with case.world() as world:
        world.path.listen()
        with world.relay.frozen():
            client = world.path.dial()
            name = local(client)
            reset(client)
            later = world.path.dial()
            later.sendall(b"later")
        assert receive(world.path.accept(), 5) == b"later"
        assert world.ended(name) == "client_left"


@scenario("ports-gone")
def no_port_to_dial_from(case: Case) -> None:
    with case.world() as world:
        world.captured.pod.sysctl("net.ipv4.ip_local_port_range", "40000 40099")
        world.path.listen(512)
        for port in range(20000, 20100):
            world.path.dial(port=port)
            world.path.accept()
        names = [world.path.dial_in_vain(port=port) for port in range(20100, 20110)]
        assert {world.ended(name) for name in names} == {"limit"}
        assert world.relay.counted().dial_errors == {"EADDRNOTAVAIL": 10}
