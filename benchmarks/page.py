"""docs/performance.md with its plots, and the figures in README.md, from one run: `python -m benchmarks.page RUN.json`.

Owns: the page's words, and the files of docs/performance/. What stands between its markers is written by hand, and kept.
Never here: a figure or a verdict of its own (statistics), the drawing (svg).
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import readme
from benchmarks.bars import ASYNCIO_ELEMENT, HIGHER_IS_BETTER, OURS, OURS_2, OURS_ELEMENT, is_ours
from benchmarks.curves import AXES, FLAT_WITHIN, steepness
from benchmarks.curves import judge as flatness
from benchmarks.plots import drawn, families, is_drawn
from benchmarks.shown import NONE, TIMES, family, family_title, figure_title, number, table, workload_title
from benchmarks.statistics import (
    AHEAD,
    BEHIND,
    HOLDS,
    LEVEL,
    NOT_MEASURED,
    Peer,
    Run,
    Verdict,
    judge,
    load,
    of_pairs,
    summary,
    verdicts,
)
from sidecar.errors import USAGE, Problem, RelayError

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
README = PAGE.parents[1] / "README.md"

# What is written by hand, by the name of its marker, and what stands there as long as nobody has written anything.
BY_HAND = {
    "why": "(nothing is written here yet)",
    "tried": "(nothing is written here yet)",
}
_MARKED = re.compile(r"<!-- by hand: (\w+) -->\n(.*?)\n<!-- until here -->", re.S)


def write(run: Run, page: Path = PAGE, beside: Path | None = None) -> list[Path]:
    """The page and its plots, and the figures in a README beside them; the files that were written."""
    kept = _kept(page)
    plots = {f"{name}-{figure}.svg": plot for name, figure, plot in drawn(run)}
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    files = {page: "\n".join(_page(run, kept, folder.name)) + "\n"} | {folder / name: plot for name, plot in plots.items()}
    if beside:
        files[beside] = readme.written(run, beside)
    for path, text in files.items():
        path.write_text(text)
    return list(files)


def _kept(page: Path) -> dict[str, str]:
    """What is written by hand on the page that is there; one that has lost a marker is not written over."""
    if not page.exists():
        return BY_HAND
    found = dict(_MARKED.findall(page.read_text()))
    if set(found) != set(BY_HAND):
        names = " and ".join(f"<!-- by hand: {name} -->" for name in BY_HAND)
        have = ", ".join(found) or "none"
        step = "put them back, each ended by <!-- until here -->, or move the page away"
        raise RelayError(Problem(str(page), f"what is written by hand, between {names} and <!-- until here -->", have, step))
    return found


_MADE = "Made by `python -m benchmarks.page RUN.json` from one run of `pytest benchmarks`, but for what is written by hand."
_MEASURED = """\
- {machine}
- {rounds} rounds. In each, every peer has its turn at every workload, for {seconds:g} s: what slows the machine down for a
  while slows all of them.
- Three network namespaces on two veth pairs: client, gateway, server. Every relay gets its connections by the same TPROXY
  rules, `relay-sidecar-notrack` without conntrack; `direct` is no relay at all. `engine` is our loop with the same
  configuration, and no Python beside it. `-element` asks an element in Python about every piece, which passes it on as it is;
  that of `-released` leaves each flow at its first piece, and the flow goes to a plain worker.
- A figure is the median of its rounds, with the smallest and the largest beside it. A ratio is taken round by round, and has
  an interval of {level:g} %. `{times} 32` is 32 connections at once.
- CPU is what the relay's own threads ran, in user space and in the kernel.
- In bulk, whoever reads at an end throws the bytes away without copying them (MSG_TRUNC), so that the ends are not the limit.
  A program that reads them gets about half of what `direct` shows.
"""
_FLAT = "By the line nearest to its points; *flat* has all of the interval within {within:g} % of 1."
_NOTES = {
    "churn": "`relay-sidecar-log` writes a record of each connection to a file; the others of ours write none.",
    "open": "32 of the connections carry requests; the others have carried one, and are silent.",
    "size": "A connection's beginning and end are in it: the less it carries, the more of the figure they are.",
    "syscalls": """\
Counted by strace in two loads, a short one and a longer one; the figure is of what the second did more. No time was taken
meanwhile. strace slows a relay down: among many connections it finds more of them ready at once, and asks less often, than
when nobody counts. One connection alone shows what a request takes.""",
    "sidecar": """\
As in a pod: the client is beside the relay, and our outbound rules bring its connections there, but for those of the relay's
own user; our listener is `outbound`, and all else is as configured below. The server is in another namespace. `direct` has no
rules.""",
    "program": """\
wrk asks nginx for 1,000 B, over connections that stay or by one connection for each request. redis-benchmark sends one GET on
each connection and waits, or 16. iperf3 copies what it reads.""",
}
_VERDICTS = """\
Ratios are ours to the best of the peers that the bar names. *Ahead*: all of the interval beats the bar, and the peer. *Holds*:
the interval contains the bar, or beats the bar but not the peer. *Behind*: all of it misses the bar.
"""


def _page(run: Run, kept: dict[str, str], folder: str) -> Iterator[str]:
    found = verdicts(run)
    yield from (
        "# Performance",
        "",
        _MADE,
        "",
        _MEASURED.format(
            machine=", ".join(_machine(run)), rounds=run.rounds, seconds=run.seconds, level=LEVEL * 100, times=TIMES
        ),
        "## Peers",
        "",
        *table(("peer", "version"), [(name, _version(peer)) for name, peer in {**run.peers, **run.programs}.items()]),
        "",
        "## What is to be reached, and what is",
        "",
        _VERDICTS,
        _counts(found),
        "",
        *table(("what", "workload", "bar", "found", "to", "verdict", "stretch", ""), map(_verdict_row, found)),
        "",
        "## Where a peer is ahead",
        "",
        *_ahead(run),
        "",
        *_by_hand("why", kept),
    )
    for name in dict.fromkeys(map(family, run.workloads)):
        yield from _family(run, name, folder)
    yield from ("", "## What was tried and did not pay", "", *_by_hand("tried", kept), "", "## Configurations")
    for name, peer in {**run.peers, **run.programs}.items():
        if peer.configuration.strip() and not peer.missing:
            yield from ("", f"{name}:", "", "```text", *peer.configuration.strip().splitlines(), "```")


def _by_hand(name: str, kept: dict[str, str]) -> tuple[str, str, str]:
    return f"<!-- by hand: {name} -->", kept[name], "<!-- until here -->"


_MACHINE = {
    "cpus": "{} CPUs",
    "model": "{}",
    "memory_gib": "{} GiB",
    "kernel": "Linux {}",
    "python": "Python {}",
    "congestion": "TCP {}",
}


def _machine(run: Run) -> list[str]:
    told = [form.format(run.machine[key]) for key, form in _MACHINE.items() if run.machine.get(key)]
    return told + [f"{key} {value}" for key, value in run.machine.items() if key not in _MACHINE]


def _version(peer: Peer) -> str:
    return f"not measured: {peer.missing}" if peer.missing else peer.version or NONE


_REACHED = {AHEAD: "reached", HOLDS: "within the interval", BEHIND: "not yet", NOT_MEASURED: ""}


def _counts(found: Sequence[Verdict]) -> str:
    kinds = [verdict.verdict for verdict in found]
    return ", ".join(f"{kind}: {kinds.count(kind)}" for kind in (AHEAD, HOLDS, BEHIND, NOT_MEASURED)) + "."


def _verdict_row(found: Verdict) -> tuple[str, ...]:
    bar = found.bar
    sign = "≥" if bar.higher else "≤"
    stretch = NONE if bar.stretch is None else f"{sign} {bar.stretch:g}"
    first = (bar.title, workload_title(found.workload), f"{sign} {bar.bar:g}")
    if found.interval is None:
        return (*first, NONE, found.why, NOT_MEASURED, stretch, "")
    verdict = f"**{BEHIND}**" if found.verdict == BEHIND else found.verdict
    return (*first, _between(*found.interval), found.peer or NONE, verdict, stretch, _REACHED[found.stretch])


def _between(low: float, middle: float, high: float) -> str:
    return f"{number(middle)} ({number(low)} to {number(high)})"


# Where a peer is ahead: at every figure, also those that no bar asks for.


def _ahead(run: Run) -> list[str]:
    rows, judged = [], 0
    for workload in run.workloads:
        for figure in run.figures(workload):
            for ours, theirs in _rivals(run, workload, figure):
                interval = of_pairs(run.ratios(workload, figure, ours, theirs))
                judged += interval is not None
                if interval and judge(interval, 1.0, figure in HIGHER_IS_BETTER) == BEHIND:
                    found = _between(*interval)
                    rows.append((theirs, family_title(family(workload)), workload_title(workload), figure_title(figure), found))
    if not judged:
        return ["There were too few rounds, or too few peers, to tell."]
    if not rows:
        return [f"Nowhere: in {judged} comparisons of a figure with a peer's, we are ahead, or nobody is."]
    said = f"In {len(rows)} of {judged} comparisons of a figure with a peer's; the ratio is ours to theirs."
    return [said, "", *table(("peer", "doing", "workload", "figure", "ratio"), rows)]


def _rivals(run: Run, workload: str, figure: str) -> list[tuple[str, str]]:
    """One thread beside one, two beside two, an element beside an element; `direct` is no relay."""
    names = [name for name in run.measured(workload, figure) if name != "direct" and not is_ours(name)]
    return [(OURS_ELEMENT if name == ASYNCIO_ELEMENT else OURS_2 if name.endswith("-2") else OURS, name) for name in names]


# The figures of a family, as tables and as plots.


def _family(run: Run, name: str, folder: str) -> Iterator[str]:
    workloads, figures = families(run)[name]
    yield from ("", f"## {family_title(name)}")
    for figure in figures:
        title = figure_title(figure)
        if is_drawn(name, figure):
            yield from ("", f"![{family_title(name)}: {title}]({folder}/{name}-{figure}.svg)")
        columns = [workload for workload in workloads if run.measured(workload, figure)]
        peers = [peer for peer in run.peers if any(peer in run.measured(workload, figure) for workload in columns)]
        rows = [(peer, *(_cell(run, workload, peer, figure) for workload in columns)) for peer in peers]
        yield from ("", *table((title, *map(workload_title, columns)), rows))
        if name in AXES and figure.startswith("cpu"):
            yield from ("", *_steepness(run, name, columns, figure))
    if name in _NOTES:
        yield from ("", _NOTES[name])


def _steepness(run: Run, name: str, workloads: Sequence[str], figure: str) -> list[str]:
    """Whether it costs more to carry more."""
    found = {peer: steepness(run, workloads, peer, figure) for peer in run.measured(workloads[0], figure)}
    told = [f"{peer} {_between(*each)}, {flatness(each)}" for peer, each in found.items() if each]
    if not told:
        return ["There were too few rounds, or too few points, to tell whether it is flat."]
    return [f"Ten times as many {AXES[name]} multiply it by: {'; '.join(told)}.", _FLAT.format(within=FLAT_WITHIN * 100)]


def _cell(run: Run, workload: str, peer: str, figure: str) -> str:
    found = summary(list(run.values.get((workload, peer, figure), {}).values()))
    return _between(found.low, found.middle, found.high) if found else NONE


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="page", description="Write docs/performance.md, its plots and README's figures.")
    parser.add_argument("run", type=Path, metavar="RUN.json")
    parser.add_argument("--page", type=Path, default=PAGE, help="another page than docs/performance.md; its plots go beside it")
    parser.add_argument("--readme", type=Path, help="whose figures to write too (default: README.md, without --page)")
    options = parser.parse_args(arguments)
    try:
        written = write(load(options.run), options.page, options.readme or (README if options.page == PAGE else None))
    except RelayError as error:
        sys.stderr.write(f"page: {error}\n")
        return USAGE
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
