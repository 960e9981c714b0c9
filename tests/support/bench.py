"""An engine on loopback without a sidecar: one listener with a fixed target, one origin.

Owns: the engine and both sockets. Never: a privilege, a rule, a process.
"""

import select
import socket
from collections.abc import Sequence
from typing import Any

from relaycore import Engine, Record, Settings
from relaycore._use import Use
from relaycore.element import Element
from tests.support.clock import DEADLINE

SETTINGS = Settings(
    max_flows=64,
    connect_timeout_ms=5000,
    idle_timeout_ms=0,
    half_close_timeout_ms=0,
    keepalive_time_s=0,
    keepalive_interval_s=1,
    keepalive_probes=1,
    mark=0,
    access=True,
    busy_poll_us=0,
    own_networks=["127.0.0.0/8", "::1/128"],
)
OUTBOUND, UNCAPTURED = 0, 2


def used(number: int, kind: type[Element]) -> Use:
    """An element as the engine takes it."""
    return Use(
        number,
        kind.__name__,
        kind,
        None,
        None,
        passes_errors=False,
        budget_ns=1_000_000_000,
        max_held=1 << 20,
        max_output=4 << 20,
    )


class Bench:
    """An engine in front of an origin, and the two ways to connect a client with that origin."""

    def __init__(
        self,
        tuning: dict[str, int] | None = None,
        *,
        start: bool = True,
        elements: Sequence[type[Element]] = (),
        **settings: Any,
    ) -> None:
        self.origin = socket.create_server(("127.0.0.1", 0), backlog=128)
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self.door = listener.getsockname()
        self.listener = listener.dup()  # as whoever hands sockets over keeps it
        self.engine = Engine(SETTINGS._replace(**settings), workers=1, element_workers=bool(elements), **(tuning or {}))
        self.engine.add_listener(
            [listener.detach()],
            direction=OUTBOUND,
            capture=UNCAPTURED,
            port=self.door[1],
            target=self.origin.getsockname(),
            elements=[used(number, kind) for number, kind in enumerate(elements)] if elements else None,
        )
        if start:
            self.engine.start()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.stop()
        assert self.engine.join(DEADLINE)
        self.listener.close()
        self.origin.close()

    def connect(self, relayed: bool = True, receive_buffer: int = 0) -> tuple[socket.socket, socket.socket]:
        """A client and the origin's end of its connection."""
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(DEADLINE)
        client.connect(self.door if relayed else self.origin.getsockname())
        self.origin.settimeout(DEADLINE)
        accepted = self.origin.accept()[0]
        accepted.settimeout(DEADLINE)
        return client, accepted

    def record(self) -> Record:
        """The next finished flow's."""
        while not (records := self.engine.records(1)):
            assert select.select([self.engine.wakeup_fileno()], [], [], DEADLINE)[0], "no flow has finished"
        return records[0]
