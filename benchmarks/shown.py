"""How figures, workloads and peers are shown, the same in the table of a comparison, on the page and in its plots.

Owns: names, units, the number of digits, the family of a workload.
Never here: what a figure means (statistics).
"""

import math
from collections.abc import Collection, Iterable, Sequence

TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "\N{EN DASH}"

_FIGURES = {
    "gbit_s": "Gbit/s",
    "cpu_s_per_gb": "relay CPU, s/GB",
    "requests_s": "requests/s",
    "cpu_us_per_request": "relay CPU, µs/request",
    "connections_s": "connections/s",
    "cpu_us_per_connection": "relay CPU, µs/connection",
    "p50_us": "median time, µs",
    "p99_us": "99th percentile, µs",
    "stream_gbit_s": "the stream beside it, Gbit/s",
    "rss_bytes_per_connection": "relay memory, B/connection",
    "syscalls_per_request": "system calls/request",
    "syscalls_per_connection": "system calls/connection",
    "syscalls_per_mb": "system calls/MB",
    "start_ms": "start to listening, ms",
    "rss_mb": "relay memory, MB",
    "records_lost": "records that its log lost",
}
_FAMILIES = {
    "bulk": "One direction, as fast as it goes",
    "pingpong": "Ping-pong: a request, its answer, the next",
    "churn": "Connect, 64 B there and back, close",
    "idle": "Idle connections",
    "beside": "Ping-pong of 64 B, while one bulk stream runs",
    "open": "Ping-pong of 64 B over 32 connections, while others are open and idle",
    "size": "One connection, by how much it carries",
    "syscalls": "System calls",
    "start": "Start",
    "process": "The whole process, idle",
    "program": "Programs as people run them",
    "sidecar": "Beside the client, in one namespace",
}
_PROGRAMS = {
    "wrk": f"nginx: GET {TIMES} 32",
    "wrk-close": f"nginx: GET, close {TIMES} 32",
    "redis": f"redis: GET {TIMES} 32",
    "redis-16": f"redis: 16 GET at once {TIMES} 32",
    "iperf3-1": f"iperf3: down {TIMES} 1",
    "iperf3-8": f"iperf3: down {TIMES} 8",
}


def figure_title(figure: str) -> str:
    """With its unit; one that is new is shown by its own name."""
    return _FIGURES.get(figure, figure)


def family(workload: str) -> str:
    """`pingpong` of `pingpong-64-32`."""
    return workload.partition("-")[0]


def family_title(name: str) -> str:
    return _FAMILIES.get(name, name)


def workload_title(workload: str) -> str:
    """What its name stands for: 64 B, over 32 connections."""
    kind, _, rest = workload.partition("-")
    if kind == "program":
        return _PROGRAMS.get(rest, workload)
    if kind in ("sidecar", "syscalls"):  # of workloads of several families, side by side
        return f"connect, close {workload_title(rest)}" if family(rest) == "churn" else workload_title(rest)
    parts = rest.split("-") if rest else []
    if kind == "bulk" and len(parts) == 2:
        return f"{parts[0]} {TIMES} {parts[1]}"
    if kind == "pingpong" and len(parts) == 2 and parts[0].isdigit():
        size = int(parts[0])
        return f"{size // 1024} KB {TIMES} {parts[1]}" if size >= 1024 else f"{size} B {TIMES} {parts[1]}"
    if kind == "beside":
        return f"64 B {TIMES} 1"
    if kind in ("open", "size") and len(parts) == 1 and parts[0].isdigit():
        count = int(parts[0])
        return f"{count:,} open" if kind == "open" else f"{count // 1000} GB" if count >= 1000 else f"{count} MB"
    if kind in ("churn", "idle") and len(parts) == 1:
        return f"{TIMES} {int(parts[0]):,}" if parts[0].isdigit() else workload
    return workload


def number(value: float) -> str:
    """Three digits, as many as the noise leaves."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    if digits > 0 and abs(rounded) >= 10 ** (3 - digits):  # 9.996 became 10.0
        digits -= 1
    return f"{rounded:,.{max(digits, 0)}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table for a page."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def aligned(lines: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """A table for a terminal; numbers stand at the right of their columns, those of `left` at the left."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    sides = [str.ljust if place in left else str.rjust for place in range(len(widths))]
    return ["  ".join(side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)) for line in lines]
