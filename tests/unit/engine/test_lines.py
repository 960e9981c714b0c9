"""Finished flows as lines of the log: the values, as Python itself would write them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore import _probe
from sidecar.report.records import JSON, MARKS, TEXT, Form, Spelling, timestamp

NAMES = ("flow", "client", "origin", "sent", "received", "duration", "connect", "lane", "reason", "error")
FAR = 2**62  # nanoseconds

ports = st.integers(0, 65535)
hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None)).map(str)


def form(spelling: Spelling) -> Form:
    """As Report makes it."""
    line = spelling.line(0, "info", "access", dict(zip(NAMES, MARKS, strict=True)))
    pieces = []
    for mark in (timestamp(0), *map(str, MARKS)):
        piece, _, line = line.partition(mark)
        pieces.append(piece.encode())
    return Form((*pieces, line.encode()), spelling.null, spelling.quote, spelling.before, spelling.after)


def spelt(address: tuple[str, int]) -> str:
    host, port = _probe.address(*address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@given(
    flow=st.integers(0, 2**64 - 1),
    client=st.tuples(hosts, ports),
    origin=st.none() | st.tuples(hosts, ports),
    moved=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    times=st.lists(st.integers(1, FAR), min_size=3, max_size=3).map(sorted),
    connected=st.booleans(),
    error=st.none() | st.just(b"ECONNRESET"),
)
def test_a_line_says_what_python_would(
    flow: int, client: Any, origin: Any, moved: Any, times: Any, connected: bool, error: Any
) -> None:
    """Every dashboard that reads the log would be told something else than what happened."""
    started, middle, ended = times
    values = (
        flow,
        *client,
        origin,
        *moved,
        started,
        middle if connected else 0,
        ended,
        5,
        b"splice",
        b"reset_by_origin",
        error,
    )
    record = json.loads(_probe.line(form(JSON), *values))
    assert record["time"] == timestamp(ended + 5)
    assert (record["flow"], record["sent"], record["received"]) == (flow, *moved)
    assert record["client"] == spelt(client)
    assert record["origin"] == (spelt(origin) if origin else None)
    assert (record["lane"], record["reason"]) == ("splice", "reset_by_origin")
    assert record["error"] == (error.decode() if error else None)
    assert record["duration"] == pytest.approx((ended - started) / 1e6, rel=1e-12, abs=0.000_501)
    if connected:
        assert record["connect"] == pytest.approx((middle - started) / 1e6, rel=1e-12, abs=0.000_501)
    else:
        assert record["connect"] is None


@pytest.mark.parametrize(
    ("ns", "words"),
    [(0, "0.0"), (499, "0.0"), (500, "0.001"), (250_000, "0.25"), (1_000_000, "1.0"), (12_340_000_000, "12340.0")],
)
def test_milliseconds_have_no_more_digits_than_they_need(ns: int, words: str) -> None:
    """Logs would be read by who cannot tell 0.250 from 0.25."""
    values = (1, "10.0.0.1", 2, ("fe80::1%3", 80), 0, 0, 1, 0, 1 + ns, 0, b"copy", b"refused", b"ECONNREFUSED")
    line = _probe.line(form(TEXT), *values)
    assert line.decode() == (
        f"{timestamp(1 + ns)} info  access  flow=1 client=10.0.0.1:2 origin=[fe80::1%3]:80 sent=0 received=0 "
        f"duration={words} connect=- lane=copy reason=refused error=ECONNREFUSED\n"
    )


def test_what_elements_said_comes_last() -> None:
    """A label would be lost, or the record be no JSON any more."""
    values = (
        1,
        "10.0.0.1",
        2,
        None,
        0,
        0,
        1,
        0,
        2,
        0,
        b"element",
        b"rejected",
        None,
        b'"element": "x", "labels": {"sni": "a"}',
    )
    record = json.loads(_probe.line(form(JSON), *values))
    assert list(record)[-3:] == ["error", "element", "labels"]
    assert record["labels"] == {"sni": "a"}
    text = _probe.line(form(TEXT), *values).decode()
    assert text.endswith(' error=- elements={"element": "x", "labels": {"sni": "a"}}\n')


@pytest.mark.parametrize(
    "spoilt",
    [
        Form((b"",) * 11, b"", b"", b"", b""),
        Form((b"x" * 4000, *(b"",) * 11), b"", b"", b"", b""),
        Form((b"",) * 12, b"", b"", b"x" * 2000, b"x" * 2000),
        Form((b"",) * 12, b"x" * 9, b"", b"", b""),
        Form((b"",) * 12, b"", b"''", b"", b""),
    ],
)
def test_a_form_that_would_leave_no_room_is_refused(spoilt: Form) -> None:
    """A line would be written over the end of its buffer."""
    with pytest.raises(ValueError, match=r"^Form: "):
        _probe.line(spoilt, 1, "10.0.0.1", 2, None, 0, 0, 1, 0, 2, 0, b"copy", b"refused", None)
