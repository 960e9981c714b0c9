"""Metric families as Prometheus text (exposition format 0.0.4).

Owns: the syntax: escaping, the order of a histogram's lines, how numbers are written.
Never here: which metrics there are (proxy.facts); a label value that a peer chose.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Sequence[tuple[str, str]]


class Sample(NamedTuple):
    """One line: what is added to the family's name, labels and the value."""

    value: float
    labels: Labels = ()
    suffix: str = ""


class Family(NamedTuple):
    """A metric with its samples. The name of a counter ends in _total, as the format wants it."""

    name: str
    kind: str  # counter | gauge | histogram
    help: str
    samples: Sequence[Sample]


def histogram_samples(bounds: Sequence[float], counts: Sequence[int], total: float, labels: Labels) -> list[Sample]:
    """The lines of one histogram: counts are cumulative, and there is one more than bounds, for +Inf."""
    buckets = [
        Sample(count, (*labels, ("le", _number(bound))), "_bucket")
        for bound, count in zip((*bounds, math.inf), counts, strict=True)
    ]
    return [*buckets, Sample(total, labels, "_sum"), Sample(counts[-1], labels, "_count")]


def exposition(families: Iterable[Family]) -> str:
    """The whole page."""
    lines = []
    for name, kind, text, samples in families:
        lines += [f"# HELP {name} {_escaped(text)}", f"# TYPE {name} {kind}"]
        for value, labels, suffix in samples:
            pairs = ",".join(f'{label}="{_quoted(text)}"' for label, text in labels)
            lines.append(f"{name}{suffix}{{{pairs}}} {_number(value)}" if pairs else f"{name}{suffix} {_number(value)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
