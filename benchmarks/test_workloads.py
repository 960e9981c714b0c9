"""Every workload, over every peer, interleaved: A B C, B C A, C A B. What else the machine does then hits all of them alike.

Owns: the order, and the line of progress. Nothing is asserted of a time: what the figures mean, page and compare tell.
"""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from benchmarks.conftest import Places, Run
from benchmarks.measure import Place
from benchmarks.workloads import WORKLOADS, takes_part


def test_workload(workload: str, run: Run, places: Places, say: Callable[[str], None]) -> None:
    """A row of the results."""
    chosen = WORKLOADS[workload]
    if how := run.note_program(chosen.program):
        run.write()
        pytest.fail(f"{chosen.program} is missing: {how}", pytrace=False)
    names = [name for name in places.names if takes_part(chosen, name)]
    for number in range(run.rounds):
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            with ExitStack() as stack:
                place = Place(name, stack) if chosen.fresh else places.of(name, chosen)
                figures = place.measure(chosen, run.seconds)
            run.add(workload, name, number, figures)
            shown = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
            say(f"{workload} {number + 1}/{run.rounds} {name}: {shown}")
    run.write()
