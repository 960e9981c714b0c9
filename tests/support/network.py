"""Three namespaces in a row, client — pod — server, over IPv4 and IPv6.

Owns: the addresses. The pod holds the app and the relay: inbound clients are in `client`, outbound origins in `server`.
`client` is also the neighbour on the pod's segment who routes foreign addresses to it; for a gateway, `pod` is the gateway.
Never: a rule. Those come from rules.py.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.support.netns import Namespace

V4, V6 = 4, 6
FAMILIES = (V4, V6)
FAMILY = {V4: socket.AF_INET, V6: socket.AF_INET6}

# The pod's own addresses are those of its two links; the rest of the world is behind `client` and `server`.
CLIENT = {V4: "10.1.0.1", V6: "fd01::1"}
POD = {V4: "10.1.0.2", V6: "fd01::2"}
POD_TO_SERVER = {V4: "10.2.0.2", V6: "fd02::2"}
SERVER = {V4: "10.2.0.1", V6: "fd02::1"}
LOOPBACK = {V4: "127.0.0.1", V6: "::1"}
FOREIGN = {V4: "203.0.113.9", V6: "2001:db8::9"}

_PREFIX = {V4: 24, V6: 64}

# Ports that were used a moment ago may be used again: the tests make more connections in a minute than there are ports.
_SYSCTLS = {"net.ipv4.tcp_tw_reuse": "1"}


def _join(
    left: Namespace, left_name: str, left_address: dict[int, str], right: Namespace, right_address: dict[int, str]
) -> None:
    """One veth link; its right end is always eth0."""
    left.ip(f"link add {left_name} type veth peer name eth0 netns {right.path}")
    for end, name, addresses in ((left, left_name, left_address), (right, "eth0", right_address)):
        end.ip(
            f"link set {name} up",
            *(
                f"addr add {addresses[family]}/{_PREFIX[family]} dev {name}{' nodad' if family == V6 else ''}"
                for family in FAMILIES
            ),
        )


@dataclass(frozen=True)
class Network:
    """client eth0 — to-client pod to-server — eth0 server; everything that is not on a segment goes by the pod."""

    client: Namespace
    pod: Namespace
    server: Namespace

    @staticmethod
    @contextmanager
    def made() -> Iterator["Network"]:
        with ExitStack() as stack:
            client, pod, server = (Namespace(name, _SYSCTLS) for name in ("client", "pod", "server"))
            for namespace in (client, pod, server):
                stack.callback(namespace.close)
            _join(pod, "to-client", POD, client, CLIENT)
            _join(pod, "to-server", POD_TO_SERVER, server, SERVER)
            client.ip(*(f"route add default via {POD[family]}" for family in FAMILIES))
            server.ip(*(f"route add default via {POD_TO_SERVER[family]}" for family in FAMILIES))
            yield Network(client, pod, server)
