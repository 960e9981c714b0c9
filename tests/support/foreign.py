"""Rules of others, by every program that people use, and the whole state of a namespace, to see that nobody touched it.

Owns: FOREIGN, snapshot() and of_others(). Never here: a rule of ours; a namespace that the tests did not make.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.support.netns import Namespace
from tests.support.rules import text

IPTABLES = {4: "iptables", 6: "ip6tables"}
LEGACY_NAMES = {4: "/proc/self/net/ip_tables_names", 6: "/proc/self/net/ip6_tables_names"}

# What the rules, or somebody who makes them, could come to set.
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/fwmark_reflect",
    *(
        f"net/ipv4/conf/{link}/{key}"
        for link in ("all", "default", "lo")
        for key in ("rp_filter", "route_localnet", "src_valid_mark")
    ),
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/fwmark_reflect",
)

# Tailscale's rule and table, a VPN's, and a table of somebody who prefers addresses.
ROUTING = (
    "rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
    "rule add pref 5230 fwmark 0x80000/0xff0000 lookup default",
    "rule add pref 5270 lookup 52",
    "rule add pref 32700 from {net} lookup 200",
    "route add {net} dev lo table 52",
    "route add blackhole {net} table 200",
)
NETS = {4: "10.88.0.0/16", 6: "fd88::/48"}

Snapshot = Mapping[str, str]


def none(_: Namespace) -> None:
    """An empty namespace."""


def by_nft(namespace: Namespace) -> None:
    """A firewall, a set that somebody collects addresses in, NAT, marks: tables of others."""
    namespace.nft(text("foreign.nft"))
    _routing(namespace)


def by_iptables_nft(namespace: Namespace) -> None:
    """Docker's DNS, kube-proxy, ssh, a firewall whose policy is DROP."""
    _restore(namespace, "nft")


def by_iptables_legacy(namespace: Namespace) -> None:
    """The same, in the older tables of the kernel."""
    _restore(namespace, "legacy")


def by_all(namespace: Namespace) -> None:
    """A host on which everybody has left something."""
    by_nft(namespace)
    for variant in ("nft", "legacy"):
        _load(namespace, variant)


FOREIGN = {"nft": by_nft, "iptables-nft": by_iptables_nft, "iptables-legacy": by_iptables_legacy}


def _restore(namespace: Namespace, variant: str) -> None:
    _load(namespace, variant)
    _routing(namespace)


def _load(namespace: Namespace, variant: str) -> None:
    for family, program in IPTABLES.items():
        namespace.run([f"{program}-{variant}-restore"], stdin=text(f"foreign.v{family}"))


def _routing(namespace: Namespace) -> None:
    for family in IPTABLES:
        namespace.ip(*(command.format(net=NETS[family]) for command in ROUTING), family=family)


def snapshot(namespace: Namespace) -> Snapshot:
    """Everything that `rules` could change, without counters and handles.

    The kernel cannot unload a table of iptables-legacy: an empty one counts as none.
    """
    seen = {"nft": namespace.run(["nft", "-s", "list", "ruleset"]).stdout}
    for family, program in IPTABLES.items():
        seen[f"{program}-nft"] = _without_counters(namespace.run([f"{program}-nft-save"]).stdout)
        seen[f"{program}-legacy"] = "".join(_legacy(namespace, family))
        # The order of tables is the kernel's, and that of rules is told by their numbers.
        for what in ("rule", "route show table all"):
            listing = namespace.run(["ip", "-d", f"-{family}", *what.split()]).stdout
            seen[f"ip -{family} {what}"] = "".join(sorted(listing.splitlines(keepends=True)))
    with namespace.entered():
        seen.update({name: Path("/proc/sys", name).read_text() for name in SYSCTLS if Path("/proc/sys", name).exists()})
    return seen


def _legacy(namespace: Namespace, family: int) -> list[str]:
    """Naming a table that is not there would make it."""
    with namespace.entered():
        names = Path(LEGACY_NAMES[family])
        tables = names.read_text().split() if names.exists() else []
    listings = [namespace.run([f"{IPTABLES[family]}-legacy-save", "-t", table]).stdout for table in sorted(tables)]
    return [listing for listing in map(_without_counters, listings) if re.search(r"^(-A|:\S+ (?!ACCEPT))", listing, re.M)]


def _without_counters(listing: str) -> str:
    lines = [line for line in listing.splitlines() if not line.startswith("#")]
    return "\n".join(re.sub(r" ?\[\d+:\d+\]", "", line) for line in lines) + "\n"


def of_others(seen: Snapshot) -> Snapshot:
    """The same without what is ours, and without the empty base chains that iptables makes for whoever comes first."""
    others = {}
    for name, listing in seen.items():
        if name == "nft":
            others[name] = _tables_of_others(listing)
        elif name.startswith("ip -"):
            others[name] = _lines_without(listing, r"\bproto(col)? 82\b")
        elif name.startswith("ip"):
            others[name] = _lines_without(listing, r"RELAY_|^\*|^COMMIT|^:\S+ ACCEPT|^$")
        else:
            others[name] = listing
    return others


def _lines_without(listing: str, pattern: str) -> str:
    return "".join(f"{line}\n" for line in listing.splitlines() if not re.search(pattern, line))


def _tables_of_others(listing: str) -> str:
    kept = []
    for table in re.findall(r"^table [^\n]*\{\n.*?^\}\n", listing, re.M | re.S):
        if not table.startswith("table inet relay_sidecar "):
            left = re.sub(r"^\tchain RELAY_\w+ \{\n.*?^\t\}\n\n?", "", table, flags=re.M | re.S)
            left = _lines_without(left, r"jump RELAY_|^$")
            left = re.sub(r"^\tchain \w+ \{\n\t\ttype [^\n]* policy accept;\n\t\}\n", "", left, flags=re.M)
            kept += [left] if left.count("\n") > 2 else []
    return "".join(kept)
