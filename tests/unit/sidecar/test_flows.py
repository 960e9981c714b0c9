"""sidecar.report.flows, tables and stats: what is chosen, and how a human reads it."""

from typing import Any

import pytest

from relaycore import DIRECTIONS, LANES, PHASES
from sidecar.errors import RelayError
from sidecar.report.flows import MOST_ROWS, VALUES, Query, parse_query, select, table
from sidecar.report.stats import page
from sidecar.report.tables import human_bytes, human_time

ROW: dict[str, Any] = {
    "flow": 1,
    "listener": "outbound",
    "direction": "outbound",
    "worker": 0,
    "phase": "relaying",
    "lane": "copy",
    "client": "10.0.0.1:50000",
    "origin": "[fd00::1]:443",
    "bytes_sent": 10,
    "bytes_received": 1536,
    "pending_sent": 0,
    "pending_received": 0,
    "age_ms": 5_000,
    "idle_ms": 250,
    "connect_ms": 0.5,
    "half_closed": None,
}


def test_the_values_that_help_lists_are_the_engines() -> None:
    """`flows --phase` would refuse a phase that flows are in."""
    assert {"direction": DIRECTIONS, "phase": PHASES, "lane": LANES} == VALUES


def row(flow: int, **fields: object) -> dict[str, Any]:
    return {**ROW, "flow": flow, **fields}


ROWS = [
    row(1),
    row(2, listener="inbound", direction="inbound", age_ms=9_000, bytes_sent=2, client="10.0.0.2:1"),
    row(3, age_ms=1_000, bytes_received=10**9, idle_ms=900, lane="splice", pending_sent=3, pending_received=4),
    row(4, age_ms=2_000, origin=None, phase="dialling", client="10.0.0.20:9"),
]


@pytest.mark.parametrize(
    ("query", "flows"),
    [
        ({}, [2, 1, 4, 3]),
        ({"sort": "bytes"}, [3, 1, 4, 2]),
        ({"sort": "idle"}, [3, 1, 2, 4]),
        ({"sort": "pending"}, [3, 1, 2, 4]),
        ({"listener": "inbound"}, [2]),
        ({"direction": "outbound", "lane": "copy"}, [1, 4]),
        ({"client": "10.0.0.2:"}, [2]),
        ({"client": "10.0.0.2"}, [2, 4]),
        ({"origin": "[fd00::1]:"}, [2, 1, 3]),
        ({"phase": "dialling"}, [4]),
        ({"lane": "element"}, []),
    ],
)
def test_rows_are_filtered_and_sorted(query: dict[str, object], flows: list[int]) -> None:
    """Of nine thousand flows a user would not see the one that he asks for."""
    assert [row["flow"] for row in select(ROWS, parse_query(query))] == flows


@pytest.mark.parametrize(
    "query", [{"sort": "colour"}, {"limit": -1}, {"limit": MOST_ROWS + 1}, {"limit": "1"}, {"bogus": "x"}, {"lane": 1}]
)
def test_a_query_that_means_nothing_is_told(query: dict[str, object]) -> None:
    """A typing error would list all flows, or end the relay."""
    with pytest.raises(RelayError) as caught:
        parse_query(query)
    assert caught.value.exit_status == 2
    assert next(iter(query)) in str(caught.value)


def test_a_query_without_anything_has_defaults() -> None:
    """`flows` would print nine thousand lines."""
    assert parse_query({}) == Query("age", 100, {})


def test_the_table_is_aligned() -> None:
    """Figures of different lines could not be compared by eye."""
    assert table(ROWS[:1] + ROWS[2:]).splitlines() == [
        "FLOW  LISTENER  PHASE     LANE    CLIENT          ORIGIN         SENT   RECEIVED  PENDING  AGE   IDLE",
        "   1  outbound  relaying  copy    10.0.0.1:50000  [fd00::1]:443  10 B    1.5 KiB      0 B   5s  250ms",
        "   3  outbound  relaying  splice  10.0.0.1:50000  [fd00::1]:443  10 B  953.7 MiB      7 B   1s  900ms",
        "   4  outbound  dialling  copy    10.0.0.20:9     -              10 B    1.5 KiB      0 B   2s  250ms",
    ]


def test_figures_are_short() -> None:
    """A column would be too wide to read."""
    assert [human_bytes(number) for number in (0, 1023, 1024, 10**7, 10**12, 10**16)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "9.5 MiB",
        "931.3 GiB",
        "9094.9 TiB",
    ]
    assert [human_time(number) for number in (0, 999, 1999, 3_600_000)] == ["0s", "999ms", "1s", "1h"]


def test_the_stats_page_shows_what_counts() -> None:
    """A limit that was hit would be hidden among zeros."""
    listener = {"name": "in", "direction": "inbound", "capture": "redirect", "addresses": ["0.0.0.0:1", "[::]:1"]}
    stats = {
        "version": "1.2.3",
        "pid": 7,
        "state": "ready",
        "uptime_s": 3661.5,
        "limits": {"flows": 9000},
        "rules": "changed",
        "rules_by": "nft (pid 7)",
        "rules_detail": "inet relay_sidecar: other rules than were applied",
        "live": 2,
        "listeners": [
            {**listener, "opened": 5, "bytes_sent": 1024, "bytes_received": 0, "closed": {"finished": 2, "refused": 1}}
        ],
        "elements": [
            {
                "name": "shout",
                **{"calls": 7, "bytes_in": 10, "bytes_out": 2048, "errors": 1, "overruns": 0, "releases": 2, "refusals": 3},
                **{"stuck": 0, "gil_held": 0, "time_ms": 12},
            }
        ],
        "counters": {"accept_pauses": 0, "files_limited": 12},
        "dial_errors": {"ECONNREFUSED": 1},
        "log_records_dropped": 3,
    }
    assert page(stats).splitlines() == [
        "relay-sidecar 1.2.3, pid 7, ready, up 1h1m1s",
        "live flows: 2, of at most 9000",
        "rules: changed by nft (pid 7): inet relay_sidecar: other rules than were applied",
        "",
        "LISTENER  DIRECTION  CAPTURE   ADDRESSES          OPENED     SENT  RECEIVED  CLOSED",
        "in        inbound    redirect  0.0.0.0:1, [::]:1       5  1.0 KiB       0 B  finished 2, refused 1",
        "",
        "ELEMENT  CALLS    IN      OUT  TIME  ERRORS  OVERRUNS  RELEASES  REFUSALS  STUCK",
        "shout        7  10 B  2.0 KiB  12ms       1         0         2         3      0",
        "",
        "COUNTER                  COUNT",
        "files_limited               12",
        "dial error ECONNREFUSED      1",
        "log_records_dropped          3",
    ]
