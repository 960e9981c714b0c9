"""What a peer is, and what all of them share.

Owns: the two interfaces; the port, the limit on descriptors and the rules.
Never here: a peer.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from tests.support import rules
from tests.support.network import Network

PORT = rules.INBOUND_PORT
DESCRIPTORS = 20_000  # for 9,000 connections at once, each with two sockets

# Where a relay stands: between client and server on a host of its own, or beside its client in one namespace.
GATEWAY, OUTBOUND = "gateway", "outbound"


def captured(direction: str, *, notrack: bool = False) -> Mapping[str, Any]:
    """What a configuration says of the connections to capture: the rules go by it, and a relay of ours."""
    untracked = {"notrack": True} if notrack else {}
    links = {"rules": {"gateway_interfaces": ["to-client"], **untracked}} if direction == GATEWAY else {}
    return {"listener": [{"name": direction, "direction": direction, "port": PORT, "capture": "tproxy"}], **links}


class Running(Protocol):
    """A peer at work."""

    def pids(self) -> list[int]:
        """The processes whose CPU time and memory are the peer's."""

    def records_lost(self) -> int | None:
        """Of the connections up to now, how many its log does not tell of; None: it keeps no log of them."""


class Peer(Protocol):
    """Something between a client and a server."""

    @property
    def name(self) -> str:
        """As results call it."""

    @property
    def configuration(self) -> str:
        """The command and its file, as a reader of the results would start it."""

    def missing(self) -> str | None:
        """How to get what it needs, in one line; None when all is there."""

    def version(self) -> str:
        """What the program itself says; nothing may be missing."""

    def started(self, network: Network) -> AbstractContextManager[Running]:
        """On the pod of this network: entered when it takes connections, left when nothing of it is there any more. It ends
        with the thread that started it, too."""
