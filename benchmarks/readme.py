"""The figures in README.md: a few rows of the page, from the same run.

Owns: what stands between the two markers, and which rows and peers those are. Never here: a figure that the page has not.
"""

import re
from pathlib import Path

from benchmarks.shown import NONE, number, table
from benchmarks.statistics import Run, summary
from sidecar.errors import Problem, RelayError

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_MARKED = re.compile(f"{BEGIN}\n(.*?){END}", re.S)

ROWS = (  # workload, figure
    ("one connection, as fast as it goes: Gbit/s", "bulk-down-1", "gbit_s"),
    ("the same: relay CPU, s/GB", "bulk-down-1", "cpu_s_per_gb"),
    ("ping-pong of 64 B over 32 connections: relay CPU, µs/request", "pingpong-64-32", "cpu_us_per_request"),
    ("connect, 64 B there and back, close, 64 at a time: relay CPU, µs/connection", "churn-64", "cpu_us_per_connection"),
    ("an idle connection: relay memory, B", "idle-9000", "rss_bytes_per_connection"),
    ("ping-pong of 64 B beside one bulk stream: median time, µs", "beside-bulk", "p50_us"),
)
COLUMNS = {  # by peer; with its version where that is not ours
    "relay-sidecar": "relay-sidecar",
    "haproxy": "HAProxy",
    "haproxy-tuned": "HAProxy, tuned",
    "nginx": "nginx",
    "direct": "no relay",
}


def written(run: Run, readme: Path) -> str:
    """The text of README.md with the figures of this run; one that has lost its markers is not written over."""
    text = readme.read_text()
    if len(_MARKED.findall(text)) != 1:
        found = f"{text.count(BEGIN)} and {text.count(END)} of them"
        raise RelayError(Problem(str(readme), f"{BEGIN} and {END}, once each", found, "put them back"))
    return _MARKED.sub(lambda _: f"{BEGIN}\n{block(run)}\n{END}", text)


def block(run: Run) -> str:
    """A table and what its figures are."""
    peers = [peer for peer in COLUMNS if peer in run.peers and not run.peers[peer].missing]
    rows = [(title, *(_cell(run, workload, peer, figure) for peer in peers)) for title, workload, figure in ROWS]
    lines = table(("", *(_head(run, peer) for peer in peers)), rows)
    what = f"Medians of {run.rounds} rounds in one run, one thread each, behind the same TPROXY rules."
    return "\n".join([*lines, "", f"{what} Tuned: splicing, with larger buffers and pipes."])


def _head(run: Run, peer: str) -> str:
    version = re.match(r"\d+\.\d+", run.peers[peer].version)
    return f"{COLUMNS[peer]} {version.group()}" if version and peer in ("haproxy", "nginx") else COLUMNS[peer]


def _cell(run: Run, workload: str, peer: str, figure: str) -> str:
    found = summary(list(run.values.get((workload, peer, figure), {}).values()))
    return number(found.middle) if found else NONE
