"""Live flows as rows: which ones are asked for, in which order, and how a human reads them.

Owns: the columns, the orders and the filters of `relay-sidecar flows`; the relay selects with it, the command prints with it.
Never here: the engine's types (proxy.facts makes the rows), a byte of what flows carry.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sidecar.errors import USAGE, Problem, RelayError
from sidecar.report.tables import aligned, human_bytes, human_time

Row = Mapping[str, object]

MOST_ROWS = 10_000  # in one answer: about 4 MB; a client that does not read holds no more

# How rows are sorted, what is greatest first.
ORDERS: Mapping[str, Callable[[Row], int]] = {
    "age": lambda row: _count(row, "age_ms"),
    "idle": lambda row: _count(row, "idle_ms"),
    "bytes": lambda row: _count(row, "bytes_sent") + _count(row, "bytes_received"),
    "pending": lambda row: _count(row, "pending_sent") + _count(row, "pending_received"),
}
# Fields that must be equal, and fields that must begin with what is asked for: "10.0.0." or "[fd00::2]:".
EQUAL = ("listener", "direction", "phase", "lane")
BEGINNING = ("client", "origin")
# The values of fields that have few.
VALUES: Mapping[str, Sequence[str]] = {
    "direction": ("outbound", "inbound", "gateway"),
    "phase": ("dialling", "relaying", "closed"),
    "lane": ("copy", "splice", "element"),
}

HEADINGS = ("FLOW", "LISTENER", "PHASE", "LANE", "CLIENT", "ORIGIN", "SENT", "RECEIVED", "PENDING", "AGE", "IDLE")
FIGURES = ("FLOW", "SENT", "RECEIVED", "PENDING", "AGE", "IDLE")


class Query(NamedTuple):
    """Which rows, and in which order."""

    sort: str = "age"
    limit: int = 100
    filters: Mapping[str, str] = {}


def parse_query(arguments: Mapping[str, object]) -> Query:
    """A query from a client's request; RelayError (2) names what it does not understand."""
    filters = {}
    sort, limit = "age", 100
    for name, value in arguments.items():
        if name == "sort" and isinstance(value, str) and value in ORDERS:
            sort = value
        elif name == "limit" and isinstance(value, int) and 0 <= value <= MOST_ROWS:
            limit = value
        elif name in (*EQUAL, *BEGINNING) and isinstance(value, str):
            filters[name] = value
        else:
            expected = f"sort ({', '.join(ORDERS)}), limit (up to {MOST_ROWS}), {', '.join((*EQUAL, *BEGINNING))}"
            raise RelayError(Problem(f"flows: {name}", expected, repr(value)), exit_status=USAGE)
    return Query(sort, limit, filters)


def select(rows: Sequence[Row], query: Query) -> list[Row]:
    """All rows that pass the filters, greatest first; the caller cuts at the limit, and tells how many there were."""
    passing = [
        row
        for row in rows
        if all(row[name] == query.filters[name] for name in EQUAL if name in query.filters)
        and all(str(row[name] or "").startswith(query.filters[name]) for name in BEGINNING if name in query.filters)
    ]
    return sorted(passing, key=ORDERS[query.sort], reverse=True)


def table(rows: Sequence[Row]) -> str:
    """One line per flow, under headings."""
    return aligned(HEADINGS, [_cells(row) for row in rows], FIGURES)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        str(row["flow"]),
        *(str(row[name] or "-") for name in ("listener", "phase", "lane", "client", "origin")),
        human_bytes(_count(row, "bytes_sent")),
        human_bytes(_count(row, "bytes_received")),
        human_bytes(_count(row, "pending_sent") + _count(row, "pending_received")),
        human_time(_count(row, "age_ms")),
        human_time(_count(row, "idle_ms")),
    )


def _count(row: Row, name: str) -> int:
    value = row[name]
    return value if isinstance(value, int) else 0
