"""A plan as data: chains of rules, policy rules and routes, without a word of nft or iptables in it.

Owns: the vocabulary. plan makes plans from it, nft and iptables render them, and each of the two knows every word here.
Never here: a configuration, a program, a system call; a rule that belongs to somebody else.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

V4, V6 = 4, 6
BOTH = 0  # the family of a rule that is the same in both

TABLE: Final = "relay_sidecar"  # under nft, the one table that is ours
PREFIX: Final = "RELAY_"  # under iptables, every chain whose name begins so is ours
MARK_MASK: Final = 0xFFF


WITHOUT_VALUES: Final = frozenset(
    {"tcp", "syn", "listening", "connected", "transparent", "dst_local", "src_local", "ct_new", "ct_original", "ct_dnat"}
)


class Match(NamedTuple):
    """One condition; with several values, any of them.

    tcp (which ports and flags imply), syn (the first packet of a connection), listening (somebody listens on the destination),
    connected (a socket is bound to the very destination, most likely by being connected), transparent (a socket of the relay
    has exactly these addresses), dst_local, src_local, mark N, ct_mark N, ct_new, ct_original, ct_dnat, in_interface NAMES,
    out_interface NAMES, dst_ports RANGES, src_nets NETWORKS and dst_nets NETWORKS (of one family), uid IDS, gid IDS.
    """

    kind: str
    values: tuple[Any, ...] = ()
    negated: bool = False


class Action(NamedTuple):
    """What is done.

    return, accept, drop, reset, redirect PORT, tproxy PORT ADDRESS (None: any), set_mark N, set_ct_mark N, divert N (set_mark
    and accept), notrack (conntrack does not see the packet; in raw alone). When nobody listens, tproxy drops under iptables,
    and under nft the next rule has its turn.
    """

    kind: str
    values: tuple[Any, ...] = ()


class Rule(NamedTuple):
    """When all conditions hold, all actions are done. `why` becomes its comment in the kernel."""

    why: str
    matches: tuple[Match, ...]
    actions: tuple[Action, ...]
    family: int = BOTH


class Chain(NamedTuple):
    """What happens at one hook: kind is nat (a flow's first packet alone), mangle (every packet) or raw (before conntrack)."""

    kind: str
    hook: str  # prerouting | output | input
    rules: tuple[Rule, ...]


class Routing(NamedTuple):
    """Packets with one of these marks are delivered on this machine, whatever their address."""

    marks: tuple[int, ...]
    table: int
    priority: int


class Plan(NamedTuple):
    """All that the kernel is told."""

    families: tuple[int, ...]
    chains: tuple[Chain, ...]
    routing: Routing | None

    def rules(self) -> Iterator[Rule]:
        """Every rule, in the order of the chains."""
        for chain in self.chains:
            yield from chain.rules

    def as_json(self) -> dict[str, object]:
        """The plan as a JSON object."""
        return {
            "families": [f"ipv{family}" for family in self.families],
            "chains": [_chain_as_json(chain) for chain in self.chains],
            "routing": self.routing._asdict() if self.routing else None,
        }

    def digest(self) -> str:
        """What tells one plan from another, short enough for a comment."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:12]


def _chain_as_json(chain: Chain) -> dict[str, object]:
    rules = [
        {
            "why": rule.why,
            "family": f"ipv{rule.family}" if rule.family else "both",
            "matches": [{"not": match.negated, "kind": match.kind, "values": _plain(match.values)} for match in rule.matches],
            "actions": [{"kind": action.kind, "values": _plain(action.values)} for action in rule.actions],
        }
        for rule in chain.rules
    ]
    return {"kind": chain.kind, "hook": chain.hook, "rules": rules}


def _plain(values: Sequence[Any]) -> list[object]:
    return [value if isinstance(value, int | str | None) else str(value) for value in values]
