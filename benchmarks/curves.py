"""What it costs to carry more, of connections or of bytes: families whose workloads are points of one line.

Owns: where a workload stands on its line, how steep the line is, and what is called flat.
Never here: words for a page (page), the drawing (svg).

How steep: by how much the figure is multiplied when there is ten times as much to carry, from the straight line that is nearest
to the points of one round on logarithmic scales; its interval is that of the rounds. 1 is flat.
"""

import math
from collections.abc import Sequence

from benchmarks.statistics import Interval, Run, of_pairs

AXES = {"open": "open connections", "size": "bytes on a connection"}
FLAT_WITHIN = 0.05
FLAT, RISES, FALLS, UNSURE = "flat", "rises", "falls", "undecided"


def place(workload: str) -> float:
    """1000 of `open-1000`; `size-1000` counts megabytes."""
    return float(workload.rpartition("-")[2])


def steepness(run: Run, workloads: Sequence[str], peer: str, figure: str) -> Interval | None:
    """None where there are too few points, or too few rounds that have all of them."""
    points = {place(workload): run.by_round(workload, peer, figure) for workload in workloads}
    complete = set.intersection(*(set(rounds) for rounds in points.values())) if len(points) > 1 else set()
    return of_pairs([_tenfold({at: rounds[number] for at, rounds in points.items()}) for number in sorted(complete)])


def _tenfold(points: dict[float, float]) -> float:
    """Least squares."""
    across, up = [math.log(at) for at in points], [math.log(value) for value in points.values()]
    middle = math.fsum(across) / len(across)
    moment = math.fsum((at - middle) * value for at, value in zip(across, up, strict=True))
    return 10 ** (moment / math.fsum((at - middle) ** 2 for at in across))


def judge(found: Interval) -> str:
    """Flat is what has all of its interval near 1; what rises or falls has all of it on one side."""
    if found.low >= 1 / (1 + FLAT_WITHIN) and found.high <= 1 + FLAT_WITHIN:
        return FLAT
    return RISES if found.low > 1 else FALLS if found.high < 1 else UNSURE
