"""Every workload, over every peer, interleaved: A B C, B C A, C A B. What else the machine does then hits all of them alike.

Owns: the order, and the line of progress; a measurement that fails makes the row a failed test, and ends nothing else.
Nothing is asserted of a time: what the figures mean, page and compare tell.
"""

import traceback
from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeVar

import pytest

from benchmarks.conftest import Places, Run
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
    failed = []
    try:
        for number in range(run.rounds):
            for name, workload in product(turned(names, number), turned(points, number)):
                here = f"{workload.name} {number + 1}/{run.rounds} {name}"
                try:
                    with places.of(name, workload) as place:
                        figures = place.measure(workload, run.seconds)
                except Exception as error:  # whatever it is, the others have their turns, and this one in the next round
                    failed.append(f"{here}: {''.join(traceback.format_exception(error))}")
                    say(f"{here}: failed: {error}")
                    continue
                run.add(workload.name, name, number, figures)
                shown = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
                say(f"{here}: {shown}")
    finally:
        run.write()
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)


def turned(each: Sequence[Each], number: int) -> Sequence[Each]:
    """Another one is the first in each round."""
    if not each:
        return each
    first = number % len(each)
    return [*each[first:], *each[:first]]
