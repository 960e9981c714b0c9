"""What both ends of a flow see when an element refuses it, whoever the element is and whenever it does.

Owns: the scenario. The element does what the client's words say: "reject" and "close", "refuse" and "end" (the same with last
bytes), "fail" and other mistakes.
Never: how a relay comes to have such an element.
"""

import socket

from tests.support.peers import expect_broken, fill, receive, receive_all, receive_until_reset
from tests.support.traffic import MIB
from tests.support.world import World

MOMENTS = ("first", "middle", "after half-close", "while the sink is blocked")
REFUSALS = ("reject", "close", "refuse", "end", "fail")


def expect_refusal(world: World, word: str, moment: str, *, by: str) -> None:
    """One flow, brought to that moment and refused with that word."""
    client, origin, name = world.path.pair()
    before = b"yes?" if moment in ("middle", "after half-close") else b""
    unread = 0
    if moment == "while the sink is blocked":
        unread = fill(client, b"x" * MIB, quiet=0.1)
    if before:
        client.sendall(b"hello")
        assert receive(origin, 5) == b"hello"
        origin.sendall(before)
        assert client.recv(4, socket.MSG_PEEK) == before
    if moment == "after half-close":
        origin.shutdown(socket.SHUT_WR)
        assert receive_all(client) == before
        before = b""
    receive(origin, unread)
    client.sendall(b" " + word.encode())
    last = b"bye" if word in ("refuse", "end") else b""
    if word in ("close", "end"):
        assert (receive_all(origin), receive_all(client)) == (last, before)
    else:
        assert receive_until_reset(origin) == last
        if moment == "after half-close":
            expect_broken(client)
        else:
            assert receive_until_reset(client) == before
    record = world.relay.access(client=name)
    assert record["reason"] == ("rejected" if word in ("reject", "close", "refuse", "end") else "element_failed")
    assert record["element"] == by
