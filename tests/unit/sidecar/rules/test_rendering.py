"""Any valid configuration as text: what may stand in it and what may not. That the kernel takes it, tests/netns shows."""

import itertools
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.errors import BAD_CONFIG, RelayError
from sidecar.rules import iptables, nft
from sidecar.rules.plan import make_plan
from tests.support.rules import configured
from tests.support.toml import to_toml
from tests.unit.sidecar.conftest import Load
from tests.unit.sidecar.rules.choices import GATEWAY, LISTENERS
from tests.unit.sidecar.rules.configurations import MARKS, configurations

LONGEST_COMMENT = 128  # of nft, with its NUL not counted; iptables takes 255
LONGEST_NAME = "n" * 64

many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def lines_of(tables: dict[str, Any]) -> list[str]:
    """Every line that either program would be told."""
    config = configured(tables)
    made = [*nft.render(make_plan(config, "nft")).values(), *iptables.render(make_plan(config, "iptables")).values()]
    return list(itertools.chain.from_iterable(made))


@many
@given(tables=configurations())
def test_comments_are_short_plain_text(tables: dict[str, Any]) -> None:
    """nft refuses a longer comment, and with it all rules; a quote would end it and begin something else."""
    config = configured(tables)
    for backend in ("nft", "iptables"):
        for rule in make_plan(config, backend).rules():
            assert len(rule.why.encode()) <= LONGEST_COMMENT
            assert re.fullmatch(r"[A-Za-z0-9 .,:_-]+", rule.why)


def test_the_longest_name_of_a_listener_fits_into_every_comment() -> None:
    """A long name would be found out by the kernel."""
    for direction, (capture, spoofs) in itertools.product(
        LISTENERS, [("redirect", False), ("tproxy", False), ("tproxy", True)]
    ):
        if direction == "gateway" and capture == "redirect":
            continue
        listener = {**LISTENERS[direction], "name": LONGEST_NAME, "capture": capture}
        listener |= {"preserve_client": True} if spoofs and direction != "outbound" else {}
        config = configured({"rules": {**GATEWAY, "on_failure": "drop"}, "listener": [listener]})
        told = [rule.why for backend in ("nft", "iptables") for rule in make_plan(config, backend).rules()]
        assert any(LONGEST_NAME in why for why in told)
        assert max(map(len, told)) <= LONGEST_COMMENT


@many
@given(tables=configurations())
def test_a_line_is_a_line(tables: dict[str, Any]) -> None:
    """A value that ended its line, or its quotes, would be a rule of its own."""
    for line in lines_of(tables):
        assert line.isprintable() and line.isascii()
        assert line.count('"') % 2 == 0
        assert not set(line) & set("$`\\'#()~")
        assert all(part.strip() == part for part in line.split("; "))


@many
@given(tables=configurations())
def test_multiport_takes_no_more_than_fifteen(tables: dict[str, Any]) -> None:
    """iptables refuses the sixteenth port, and with it all rules."""
    for places in iptables.render(make_plan(configured(tables), "iptables")).values():
        for line in places:
            for listed in re.findall(r"--dports (\S+)", line):
                assert 1 <= len(re.findall(r"\d+", listed)) <= 15


@many
@given(tables=configurations(), other=st.booleans())
def test_a_plan_is_made_from_the_configuration_alone(tables: dict[str, Any], other: bool) -> None:
    """An apply that changes nothing would change something; two plans that differ would have one digest."""
    plan = make_plan(configured(tables), "nft")
    assert make_plan(configured(tables), "nft").digest() == plan.digest()
    changed = {**tables, "rules": {**tables["rules"], "local_mark": free_mark(tables)}}
    again = make_plan(configured(changed), "nft")
    assert (again == plan) == (again.digest() == plan.digest())


def free_mark(tables: dict[str, Any]) -> int:
    taken = {tables["rules"][name] for name in MARKS}
    return next(mark for mark in range(1, len(MARKS) + 2) if mark not in taken)


# What is made to become a rule, or a command, of its own.
INJECTIONS = (
    'eth0"',
    "eth0'",
    'a" drop',
    'x"};{drop',
    "a;drop",
    "a{b}",
    "$(id)",
    "`id`",
    "a\nflush ruleset",
    "a\\",
    "a|b",
    "a b",
    "!eth0",
    "-j",
    "eth+",
    "eth*",
    "#a",
    "a,b",
    "a\0b",
    "é",
    "",
    "; flush ruleset",
    '"; flush ruleset; "',
    "-A INPUT -j DROP",
    "COMMIT\n*filter\n:INPUT DROP [0:0]\nCOMMIT",
)

LISTS = ("inbound_ports", "inbound_exclude_ports", "outbound_ports", "outbound_exclude_ports")
NETS = ("inbound_exclude_cidrs", "outbound_cidrs", "outbound_exclude_cidrs", "gateway_cidrs")
LINKS = ("inbound_exclude_interfaces", "outbound_exclude_interfaces", "gateway_interfaces")
USERS = ("outbound_uids", "outbound_exclude_uids", "outbound_exclude_gids")
WORDS = ("backend", "on_failure", "inbound_ports", "outbound_ports", "outbound_cidrs")
NUMBERS = (*MARKS, "route_table", "rule_priority")
SWITCHES = ("ipv6", "exempt_owner", "only_open_ports", "notrack")


def injected(text: str) -> list[dict[str, Any]]:
    """A configuration for every place of [rules] and of a listener where a string may stand."""
    listener = LISTENERS["inbound"]
    made: list[dict[str, Any]] = [{"rules": {name: [text]}, "listener": [listener]} for name in (*LISTS, *NETS, *LINKS, *USERS)]
    made += [{"rules": {name: text}, "listener": [listener]} for name in (*WORDS, *NUMBERS, *SWITCHES)]
    made.append({"rules": {"outbound_uid_ports": {text: "all"}}, "listener": [listener]})
    made.append({"rules": {"outbound_uid_ports": {"1000": [text]}}, "listener": [listener]})
    made += [{"relay": {name: text}, "listener": [listener]} for name in ("user", "group")]
    for name in ("name", "direction", "capture", "protocol", "port"):
        made.append({"listener": [{**listener, name: text}]})
    for address in (text, f"127.0.0.1{text}", f"fe80::1%{text}"):
        if text:
            made.append({"listener": [{**listener, "capture": "tproxy", "address": address}]})
    return made


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_is_made_to_inject_is_refused(load: Load, text: str) -> None:
    """Whoever may write the configuration may not therefore write any rule, or run any command, as root."""
    for tables in injected(text):
        shown = to_toml(tables)
        if shown in HARMLESS:
            continue
        with pytest.raises(RelayError) as caught:
            make_plan(load(shown), "nft")
        assert caught.value.exit_status == BAD_CONFIG, shown
        assert all(str(problem).isprintable() for problem in caught.value.problems), shown


# A listener may be called so: its name stands in quotes, among other words.
HARMLESS = {to_toml({"listener": [{**LISTENERS["inbound"], "name": "-j"}]})}


def test_every_string_of_the_rules_was_tried() -> None:
    """A key that comes later would be a way in."""
    from sidecar.config.schema import Rules

    tried = {*LISTS, *NETS, *LINKS, *USERS, *WORDS, *NUMBERS, *SWITCHES, "outbound_uid_ports"}
    assert tried == set(Rules.keys)
