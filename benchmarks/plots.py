"""What is drawn of a run: bars for each family, and a line where its workloads are points of one.

Owns: which figures are drawn, in how many columns. Never here: the drawing itself (svg), words of the page (page).
"""

from collections.abc import Iterator, Sequence

from benchmarks import svg
from benchmarks.bars import HIGHER_IS_BETTER, is_ours
from benchmarks.curves import AXES, place
from benchmarks.shown import family, family_title, figure_title, workload_title
from benchmarks.statistics import Run, summary

_RATES = ("gbit_s", "cpu_s_per_gb", "requests_s", "cpu_us_per_request", "connections_s", "cpu_us_per_connection")
# Without an entry every figure is drawn. Times of a closed loop say what its throughput says.
_DRAWN = {
    "bulk": ("gbit_s", "cpu_s_per_gb"),
    "pingpong": ("requests_s", "cpu_us_per_request"),
    "churn": ("connections_s", "cpu_us_per_connection"),
    "sidecar": _RATES,
    "program": _RATES,
}
_COLUMNS = {"bulk": 2, "pingpong": 3}


def families(run: Run) -> dict[str, tuple[list[str], list[str]]]:
    """The workloads of each, and their figures."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for workload in run.workloads:
        workloads, figures = found.setdefault(family(workload), ([], []))
        workloads.append(workload)
        figures += [figure for figure in run.figures(workload) if figure not in figures]
    return found


def is_drawn(name: str, figure: str) -> bool:
    return name not in _DRAWN or figure in _DRAWN[name]


def drawn(run: Run) -> Iterator[tuple[str, str, str]]:
    """Family, figure and SVG of each plot."""
    for name, (workloads, figures) in families(run).items():
        for figure in figures:
            if not is_drawn(name, figure):
                continue
            shown = [workload for workload in workloads if run.measured(workload, figure)]
            peers = [peer for peer in run.peers if any(peer in run.measured(workload, figure) for workload in shown)]
            better = "more" if figure in HIGHER_IS_BETTER else "less"
            note = f"{figure_title(figure)}; {better} is better. Median of {run.rounds} rounds, and the smallest and largest."
            yield name, figure, _plot(run, name, figure, note, shown, peers)


def _plot(run: Run, name: str, figure: str, note: str, workloads: Sequence[str], peers: Sequence[str]) -> str:
    title = family_title(name)
    if name not in AXES:
        panels = [svg.Panel(workload_title(each), [_mark(run, each, peer, figure) for peer in peers]) for each in workloads]
        return svg.plot(title, note, panels, _COLUMNS.get(name, 2))
    ticks = [svg.Tick(place(each), workload_title(each)) for each in workloads]
    return svg.lines(title, note, AXES[name], ticks, [[_mark(run, each, peer, figure) for each in workloads] for peer in peers])


def _mark(run: Run, workload: str, peer: str, figure: str) -> svg.Mark:
    found = summary(list(run.values.get((workload, peer, figure), {}).values()))
    kind = "direct" if peer == "direct" else "ours" if is_ours(peer) else "peer"
    return svg.Mark(peer, kind, found.middle, found.low, found.high) if found else svg.Mark(peer, kind, None)
