"""Elements on captured connections: the relay as uid 1337, its code as that user, the rules of the real thing."""

import pytest

from tests.support.peers import receive, receive_until_reset
from tests.support.traffic import GIB, MIB, Stream, exchange
from tests.support.world import Way, captured

WAYS = [
    Way("redirect", 4),
    Way("redirect", 6),
    Way("tproxy", 4),
    Way("tproxy", 6),
    Way("redirect", 4, "inbound"),
    Way("tproxy", 6, "inbound"),
    Way("tproxy", 4, "gateway"),
]
ways = pytest.mark.parametrize("way", WAYS, ids=str)

CODE = """
import os
from relaycore.element import REJECT, RELEASE, Element, Open

class Pass(Element):
    def opened(self):
        self.flow.label("uid", str(os.getuid()))
        self.flow.label("goes", f"{self.flow.client[0]} {self.flow.origin[0]} {self.flow.origin[1]}")
    def request(self, data): return data
    def response(self, data): return data

class First(Element):
    def request(self, data): return REJECT if data.startswith(b"no") else RELEASE

class Loop(Element):
    def opened(self): return Open(origin=("127.0.0.1", 15002))
    def request(self, data): return data
"""


def chain(*names: str) -> list[dict[str, str]]:
    return [{"name": f"{name}-{number}", "use": f"./code.py:{name}"} for number, name in enumerate(names)]


@ways
def test_bytes_pass_a_chain_and_elements_know_whose_they_are(way: Way) -> None:
    """Elements would work on loopback and nowhere else, or run as root, or be told the wrong addresses."""
    with captured(way, elements=chain("Pass", "Pass"), code=CODE) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(1, 4 * MIB), Stream(2, 4 * MIB))
        record = world.relay.access(client=name)
        assert (record["bytes_sent"], record["bytes_received"]) == (4 * MIB, 4 * MIB)
        assert (record["lane"], record["reason"]) == ("element", "finished")
        host, port = world.path.dial_to[:2]
        assert record["labels"]["uid"] == "1337"
        assert record["labels"]["goes"].split()[1:] == [host, str(port)]


@ways
def test_a_captured_flow_is_released_or_rejected(way: Way) -> None:
    """A move between workers would lose the flow, or its capture."""
    with captured(way, elements=chain("First"), code=CODE) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        client.sendall(b"yes")
        assert receive(origin, 3) == b"yes"
        exchange(client, origin, Stream(1, 16 * MIB), Stream(2, 16 * MIB))
        assert world.relay.access(client=name)["reason"] == "finished"
        client, origin, name = world.path.pair()
        client.sendall(b"no")
        assert receive_until_reset(client) == receive_until_reset(origin) == b""
        assert world.relay.access(client=name)["reason"] == "rejected"


@pytest.mark.parametrize("way", [Way("redirect", 4), Way("tproxy", 6)], ids=str)
def test_an_element_cannot_send_a_flow_back_to_the_relay(way: Way) -> None:
    """One line of somebody's Python would be an endless loop."""
    with captured(way, elements=chain("Loop"), code=CODE) as world:
        world.path.listen()
        name = world.path.dial_in_vain()
        assert world.relay.access(client=name)["reason"] == "loop"


def test_a_gibibyte_through_three_elements() -> None:
    """A byte in a thousand million would be lost where buffers are handed from one to the next."""
    with captured(Way("redirect", 4), elements=chain("Pass", "Pass", "Pass"), code=CODE) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(1, GIB), Stream(2, GIB))
        record = world.relay.access(client=name)
        assert (record["bytes_sent"], record["bytes_received"], record["reason"]) == (GIB, GIB, "finished")
