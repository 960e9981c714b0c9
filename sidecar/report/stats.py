"""`relay-sidecar stats` for human eyes.

Owns: the page's layout. Never here: a figure that the relay did not send.
"""

from collections.abc import Mapping
from typing import Any

from sidecar.report.tables import aligned, human_bytes, human_time

HEADINGS = ("LISTENER", "DIRECTION", "CAPTURE", "ADDRESSES", "OPENED", "SENT", "RECEIVED", "CLOSED")
FIGURES = ("OPENED", "SENT", "RECEIVED")
ELEMENT_HEADINGS = ("ELEMENT", "CALLS", "IN", "OUT", "TIME", "ERRORS", "OVERRUNS", "RELEASES", "REFUSALS", "STUCK")


def page(stats: Mapping[str, Any]) -> str:
    """State, listeners, elements, then every counter that is not zero."""
    limits = stats["limits"]
    uptime = human_time(int(stats["uptime_s"] * 1000))
    lines = [
        f"relay-sidecar {stats['version']}, pid {stats['pid']}, {stats['state']}, up {uptime}",
        f"live flows: {stats['live']}, of at most {limits['flows']}",
        _rules(stats),
        "",
        aligned(HEADINGS, [_cells(listener) for listener in stats["listeners"]], FIGURES),
    ]
    if stats["elements"]:
        lines += [
            "",
            aligned(ELEMENT_HEADINGS, [_element_cells(element) for element in stats["elements"]], ELEMENT_HEADINGS[1:]),
        ]
    counts = [
        *((name, count) for name, count in stats["counters"].items()),
        *((f"dial error {name}", count) for name, count in stats["dial_errors"].items()),
        ("log_records_dropped", stats["log_records_dropped"]),
    ]
    not_zero = [(name, str(count)) for name, count in counts if count]
    if not_zero:
        lines += ["", aligned(("COUNTER", "COUNT"), not_zero, ("COUNT",))]
    return "\n".join(lines)


def _rules(stats: Mapping[str, Any]) -> str:
    """ "rules: changed by nft (pid 12): inet relay_sidecar: other rules than were applied"."""
    by = f" by {stats['rules_by']}" if stats["rules_by"] and stats["rules"] != "ok" else ""
    return f"rules: {stats['rules']}{by}{': ' + stats['rules_detail'] if stats['rules_detail'] else ''}"


def _element_cells(element: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        element["name"],
        str(element["calls"]),
        human_bytes(element["bytes_in"]),
        human_bytes(element["bytes_out"]),
        human_time(element["time_ms"]),
        *(str(element[name]) for name in ("errors", "overruns", "releases", "refusals", "stuck")),
    )


def _cells(listener: Mapping[str, Any]) -> tuple[str, ...]:
    closed = ", ".join(f"{reason} {count}" for reason, count in listener["closed"].items())
    return (
        *(listener[name] for name in ("name", "direction", "capture")),
        ", ".join(listener["addresses"]),
        str(listener["opened"]),
        human_bytes(listener["bytes_sent"]),
        human_bytes(listener["bytes_received"]),
        closed or "-",
    )
