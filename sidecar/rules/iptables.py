"""iptables: chains of our own in nat, mangle and raw, each reached by one jump from a base chain that belongs to all.

Owns: the spelling of a plan for iptables-restore and ip6tables-restore, in the very words in which `iptables -S` gives it back.
Never here: a rule in a chain that is not ours, but for those jumps; running the programs (programs).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from sidecar.config.network_kinds import PortRange
from sidecar.rules.held import SPOILT, Line
from sidecar.rules.model import MARK_MASK, PREFIX, V4, V6, Action, Chain, Match, Plan, Rule

CHAINS = {"prerouting": f"{PREFIX}IN", "output": f"{PREFIX}OUT", "input": f"{PREFIX}DEAD"}
BASES = {"prerouting": "PREROUTING", "output": "OUTPUT", "input": "INPUT"}
TABLES = ("nat", "mangle", "raw")
RECORD = f"{PREFIX}RECORD"  # a chain that nothing calls: its one comment tells which plan this is, and what it made
COMMENT = "relay-sidecar"

MOST_HELPERS = 16  # of one chain; its plan has no more kinds of actions than that
KNOWN_CHAINS = (
    *BASES.values(),
    RECORD,
    *(name for chain in CHAINS.values() for name in (chain, *(f"{chain}_{number + 1}" for number in range(MOST_HELPERS)))),
)

FAMILIES = {V4: "ip", V6: "ip6"}

Places = Mapping[str, Sequence[str]]

MULTIPORT_SLOTS = 15  # a port takes one, a range two


def render(plan: Plan) -> dict[str, list[str]]:
    """The lines of a plan by place: our chains, and of each base chain the one line that is ours."""
    places: dict[str, list[str]] = {}
    for family in plan.families:
        for chain in plan.chains:
            name = CHAINS[chain.hook]
            _Chain(places, f"{FAMILIES[family]} {chain.kind}", name, family).fill(chain)
            places[f"{FAMILIES[family]} {chain.kind} {BASES[chain.hook]}"] = [
                f"-p tcp -m comment --comment {COMMENT} -j {name}"
            ]
    return places


def script(table: str, present: Places, wanted: Places, record: str) -> str:
    """For iptables-restore --noflush: one table, from what is there of ours to what is wanted.

    A jump that is right stays in its place. Both are by chain. `record` tells what this is; "": nothing is wanted.
    """
    lines = [f"*{table}"]
    own = [chain for chain in (*wanted, *present) if chain.startswith(PREFIX)] + [RECORD]
    lines += [f":{chain} - [0:0]" for chain in dict.fromkeys(own)]  # made, or emptied
    if record:
        lines.append(f'-A {RECORD} -m comment --comment "{record}" -j RETURN')
    lines += [f"-A {chain} {line}" for chain in wanted if chain.startswith(PREFIX) for line in wanted[chain]]
    for chain in dict.fromkeys([*wanted, *present]):
        if not chain.startswith(PREFIX) and present.get(chain, []) != wanted.get(chain, []):
            lines += [f"-D {chain} {line}" for line in present.get(chain, [])]
            lines += [f"-A {chain} {line}" for line in wanted.get(chain, [])]
    gone = [chain for chain in dict.fromkeys(own) if chain not in wanted and not (chain == RECORD and record)]
    lines += [f"-X {chain}" for chain in gone]
    return "\n".join([*lines, "COMMIT", ""])


def scripts(places: Places, digest: str) -> dict[int, str]:
    """For each family's iptables-restore: all of a plan, where nothing of ours is yet."""
    made: dict[int, str] = {}
    for family, table in product(FAMILIES, TABLES):
        wanted = inside(places, f"{FAMILIES[family]} {table}")
        if wanted:
            made[family] = made.get(family, "") + script(table, {}, wanted, record_of(digest, ()))
    return made


def inside(places: Places, where: str) -> dict[str, Sequence[str]]:
    """The places of one table, by chain."""
    return {place.split()[2]: lines for place, lines in places.items() if place.startswith(f"{where} ")}


def record_of(digest: str, made: Sequence[str]) -> str:
    """The comment of the record: which plan this is, and what apply had to make in a table of others."""
    return " ".join([COMMENT, digest, *(["made", ",".join(made)] if made else [])])


def read_record(line: str) -> tuple[str, tuple[str, ...]]:
    """Digest and makings, from the one line of the record."""
    found = re.search(rf'--comment "{COMMENT} (\w+)(?: made ([\w,]+))?"', line)
    return (found[1], tuple(found[2].split(",")) if found[2] else ()) if found else (SPOILT, ())


def read(listing: str) -> list[Line]:
    """The rules in the output of `iptables -S CHAIN -v`, without `-A CHAIN` and without the counters in it."""
    lines = []
    for line in listing.splitlines():
        if line.startswith("-A "):
            text = line.split(" ", 2)[2]
            counted = re.search(r"(?:^| )-c (\d+) (\d+)", text)
            packets, octets = (int(counted[1]), int(counted[2])) if counted else (None, None)
            lines.append(Line(re.sub(r"(^| )-c \d+ \d+", "", text).lstrip(), packets, octets))
    return lines


class _Chain:
    """Writes one chain, and the ones that it goes to."""

    def __init__(self, places: dict[str, list[str]], table: str, name: str, family: int) -> None:
        self.places = places
        self.table = table
        self.name = name
        self.family = family
        self.helpers: dict[tuple[str, ...], str] = {}

    def fill(self, chain: Chain) -> None:
        lines = self.places[f"{self.table} {self.name}"] = []
        for rule in chain.rules:
            if rule.family not in (0, self.family):
                continue
            conditions = list(_conditions(rule, self.family))
            if conditions:
                target = self._target(rule.actions)
                lines += [f"{condition} -m comment --comment {_quoted(rule.why)} {target}" for condition in conditions]

    def _target(self, actions: Sequence[Action]) -> str:
        """A rule of iptables does one thing. Several are a chain of their own, whose end returns to the base chain."""
        targets = tuple(_targets(actions, self.family))
        if len(targets) == 1:
            return f"-j {targets[0]}"
        if targets not in self.helpers:
            self.helpers[targets] = f"{self.name}_{len(self.helpers) + 1}"
            lines = [f"-p tcp -j {target}" for target in targets if target != "RETURN"]
            self.places[f"{self.table} {self.helpers[targets]}"] = lines
        return f"-g {self.helpers[targets]}"


def _conditions(rule: Rule, family: int) -> Iterator[str]:
    """The conditions of a rule as iptables wants them: alternatives that it cannot put into one line are lines of their own."""
    protocol = "-p tcp"
    alternatives: list[list[str]] = []
    addresses: list[list[str]] = []
    for match in rule.matches:
        if match.kind == "tcp":
            protocol = "! -p tcp" if match.negated else protocol
        elif match.kind in _ADDRESSES:
            values = [value for value in match.values if match.kind.endswith("interface") or (":" in value) == (family == V6)]
            if not any(value.endswith("/0") for value in values):  # every address: iptables gives no such words back
                addresses.append([f"{_ADDRESSES[match.kind]} {value}" for value in values])
        else:
            alternatives.append(list(_MATCHES[match.kind](match)))
    addresses.sort(key=lambda words: list(_ADDRESSES.values()).index(words[0].split()[0]) if words else 0)
    for words in product(*addresses, [protocol], *alternatives):
        yield " ".join(words)


def _targets(actions: Sequence[Action], family: int) -> Iterator[str]:
    """TPROXY ends the rule and sets the mark itself: what is to be remembered comes before it."""
    kinds = {action.kind: action.values for action in actions}
    if "divert" in kinds:
        yield f"MARK --set-xmark {_mark(kinds['divert'][0])}"
        yield "ACCEPT"
    elif "tproxy" in kinds:
        if "set_ct_mark" in kinds:
            yield f"CONNMARK --set-xmark {_mark(kinds['set_ct_mark'][0])}"
        port, address = kinds["tproxy"]
        mark = _mark(kinds["set_mark"][0]) if "set_mark" in kinds else "0x0/0x0"
        yield f"TPROXY --on-port {port} --on-ip {address or _ANY[family]} --tproxy-mark {mark}"
    else:
        for action in actions:
            yield _TARGETS[action.kind](action.values)


def _quoted(comment: str) -> str:
    return f'"{comment}"' if " " in comment else comment


def _mark(value: int) -> str:
    return f"{value:#x}/{MARK_MASK:#x}"


def _port_lists(match: Match) -> Iterator[str]:
    """Ports in lists as long as multiport takes them."""
    taken: list[str] = []
    slots = 0
    for ports in match.values:
        needed = 1 if ports.low == ports.high else 2
        if slots + needed > MULTIPORT_SLOTS:
            yield f"-m multiport --dports {','.join(taken)}"
            taken, slots = [], 0
        taken.append(_ports(ports))
        slots += needed
    yield f"-m multiport --dports {','.join(taken)}"


def _ports(ports: PortRange) -> str:
    return str(ports.low) if ports.low == ports.high else f"{ports.low}:{ports.high}"


def _local(side: str) -> Callable[[Match], list[str]]:
    return lambda match: [f"-m addrtype {'! ' if match.negated else ''}--{side}-type LOCAL"]


def _each(words: str) -> Callable[[Match], list[str]]:
    return lambda match: [f"{words} {value}" for value in match.values]


_ANY = {V4: "0.0.0.0", V6: "::"}
_ADDRESSES = {"src_nets": "-s", "dst_nets": "-d", "in_interface": "-i", "out_interface": "-o"}
_MATCHES: dict[str, Callable[[Match], Any]] = {
    "syn": lambda match: [f"-m tcp {'! ' if match.negated else ''}--tcp-flags FIN,SYN,RST,ACK SYN"],
    "listening": lambda _: ["-m socket --nowildcard"],
    "connected": lambda _: ["-m socket"],
    "transparent": lambda _: ["-m socket --transparent"],
    "dst_local": _local("dst"),
    "src_local": _local("src"),
    "mark": lambda match: [f"-m mark --mark {_mark(match.values[0])}"],
    "ct_mark": lambda match: [f"-m connmark --mark {_mark(match.values[0])}"],
    "ct_new": lambda _: ["-m conntrack --ctstate NEW"],
    "ct_original": lambda _: ["-m conntrack --ctdir ORIGINAL"],
    "ct_dnat": lambda _: ["-m conntrack --ctstate DNAT"],
    "dst_ports": _port_lists,
    "uid": _each("-m owner --uid-owner"),
    "gid": _each("-m owner --gid-owner"),
}
_TARGETS: dict[str, Callable[[Sequence[Any]], str]] = {
    "return": lambda _: "RETURN",
    "accept": lambda _: "ACCEPT",
    "drop": lambda _: "DROP",
    "redirect": lambda values: f"REDIRECT --to-ports {values[0]}",
    "notrack": lambda _: "CT --notrack",
    "set_mark": lambda values: f"MARK --set-xmark {_mark(values[0])}",
    "set_ct_mark": lambda values: f"CONNMARK --set-xmark {_mark(values[0])}",
}
