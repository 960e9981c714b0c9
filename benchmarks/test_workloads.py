"""Every workload, over every peer, interleaved: A B C, B C A, C A B. What else the machine does then hits all of them alike.

Owns: the order, and the line of progress. Nothing is asserted of a time: what the figures mean, page and compare tell.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product
from typing import TypeVar

import pytest

from benchmarks.conftest import Places, Run
from benchmarks.measure import Place
from benchmarks.workloads import WORKLOADS, takes_part

Each = TypeVar("Each")


def test_workload(row: tuple[str, ...], run: Run, places: Places, say: Callable[[str], None]) -> None:
    """A row of the results, or the points of a line."""
    points = [WORKLOADS[name] for name in row]
    program = points[0].program
    if how := run.note_program(program):
        run.write()
        pytest.fail(f"{program} is missing: {how}", pytrace=False)
    names = [name for name in places.names if takes_part(points[0], name)]
    for number in range(run.rounds):
        for name, workload in product(turned(names, number), turned(points, number)):
            with ExitStack() as stack:
                place = Place(name, stack) if workload.fresh else places.of(name, workload)
                figures = place.measure(workload, run.seconds)
            run.add(workload.name, name, number, figures)
            shown = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
            say(f"{workload.name} {number + 1}/{run.rounds} {name}: {shown}")
    run.write()


def turned(each: Sequence[Each], number: int) -> Sequence[Each]:
    """Another one is the first in each round."""
    if not each:
        return each
    first = number % len(each)
    return [*each[first:], *each[:first]]
