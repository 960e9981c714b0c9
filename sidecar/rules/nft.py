"""nft: one table of our own, replaced in one transaction.

Owns: the spelling of a plan for nft, in the very words in which `nft list` gives it back, and the reading of that.
Never here: another table; running the program (programs).
"""

import json
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from sidecar.rules.held import SPOILT, Holding, Line
from sidecar.rules.model import BOTH, MARK_MASK, TABLE, V4, V6, Action, Match, Plan, Rule

HOOKS = {
    ("nat", "prerouting"): "type nat hook prerouting priority dstnat",
    ("nat", "output"): "type nat hook output priority -100",
    ("mangle", "prerouting"): "type filter hook prerouting priority mangle",
    ("mangle", "output"): "type route hook output priority mangle",  # route: the way is chosen again after the mark
    ("mangle", "input"): "type filter hook input priority mangle",
    ("raw", "prerouting"): "type filter hook prerouting priority raw",
    ("raw", "output"): "type filter hook output priority raw",
}
COMMENT = "relay-sidecar"
RECORD = "record"  # a chain that nothing calls: its one comment tells which plan this is
FLAGS = "tcp flags {}syn / fin,syn,rst,ack"

ALL_BITS = 0xFFFFFFFF
_OTHER_BITS = ALL_BITS & ~MARK_MASK


def script(places: Mapping[str, Sequence[str]], digest: str) -> str:
    """For `nft -f`: exactly these places and no other, or, if one line is refused, what was there before."""
    removal = f"table inet {TABLE}\ndelete table inet {TABLE}\n"  # named first, so that there is one to delete
    if not places:
        return removal
    blocks = [_block(f"chain {RECORD}", [f'return comment "{COMMENT} {digest}"'])]
    blocks += [_block(place.removeprefix(f"inet {TABLE} "), lines) for place, lines in places.items()]
    return f"{removal}table inet {TABLE} {{\n" + "\n".join(blocks) + "}\n"


def render(plan: Plan) -> dict[str, list[str]]:
    """The chains of a plan by place, line for line as the kernel will list them."""
    return {
        _place(f"chain {chain.kind}_{chain.hook}"): [
            f"{HOOKS[chain.kind, chain.hook]}; policy accept;",
            *map(_rule, chain.rules),
        ]
        for chain in plan.chains
    }


def read(listing: str) -> Holding:
    """What `nft list table` printed: white space, counters, the spelling of numbers, the order of names make no difference."""
    places: dict[str, list[Line]] = {}
    place = digest = ""
    for raw in re.sub(r"\{ [^{}]*\n[^{}]*\}", _joined, listing).splitlines():
        line = " ".join(raw.split())
        heading = re.fullmatch(r"((?:chain|set|map) \S+) \{", line)
        if heading:
            place = _place(heading[1])
            places[place] = []
        elif place and line not in ("", "}"):
            places[place].append(_read_line(line))
    record = places.pop(_place(f"chain {RECORD}"), None)
    if record is not None:
        found = re.search(rf'comment "{COMMENT} (\w+)"', record[0].text if record else "")
        digest = found[1] if found else SPOILT
    return Holding({place: tuple(lines) for place, lines in places.items()}, digest)


def _place(name: str) -> str:
    return f"inet {TABLE} {name}"


def _block(heading: str, lines: Sequence[str]) -> str:
    return f"\t{heading} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


def _read_line(line: str) -> Line:
    counted = re.search(r"counter packets (\d+) bytes (\d+)", line)
    text = _numbers(re.sub(r"counter packets \d+ bytes \d+", "counter", line))
    text = re.sub(r'\{ ("[^{}]*") \}', _in_order, text)
    return Line(text, int(counted[1]), int(counted[2])) if counted else Line(text)


def _numbers(line: str) -> str:
    """nft fills hexadecimal numbers up with zeros; people do not."""
    return re.sub(r"\b0x0*([0-9a-f]+)\b", r"0x\1", line)


def _joined(match: "re.Match[str]") -> str:
    return " ".join(match[0].split())


def _in_order(match: "re.Match[str]") -> str:
    """nft orders names as the numbers that their bytes make on this machine."""
    return _set(sorted(match[1].split(", ")))


def _rule(rule: Rule) -> str:
    told = any(match.kind in ("src_nets", "dst_nets") for match in rule.matches)
    words = [f"meta nfproto ipv{rule.family}"] if rule.family and not told else []
    words += [_MATCHES[match.kind](match) for match in _with_protocol(rule)]
    words.append("counter")
    words += [_action(action, rule.family) for action in rule.actions]
    return " ".join([*words, f'comment "{rule.why}"'])


def _with_protocol(rule: Rule) -> Sequence[Match]:
    """nft wants to know that it is TCP before a port is named; a condition on ports or flags says so."""
    needs = any(action.kind in ("redirect", "tproxy", "reset") for action in rule.actions)
    told = any(match.kind in ("tcp", "syn", "dst_ports") for match in rule.matches)
    return (Match("tcp"), *rule.matches) if needs and not told else rule.matches


def _action(action: Action, family: int) -> str:
    return _ACTIONS[action.kind](action.values, family)


def _set(values: Iterable[object]) -> str:
    """One value bare, several as an anonymous set."""
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else "{ " + ", ".join(words) + " }"


def _equals(expression: str) -> Callable[[Match], str]:
    return lambda match: f"{expression} {'!= ' if match.negated else ''}{_set(match.values)}"


def _names(expression: str) -> Callable[[Match], str]:
    return lambda match: f"{expression} {_set(json.dumps(name) for name in match.values)}"


def _masked(expression: str) -> Callable[[Match], str]:
    return lambda match: f"{expression} & {MARK_MASK:#x} == {match.values[0]:#x}"


def _networks(side: str) -> Callable[[Match], str]:
    def spelled(match: Match) -> str:
        family = "ip6" if ":" in match.values[0] else "ip"
        return f"{family} {side} {_set(_intervals(match.values))}"

    return spelled


def _intervals(networks: Sequence[str]) -> list[str]:
    """Networks that lie side by side are one interval for the kernel; nft prints a single address without its prefix."""
    joined: list[list[str]] = []
    for text in networks:
        if joined and _last(joined[-1][-1]) + 1 == _first(text):
            joined[-1].append(text)
        else:
            joined.append([text])
    return [_network(run[0]) if len(run) == 1 else f"{_address(run[0])}-{_end(run[-1])}" for run in joined]


def _first(text: str) -> int:
    return int(ip_network(text).network_address)


def _last(text: str) -> int:
    return int(ip_network(text).broadcast_address)


def _address(text: str) -> str:
    return text.partition("/")[0]


def _end(text: str) -> str:
    """The last address of a network, as libc writes it."""
    last = ip_network(text).broadcast_address
    return socket.inet_ntop(socket.AF_INET if last.version == V4 else socket.AF_INET6, last.packed)


def _network(text: str) -> str:
    address, _, prefix = text.partition("/")
    return address if prefix == ("128" if ":" in address else "32") else text


def _ports(match: Match) -> str:
    return f"tcp dport {_set(match.values)}"


def _mark(expression: str) -> Callable[[Sequence[Any], int], str]:
    """Our bits alone are set; nft folds the two masks into one, and leaves out one that keeps every bit."""

    def spelled(values: Sequence[Any], _: int) -> str:
        kept = _OTHER_BITS | values[0]
        return f"{expression} set {expression}{'' if kept == ALL_BITS else f' & {kept:#x}'} | {values[0]:#x}"

    return spelled


def _tproxy(values: Sequence[Any], family: int) -> str:
    port, address = values
    kind = {BOTH: "", V4: "ip ", V6: "ip6 "}[family]
    return f"tproxy {kind}to {f'[{address}]' if family == V6 and address else address or ''}:{port}"


def _type(side: str) -> Callable[[Match], str]:
    return lambda match: f"fib {side} type {'!= ' if match.negated else ''}local"


_MATCHES: dict[str, Callable[[Match], str]] = {
    "tcp": lambda match: f"meta l4proto {'!= ' if match.negated else ''}tcp",
    "syn": lambda match: FLAGS.format("!= " if match.negated else ""),
    "listening": lambda _: "socket wildcard <= 1",
    "connected": lambda _: "socket wildcard 0",
    "transparent": lambda _: "socket transparent 1",
    "dst_local": _type("daddr"),
    "src_local": _type("saddr"),
    "mark": _masked("meta mark"),
    "ct_mark": _masked("ct mark"),
    "ct_new": lambda _: "ct state new",
    "ct_original": lambda _: "ct direction original",
    "ct_dnat": lambda _: "ct status dnat",
    "in_interface": _names("iifname"),
    "out_interface": _names("oifname"),
    "dst_ports": _ports,
    "src_nets": _networks("saddr"),
    "dst_nets": _networks("daddr"),
    "uid": _equals("meta skuid"),
    "gid": _equals("meta skgid"),
}
_set_packet_mark = _mark("meta mark")
_ACTIONS: dict[str, Callable[[Sequence[Any], int], str]] = {
    "return": lambda _, __: "return",
    "accept": lambda _, __: "accept",
    "drop": lambda _, __: "drop",
    "reset": lambda _, __: "reject with tcp reset",
    "redirect": lambda values, _: f"redirect to :{values[0]}",
    "tproxy": _tproxy,
    "set_mark": _set_packet_mark,
    "set_ct_mark": _mark("ct mark"),
    "notrack": lambda _, __: "notrack",
    "divert": lambda values, family: f"{_set_packet_mark(values, family)} accept",
}
