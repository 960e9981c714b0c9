"""Rules and routes by netlink, held against what ip(8), nft and iptables-nft say of the same kernel."""

import os
import select
import socket

import pytest

from sidecar.netlink import forget
from sidecar.rules import routes, tables
from sidecar.rules.routes import LocalRoute, PolicyRule
from sidecar.rules.watch import watch_routing, watch_rules
from tests.support.netns import Namespace
from tests.support.relay import UID

FAMILIES = (socket.AF_INET, socket.AF_INET6)
RULES = [PolicyRule(family, 32764, mark, 0xFFF, 100) for family in FAMILIES for mark in (0x111, 0x112)]
WAYS = [*RULES, *(LocalRoute(family, 100) for family in FAMILIES)]
MARKS = {"mark": 0x539, "local_mark": 0x111, "capture_mark": 0x112}
NFPROTO_IPV4 = 2
BASE = "chain {} {{ type nat hook {} priority -100; policy accept; {}\n}}\n"


@pytest.fixture
def pod(namespace: Namespace) -> Namespace:
    """The namespace alone: there are no commands here."""
    return namespace


def routing(namespace: Namespace) -> str:
    """All rules and routes, as ip(8) prints them."""
    asked = [(family, what) for family in ("-4", "-6") for what in ("rule", "route show table all")]
    return "".join(namespace.run(["ip", "-d", family, *what.split()]).stdout for family, what in asked)


def add_all(namespace: Namespace) -> None:
    with namespace.entered():
        for way in WAYS:
            routes.add(way)


def delete_all(namespace: Namespace) -> None:
    with namespace.entered():
        for way in WAYS:
            routes.delete(way)


def clashing(namespace: Namespace) -> set[str]:
    with namespace.entered():
        return {problem.where for problem in routes.clashes(WAYS, MARKS)}


def test_what_is_added_is_what_the_shown_commands_add(pod: Namespace) -> None:
    """`rules show` would promise something else than `rules apply` does."""
    by_hand = Namespace("by hand")
    before = routing(pod)
    add_all(pod)
    for way in WAYS:
        by_hand.run(routes.text(way).split())
    assert routing(pod) == routing(by_hand) != before
    by_hand.close()


def test_deleting_leaves_everything_as_it_was(pod: Namespace) -> None:
    """A pod would keep rules of a sidecar that has gone; deleting twice would fail a repeated `rules remove`."""
    before = routing(pod)
    add_all(pod)
    delete_all(pod)
    delete_all(pod)
    assert routing(pod) == before


def test_the_same_rules_and_routes_of_others_stay(pod: Namespace) -> None:
    """`rules remove` would take away what an administrator has put there by hand."""
    for family in (4, 6):
        pod.ip("rule add pref 32764 fwmark 0x111/0xfff lookup 100", "route add local default dev lo table 100", family=family)
    before = routing(pod)
    delete_all(pod)
    assert routing(pod) == before
    with pod.entered():
        assert routes.ours() == []
        for way in RULES:
            routes.add(way)
    delete_all(pod)
    assert routing(pod) == before


def test_what_is_missing_and_what_is_left_over(pod: Namespace) -> None:
    """A repeated apply would add rules twice, and a changed one would leave the old ones in force."""
    with pod.entered():
        assert set(routes.missing(WAYS)) == set(WAYS)
        for way in WAYS[1:]:
            routes.add(way)
        assert routes.missing(WAYS) == [WAYS[0]]
        assert routes.stale(WAYS) == []
        old = [PolicyRule(socket.AF_INET, 30000, 0x111, 0xFFF, 100), LocalRoute(socket.AF_INET6, 1000)]
        for way in old:
            routes.add(way)
        assert set(routes.stale(WAYS)) == set(old)


def test_a_rule_of_ours_that_is_there_twice_is_left_over(pod: Namespace) -> None:
    """Removing would take one of two away, and report success."""
    add_all(pod)
    pod.ip("rule add pref 32764 fwmark 0x111/0xfff iif lo lookup 100 protocol 82", family=4)
    with pod.entered():
        assert len(routes.stale(WAYS)) == 1
    delete_all(pod)
    delete_all(pod)
    with pod.entered():
        assert routes.ours() == []


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("rule add pref 100 fwmark 0x80000/0xff0000 lookup main", set()),  # Tailscale
        ("rule add pref 9 fwmark 0x200/0xf00 lookup 2004", set()),  # Cilium
        ("rule add pref 1000 from 10.0.0.0/8 lookup 7", set()),
        ("rule add pref 100 fwmark 0x8/0x8 lookup 200", {"rules.mark"}),
        ("rule add pref 100 fwmark 0x1539 lookup 9", {"rules.mark"}),
        ("route add local default dev lo table 100", {"rules.route_table"}),
    ],
)
def test_a_clash_is_told_by_the_key_to_change(pod: Namespace, command: str, keys: set[str]) -> None:
    """The relay's traffic would be led away by somebody else's rule, or theirs by ours, and nobody would know why."""
    pod.ip(command, family=4)
    assert clashing(pod) == keys
    if "rules.route_table" not in keys:  # else ours cannot stand beside it
        add_all(pod)
    assert clashing(pod) == keys, "our own are no clash"


def test_looking_makes_no_table(pod: Namespace) -> None:
    """`rules status` would change the namespace that it only looks at."""
    with pod.entered():
        assert tables.tables() == []
        assert tables.chains(NFPROTO_IPV4, "nat") == []
        assert not tables.has_rules(NFPROTO_IPV4, "nat", "OUTPUT")
    assert pod.nft("list ruleset") == ""


def test_the_table_that_iptables_leaves_behind_goes(pod: Namespace) -> None:
    """After `rules remove` the namespace would not be as it was."""
    restore = ["iptables-nft-restore", "--noflush"]
    pod.run(restore, stdin="*nat\n:RELAY_IN - [0:0]\n-A PREROUTING -j RELAY_IN\n-A OUTPUT -j RELAY_IN\nCOMMIT\n")
    pod.run(restore, stdin="*nat\n-D PREROUTING -j RELAY_IN\n-D OUTPUT -j RELAY_IN\n-X RELAY_IN\nCOMMIT\n")
    with pod.entered():
        left = tables.chains(NFPROTO_IPV4, "nat")
        assert {chain.name for chain in left} == {"PREROUTING", "OUTPUT"}
        tables.delete_empty(NFPROTO_IPV4, "nat", [chain.name for chain in left], table_too=True)
    assert pod.nft("list ruleset") == ""


@pytest.mark.parametrize(
    "theirs",
    [
        BASE.format("OUTPUT", "output", "counter"),
        BASE.format("OUTPUT", "output", "").replace("accept", "drop").replace("nat hook", "filter hook"),
        "chain RELAYED {\n}\n",
    ],
    ids=["a rule", "a policy", "a chain"],
)
def test_what_others_have_in_the_table_stays(pod: Namespace, theirs: str) -> None:
    """`rules remove` would open a firewall."""
    pod.nft("table ip nat {\n" + theirs + "}\n")
    alone = pod.nft("list ruleset")
    pod.nft("table ip nat {\n" + BASE.format("PREROUTING", "prerouting", "") + "}\n")
    with pod.entered():
        tables.delete_empty(NFPROTO_IPV4, "nat", ["PREROUTING", "OUTPUT"], table_too=True)
    assert pod.nft("list ruleset") == alone


def test_a_rule_that_comes_in_between_is_not_lost(pod: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that somebody adds between the look and the deletion would vanish without a word."""
    pod.nft("table ip nat {\n" + BASE.format("PREROUTING", "prerouting", "") + "}\n")
    look = tables.has_rules

    def overtaken(*place: object) -> bool:
        monkeypatch.setattr(tables, "has_rules", look)
        found = look(*place)  # type: ignore[arg-type]
        pod.nft("add rule ip nat PREROUTING counter")
        return found

    monkeypatch.setattr(tables, "has_rules", overtaken)
    with pod.entered():
        tables.delete_empty(NFPROTO_IPV4, "nat", ["PREROUTING"], table_too=True)
    assert "counter" in pod.nft("list ruleset")


def as_user(work: "object", *arguments: object) -> int:
    """The exit status of a child that has dropped every capability: 0 when `work` returned True."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(UID)
            os.setuid(UID)
            os._exit(0 if work(*arguments) else 1)  # type: ignore[operator]
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def refused(call: "object") -> bool:
    try:
        call()  # type: ignore[operator]
    except PermissionError:
        return True
    return False


def test_without_the_capability_the_kernel_says_so(pod: Namespace) -> None:
    """An unprivileged `rules status` would say `missing` where it may not look."""
    with pod.entered():
        assert as_user(refused, tables.tables) == 0
        assert as_user(refused, lambda: routes.add(WAYS[0])) == 0
        assert as_user(refused, watch_rules) == 0


def test_a_watch_outlives_the_privileges_with_which_it_was_opened(pod: Namespace) -> None:
    """A relay that has become its user would never learn that its rules are gone."""
    ready, tell = os.pipe()

    def hears(rules: socket.socket, routing_watch: socket.socket) -> bool:
        forget(rules)
        os.write(tell, b"r")
        heard = bool(select.select([rules], [], [], 10)[0])
        return heard and bool(select.select([routing_watch], [], [], 10)[0])

    with pod.entered(), watch_rules() as rules, watch_routing() as ways:
        changer = os.fork()
        if changer == 0:
            os.read(ready, 1)
            try:
                pod.nft("add table inet relay_sidecar")
                pod.ip("rule add pref 7 fwmark 9 lookup 9", family=6)
            finally:
                os._exit(0)
        assert as_user(hears, rules, ways) == 0
        os.waitpid(changer, 0)
    os.close(ready)
    os.close(tell)


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("rule add pref 100 not fwmark 0xca6c lookup 51820", {"rules.rule_priority"}),  # WireGuard
        ("rule add pref 32765 not fwmark 0xca6c lookup 51820", set()),
        ("rule add pref 100 fwmark 0/0x1 lookup 200", {"rules.mark", "rules.rule_priority"}),
        ("rule add pref 32765 fwmark 0x10/0x10 lookup 200", {"rules.mark"}),
        ("rule add pref 5 from 10.0.0.0/8 lookup 100", {"rules.route_table"}),
    ],
)
def test_a_clash_without_a_common_mark_is_told_too(pod: Namespace, command: str, keys: set[str]) -> None:
    """A VPN's rule would take what is captured before ours has its turn; others' packets would be delivered here."""
    pod.ip(command, family=4)
    assert clashing(pod) == keys


def test_where_ipv6_is_switched_off_no_privilege_is_asked_for() -> None:
    """A user would give a container every capability, and `rules apply` would go on asking for more."""
    namespace = Namespace("v4 only", {"net.ipv6.conf.lo.disable_ipv6": "1"})
    with namespace.entered():
        assert not routes.possible(LocalRoute(socket.AF_INET6, 100))
        assert routes.possible(LocalRoute(socket.AF_INET, 100))
    namespace.close()


def test_a_set_of_others_keeps_the_table(pod: Namespace) -> None:
    """`rules remove` would delete addresses that somebody has collected."""
    pod.nft("table ip nat {\nset theirs {\ntype ipv4_addr;\n}\n}\n")
    alone = pod.nft("list ruleset")
    pod.nft("table ip nat {\n" + BASE.format("PREROUTING", "prerouting", "") + "}\n")
    with pod.entered():
        tables.delete_empty(NFPROTO_IPV4, "nat", ["PREROUTING"], table_too=True)
    assert pod.nft("list ruleset") == alone
