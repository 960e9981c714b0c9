"""Faults and ends of connected flows: FIN for FIN, RST for RST, each after the bytes that came before it."""

import socket
from itertools import pairwise

from tests.faults.case import Case, scenario
from tests.support.path import Pair
from tests.support.peers import (
    delivered,
    expect_broken,
    fill,
    local,
    receive,
    receive_all,
    receive_until_reset,
    remote,
    reset,
    unacknowledged,
)
from tests.support.traffic import same, together

Ends = tuple[socket.socket, socket.socket]


def ends(pair: Pair, side: str) -> Ends:
    """This side's socket, and the other one."""
    return (pair.client, pair.origin) if side == "client" else (pair.origin, pair.client)


@scenario("reset")
def reset_in_mid_stream(case: Case) -> None:
    side, _, state = case.variant.partition("-")
    with case.world() as world:
        world.path.listen()
        pair = world.path.live_pair()
        leaver, other = ends(pair, side)
        {
            "idle": leave_idle,
            "data": leave_after_data,
            "after-own-fin": leave_after_own_fin,
            "after-peer-fin": leave_after_peer_fin,
            "blocked": leave_blocked,
        }[state](case, leaver, other)
        assert world.ended(pair.name) == f"reset_by_{side}"


def pass_on(case: Case, sender: socket.socket, receiver: socket.socket) -> None:
    """The payload of this case's lane, without an end."""
    _, received = together(
        lambda: sender.sendall(case.payload),
        lambda: receive(receiver, len(case.payload)),
    )
    same(received, case.payload)


def leave_idle(case: Case, leaver: socket.socket, other: socket.socket) -> None:
    pass_on(case, leaver, other)
    reset(leaver)
    assert receive_until_reset(other) == b""


def leave_after_data(case: Case, leaver: socket.socket, other: socket.socket) -> None:
    def leave() -> None:
        leaver.sendall(case.payload)
        delivered(leaver)
        reset(leaver)

    _, received = together(leave, lambda: receive_until_reset(other))
    same(received, case.payload)


def leave_after_own_fin(case: Case, leaver: socket.socket, other: socket.socket) -> None:
    def end() -> None:
        leaver.sendall(case.payload)
        leaver.shutdown(socket.SHUT_WR)

    _, received = together(end, lambda: receive_all(other))
    same(received, case.payload)
    reset(leaver)
    expect_broken(other)


def leave_after_peer_fin(case: Case, leaver: socket.socket, other: socket.socket) -> None:
    other.shutdown(socket.SHUT_WR)
    assert receive_all(leaver) == b""
    leave_after_data(case, leaver, other)


def leave_blocked(case: Case, leaver: socket.socket, other: socket.socket) -> None:
    sent = fill(leaver, case.payload)
    taken = sent - unacknowledged(leaver)
    reset(leaver)
    received = receive_until_reset(other)
    assert taken <= len(received) <= sent
    same(received, (case.payload * (sent // len(case.payload) + 1))[: len(received)])


@scenario("socket-killed")
def killed_from_outside(case: Case) -> None:
    with case.world() as world:
        world.path.listen()
        pair, untouched = world.path.live_pair(), world.path.live_pair()
        killed, other = ends(pair, case.variant)
        # The relay's own sockets, by the ends that the peers know.
        of_relay = ["dst", local(pair.client)] if case.variant == "client" else ["src", remote(pair.origin)]
        world.captured.pod.run(["ss", "-K", *of_relay])
        receive_until_reset(killed)
        receive_until_reset(other)
        assert world.ended(pair.name) == f"reset_by_{case.variant}"
        pass_on(case, *untouched[:2])


@scenario("half-close")
def each_half_has_its_own_end(case: Case) -> None:
    with case.world() as world:
        world.path.listen()
        pair = world.path.pair()
        first, second = ends(pair, case.variant.partition("-")[0])

        def end(sock: socket.socket) -> bytes:
            sock.sendall(case.payload)
            sock.shutdown(socket.SHUT_WR)
            return b""

        if case.variant == "at-once":
            _, _, *received = together(
                lambda: end(first), lambda: end(second), lambda: receive_all(first), lambda: receive_all(second)
            )
        else:
            received = together(lambda: end(first), lambda: receive_all(second))[1:]
            received += together(lambda: end(second), lambda: receive_all(first))[1:]
        for part in received:
            same(part, case.payload)
        assert world.ended(pair.name) == "finished"


BULK_OFFSETS = (0, 1, 65_535, 65_536, 65_537, 300_000, 999_999)


@scenario("urgent-data")
def urgent_bytes(case: Case) -> None:
    side, _, place = case.variant.partition("-")
    with case.world() as world:
        world.path.listen()
        pair = world.path.pair()
        sender, receiver = ends(pair, side)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if place == "every-offset":
            message = b"0123456789abcdef"
            for offset in range(len(message) + 1):
                send_with_urgent(sender, message, (offset,))
                assert receive(receiver, len(message) + 1) == message[:offset] + b"!" + message[offset:]
            world.relay.assert_idle()
            sender.shutdown(socket.SHUT_WR)
            assert receive_all(receiver) == b""
        else:
            offsets = BULK_OFFSETS if place == "in-bulk" else (1_000_000,)
            bulk = case.payload * 200

            def send() -> bytes:
                send_with_urgent(sender, bulk, offsets)
                sender.shutdown(socket.SHUT_WR)
                return b""

            _, received = together(send, lambda: receive_all(receiver))
            same(received, with_urgent(bulk, offsets))
        receiver.shutdown(socket.SHUT_WR)
        assert world.ended(pair.name) == "finished"


def pieces(message: bytes, offsets: tuple[int, ...]) -> list[bytes]:
    """The message, cut at the offsets."""
    edges = [0, *offsets, len(message)]
    return [message[start:end] for start, end in pairwise(edges)]


def with_urgent(message: bytes, offsets: tuple[int, ...]) -> bytes:
    return b"!".join(pieces(message, offsets))


def send_with_urgent(sock: socket.socket, message: bytes, offsets: tuple[int, ...]) -> None:
    """The message with an urgent byte at each offset."""
    first, *rest = pieces(message, offsets)
    sock.sendall(first)
    for piece in rest:
        sock.send(b"!", socket.MSG_OOB)
        sock.sendall(piece)
