"""No relay at all: what every other peer is measured against.

Owns: the pod's forwarding. Never here: a rule.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.support.network import Network

FORWARD = "net.ipv4.ip_forward"


class Routing:
    """A pod that routes: no process of ours has a part in it."""

    def pids(self) -> list[int]:
        return []

    def records_lost(self) -> None:
        return None


class Direct(NamedTuple):
    """No relay: the pod's kernel routes."""

    name: str = "direct"
    configuration: str = f"{FORWARD} = 1\n"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"Linux {os.uname().release.partition('-')[0]}"

    @contextmanager
    def started(self, network: Network) -> Iterator[Routing]:
        network.pod.sysctl(FORWARD, "1")
        try:
            yield Routing()
        finally:
            network.pod.sysctl(FORWARD, "0")
