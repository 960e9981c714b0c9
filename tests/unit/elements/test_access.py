"""Access: who may connect to what, and when."""

import calendar
from typing import Any

import pytest

from relaycore.elements.access import Access, Rules
from relaycore.options import OptionError, Options, configured
from relaycore.testing import Drive
from tests.unit.elements.hellos import EVASIVE, hello

FRIDAY_NOON = calendar.timegm((2026, 11, 27, 12, 0, 0))
HOUR = 3600


def drive(now: float = FRIDAY_NOON, **options: Any) -> Drive:
    """A flow of 192.0.2.1 to 198.51.100.1:80 under these rules."""
    rules: Rules = configured(Access, Options({"utc": True, **options}))
    return Drive(Access, shared=[rules._replace(now=lambda: now)])


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        ({}, True),
        ({"clients": ["192.0.2.0/24"]}, True),
        ({"clients": ["10.0.0.0/8", "192.0.2.1"]}, True),
        ({"clients": ["10.0.0.0/8", "2001:db8::/32"]}, False),
        ({"origins": ["198.51.100.1"]}, True),
        ({"origins": ["198.51.100.2"]}, False),
        ({"ports": [443, "70-90"]}, True),
        ({"ports": [443, "81-90"]}, False),
        ({"clients": ["192.0.2.1"], "ports": [443]}, False),
        ({"hours": "11:59-12:01"}, True),
        ({"hours": "12:01-11:59"}, False),
        ({"hours": "22:00-13:00"}, True),
        ({"days": ["fri"]}, True),
        ({"days": ["sat", "sun"]}, False),
        ({"days": ["thu"], "hours": "22:00-13:00"}, True),
    ],
)
def test_a_rule_matches_when_all_that_it_names_does(rule: dict[str, Any], refused: bool) -> None:
    """Somebody would get in who must not, or be kept out who may; of deny and of allow alike."""
    assert drive(deny=[rule]).outcome == ("rejected" if refused else "on")
    assert drive(allow=[rule]).outcome == ("on" if refused else "rejected")


def test_deny_comes_before_allow() -> None:
    """An exception to a permission could not be written."""
    assert drive(allow=[{"ports": [80]}], deny=[{"clients": ["192.0.2.1"]}]).outcome == "rejected"
    assert drive(allow=[{"ports": [80]}], deny=[{"clients": ["192.0.2.2"]}]).outcome == "on"


def test_who_is_let_in_by_address_is_not_looked_at_any_more() -> None:
    """Every allowed flow would go through Python to its end."""
    assert drive(deny=[{"ports": [443]}]).released


def test_shadow_only_says_what_it_would_do() -> None:
    """Rules could not be tried before they are in force."""
    tried = drive(deny=[{}], shadow=True)
    assert (tried.outcome, tried.released) == ("on", True)
    assert tried.labels == {"access": "would deny", "access_rule": "deny[0]"}


@pytest.mark.parametrize(
    ("names", "refused"),
    [(["www.example.org"], True), (["*.example.org"], True), (["example.org"], False), (["*.org"], True), (["*.net"], False)],
)
def test_a_name_decides_once_it_is_known(names: list[str], refused: bool) -> None:
    """A ClientHello would reach an origin that its client must not talk to, or wait for ever."""
    flight = hello("WWW.example.org")
    tried = drive(deny=[{"sni": names}])
    assert tried.outcome == "on", "the name is not known yet"
    assert tried.request(flight[:100]) == b""
    if refused:
        assert tried.request(flight[100:]) == b""
        assert tried.outcome == "rejected"
        assert tried.labels["access_rule"] == "deny[0]"
    else:
        assert tried.request(flight[100:]) == flight
        assert tried.released


def test_without_a_name_no_rule_with_names_matches() -> None:
    """What is no TLS would be refused by a list of names, or pass a list of names that are allowed."""
    tried = drive(deny=[{"sni": ["*"]}])
    assert tried.request(b"GET / HTTP/1.1\r\n") == b"GET / HTTP/1.1\r\n"
    tried = drive(allow=[{"sni": ["*"]}])
    assert tried.request(b"GET / HTTP/1.1\r\n") == b""
    assert tried.outcome == "rejected"
    tried = drive(allow=[{"sni": ["*"]}])
    assert tried.request(hello("a")[:20], ends=True) == b""
    assert tried.outcome == "rejected"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"deny": [{"clients": ["x"]}]}, "deny[0].clients[0]"),
        ({"deny": [{}, {"ports": ["9-1"]}]}, "deny[1].ports[0]"),
        ({"allow": [{"hours": "25:00-26:00"}]}, "allow[0].hours"),
        ({"allow": [{"days": ["someday"]}]}, "allow[0].days[0]"),
        ({"allow": [{"sni": ["a b"]}]}, "allow[0].sni[0]"),
        ({"allow": [{"prots": [1]}]}, "allow[0].prots"),
        ({"allow": [5]}, "allow[0]"),
    ],
)
def test_what_does_not_fit_is_told_by_its_place(options: dict[str, Any], where: str) -> None:
    """Of forty rules somebody would have to find the one that is wrong."""
    with pytest.raises(OptionError) as caught:
        configured(Access, Options(options))
    assert caught.value.where == where


@pytest.mark.parametrize("how", EVASIVE)
def test_a_hello_that_is_written_oddly(how: str) -> None:
    """A denied name would be reached by who knows how to spell it."""
    flow = Drive(Access, options={"deny": [{"sni": ["*.org"]}]})
    for at in range(0, len(EVASIVE[how]), 1000):
        if flow.outcome == "on":
            assert flow.request(EVASIVE[how][at : at + 1000]) == b""
    assert flow.outcome == "rejected"
