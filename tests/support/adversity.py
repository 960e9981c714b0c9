"""How a network and a machine go wrong, on demand, in a namespace of the tests.

Owns: nft tables of its own (never the relay's), links and their rates, the counting of packets that must not have been sent.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.netns import Namespace

_numbers = itertools.count()

REJECTIONS = {
    "tcp-reset": "reject with tcp reset",
    "port-unreachable": "reject with icmpx type port-unreachable",
    "host-unreachable": "reject with icmpx type host-unreachable",
    "no-route": "reject with icmpx type no-route",
    "admin-prohibited": "reject with icmpx type admin-prohibited",
}
DROP = "drop"


class Hook:
    """Rules at a place like `filter input 0`, in a table of their own: as long as the namespace lives, or until remove()."""

    def __init__(self, namespace: Namespace, place: str, *rules: str) -> None:
        kind, hook, priority = place.split()
        self._namespace = namespace
        self._table = f"inet test{next(_numbers)}"
        lines = "".join(f"{rule}\n" for rule in rules)
        head = f"type {kind} hook {hook} priority {priority}; policy accept;"
        namespace.nft(f"table {self._table} {{ counter seen {{ }}\n chain c {{ {head}\n{lines} }}\n}}\n")

    def seen(self) -> int:
        """Packets that met a rule with `counter name seen`."""
        listed = self._namespace.run(["nft", "-j", "list", "counter", *self._table.split(), "seen"]).stdout
        return int(next(item["counter"]["packets"] for item in json.loads(listed)["nftables"] if "counter" in item))

    def remove(self) -> None:
        self._namespace.nft(f"delete table {self._table}")


def refuse(namespace: Namespace, port: int, how: str, *, only: str = "") -> Hook:
    """New connections to this port meet one of REJECTIONS, or DROP; `only` those that a match lets through."""
    return Hook(namespace, "filter input 0", f"{only} tcp dport {port} tcp flags & (syn|ack) == syn {REJECTIONS.get(how, how)}")


def watch_dials(namespace: Namespace, uid: int) -> Hook:
    """Counts the connections that this user tries to make, whatever becomes of them."""
    return Hook(namespace, "filter output -300", f"meta skuid {uid} tcp flags & (syn|ack) == syn counter name seen")


@contextmanager
def link_down(namespace: Namespace, link: str) -> Iterator[None]:
    """The cable is out. The addresses come back with the link; IPv6's would not, without this sysctl."""
    namespace.sysctl(f"net.ipv6.conf.{link}.keep_addr_on_down", "1")
    namespace.ip(f"link set {link} down")
    yield
    namespace.ip(f"link set {link} up")


# Ways to make one end of a link bad. Each returns a function that tells how many packets it has met.


def lose(namespace: Namespace, link: str) -> Callable[[], int]:
    """Three in a hundred packets that arrive by this link are lost."""
    # Sent one by one: of the large ones that a veth link carries otherwise, too few would meet the rule.
    namespace.ip(f"link set {link} gso_max_segs 1")
    return Hook(
        namespace, "filter prerouting -350", f"iifname {link} meta l4proto tcp numgen random mod 100 < 3 counter name seen drop"
    ).seen


def shrink_segments(namespace: Namespace, link: str) -> Callable[[], int]:
    """Connections that are made over this link send segments of 88 bytes."""
    return Hook(
        namespace,
        "filter postrouting 0",
        f"oifname {link} tcp flags & syn == syn tcp option maxseg size set 88 counter name seen",
    ).seen


def slow_down(namespace: Namespace, link: str) -> Callable[[], int]:
    """What leaves by this link goes at 50 Mbit/s at most."""
    namespace.run(["tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", "50mbit", "burst", "64kb", "latency", "20ms"])

    def packets() -> int:
        listed = json.loads(namespace.run(["tc", "-s", "-j", "qdisc", "show", "dev", link]).stdout)
        return int(listed[0]["packets"])

    return packets
