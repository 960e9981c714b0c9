"""The rule sets that bring connections to the relay, applied in a namespace of the tests.

Owns: rulesets/, the text of the rules. The relay listens on 15002 (outbound) and 15006 (inbound, gateway); its user is 1337.
Never: a rule in a namespace that the tests did not make (Namespace sees to it), nor a rule built from anything but that text.
"""

from pathlib import Path

from tests.support.netns import Namespace
from tests.support.network import FAMILIES, LOOPBACK, V4, V6

RULESETS = Path(__file__).with_name("rulesets")

OUTBOUND_PORT, INBOUND_PORT = 15002, 15006

# Of the rules of an open relay: the ports whose connections are brought to either listener.
OPEN_TO_INBOUND, OPEN_TO_OUTBOUND = 8080, 8081

_RESTORE = {V4: "iptables-restore", V6: "ip6tables-restore"}


def text(name: str) -> str:
    return (RULESETS / name).read_text()


def apply(namespace: Namespace, capture: str, backend: str = "nft", *, gateway: bool = False) -> None:
    """Capture what comes in and what goes out; on a gateway, what comes from the link `to-client` and goes on to others."""
    if capture == "tproxy":
        _route(namespace)
    if backend == "nft":
        namespace.nft(text(f"gateway-{capture}.nft" if gateway else f"{capture}.nft"))
        return
    for family in FAMILIES:
        lines = text(f"{capture}.iptables").replace("--on-ip LO", f"--on-ip {LOOPBACK[family]}")
        namespace.run([_RESTORE[family], "-w", "--noflush"], stdin=lines)


def apply_open(namespace: Namespace, capture: str) -> None:
    """The rules of an open relay: whatever comes from the link `to-client`, wherever it was meant to go."""
    if capture == "tproxy":
        _route(namespace)
    namespace.nft(text(f"open-{capture}.nft"))


def remove(namespace: Namespace, capture: str) -> None:
    """Take the rules of nft, and the routes, away again."""
    namespace.nft("delete table inet relay_sidecar")
    if capture == "tproxy":
        for family in FAMILIES:
            namespace.ip("rule del pref 32764", "rule del pref 32764", "route flush table 100", family=family)


def _route(namespace: Namespace) -> None:
    for family in FAMILIES:
        namespace.ip(*text("routes.ip").splitlines()[1:], family=family)
