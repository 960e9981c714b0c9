"""A plot as an SVG file: panels of horizontal bars, or lines over a logarithmic axis.

A value is shown with a line from the smallest to the largest of its rounds.

Owns: the drawing. Readable on light and dark pages: the plot brings its own ground and follows the reader's colour scheme.
Never here: what the values mean (page).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from benchmarks.shown import number

PANEL, GAP, MARGIN = 312, 20, 20
NARROWEST = 2 * PANEL + GAP  # as long as the titles are
LABEL, VALUE = 114, 54  # what the names and the numbers take of a panel's width
ROW, BAR = 21, 11
HEAD, PANEL_HEAD, FOOT = 60, 26, 14
HEIGHT, SCALE, NAMES = 220, 58, 128  # of lines: how high they go, and what the numbers and the names take of the width
LINE = 15  # from one name to the next

# Ours stands out, the peers step back, and no relay at all is an outline. Plain classes: not every viewer knows CSS variables.
_LIGHT = {"ground": "#ffffff", "ink": "#1f2328", "dim": "#59636e", "line": "#d1d9e0", "ours": "#0a69da", "peer": "#a5afb9"}
_DARK = {"ground": "#0d1117", "ink": "#f0f6fc", "dim": "#9198a1", "line": "#3d444d", "ours": "#4493f8", "peer": "#57606a"}
_COLOURS = """\
text {{ fill: {ink}; }}
.note, .no {{ fill: {dim}; }}
.ours-name, .ours {{ fill: {ours}; }}
.ground {{ fill: {ground}; stroke: {line}; }}
.axis {{ stroke: {line}; }}
.reach {{ stroke: {ink}; }}
.peer {{ fill: {peer}; }}
.direct {{ stroke: {dim}; }}
.guide {{ stroke: {ours}; }}
.ours-line {{ stroke: {ours}; }}
.peer-line {{ stroke: {peer}; }}
.grid {{ stroke: {line}; }}
"""
STYLE = f"""\
text {{ font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }}
.title {{ font-size: 16px; font-weight: 600; }}
.head, .ours-name {{ font-weight: 600; }}
.reach {{ stroke-width: 1.5; fill: none; }}
.direct {{ fill: none; stroke-dasharray: 3 2; }}
.guide {{ stroke-dasharray: 2 3; }}
.ours-line, .peer-line {{ fill: none; stroke-width: 2; }}
.grid {{ stroke-width: 0.5; }}
{_COLOURS.format_map(_LIGHT)}@media (prefers-color-scheme: dark) {{
{_COLOURS.format_map(_DARK)}}}
"""


class Mark(NamedTuple):
    """One bar; without a value it was not measured."""

    label: str
    kind: str  # ours, peer, direct
    value: float | None
    low: float = 0.0
    high: float = 0.0


class Tick(NamedTuple):
    """Where a point of a line stands on its logarithmic axis."""

    at: float
    label: str


class Panel(NamedTuple):
    """Bars with one scale, from zero to the largest of them."""

    title: str
    marks: Sequence[Mark]


def plot(title: str, note: str, panels: Sequence[Panel], columns: int) -> str:
    """All panels in rows of so many."""
    columns = min(columns, len(panels))
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    inside = max(columns * PANEL + (columns - 1) * GAP, NARROWEST)
    each = (inside - (columns - 1) * GAP) / columns
    width = 2 * MARGIN + inside
    parts = []
    top = float(HEAD)
    for row in rows:
        for place, panel in enumerate(row):
            parts += _panel(panel, MARGIN + place * (each + GAP), top, each)
        top += PANEL_HEAD + max(len(panel.marks) for panel in row) * ROW + FOOT
    return _drawing(title, note, width, top, parts)


def lines(title: str, note: str, axis: str, ticks: Sequence[Tick], series: Sequence[Sequence[Mark]]) -> str:
    """One line for each series, which has a mark for each tick; values from zero to the largest of all."""
    width = 2 * MARGIN + NARROWEST
    left, right, bottom = MARGIN + SCALE, width - MARGIN - NAMES, HEAD + HEIGHT
    marks = [mark for line in series for mark in line if mark.value is not None]
    step = _step(max((mark.high for mark in marks), default=0.0))
    steps = max(1, math.ceil(max((mark.high for mark in marks), default=0.0) / step - 1e-9))
    scale = HEIGHT / (step * steps)
    first, last = (math.log(each.at) for each in (ticks[0], ticks[-1]))
    places = [left + (right - left) * ((math.log(each.at) - first) / (last - first) if last > first else 0.5) for each in ticks]
    parts = []
    for count in range(steps + 1):
        at = bottom - count * step * scale
        parts += [_line("grid", left, at, right, at), _text(left - 8, at + 4, f"{count * step:,.6g}", "note", "end")]
    for at, tick in zip(places, ticks, strict=True):
        parts += [_line("axis", at, bottom, at, bottom + 5), _text(round(at, 1), bottom + 19, tick.label, "note", "middle")]
    parts.append(_text(left, bottom + 38, f"{axis}, on a logarithmic scale", "note"))
    dashes = iter(("", "6 3", "2 3", "8 3 2 3"))
    for line in sorted(series, key=lambda line: line[0].kind == "ours"):  # ours over the others
        parts += _points(line, places, bottom, scale, "" if line[0].kind == "ours" else next(dashes, ""))
    return _drawing(title, note, width, bottom + 38 + FOOT, parts + _names(series, right + 10, bottom, scale))


def _step(largest: float) -> float:
    """A round number, of which five at most reach as far."""
    if largest <= 0:
        return 1.0
    ten = 10 ** math.floor(math.log10(largest / 5))
    return next(ten * each for each in (1, 2, 2.5, 5, 10) if ten * each * 5 >= largest)


def _points(line: Sequence[Mark], places: Sequence[float], bottom: float, scale: float, dash: str) -> list[str]:
    there = [(at, mark, mark.value) for at, mark in zip(places, line, strict=True) if mark.value is not None]
    path = "L".join(f"{at:.1f} {bottom - value * scale:.1f}" for at, _, value in there)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    parts = [f'<path class="{line[0].kind}-line" d="M{path}"{dashed}/>'] if there else []
    for at, mark, value in there:
        low, high, middle = (bottom - each * scale for each in (mark.low, mark.high, value))
        caps = f"M{at - 3:.1f} {low:.1f}h6M{at:.1f} {low:.1f}V{high:.1f}M{at - 3:.1f} {high:.1f}h6"
        parts.append(f'<path class="reach" d="{caps}"/>')
        parts.append(f'<circle class="{mark.kind}" cx="{at:.1f}" cy="{middle:.1f}" r="4">{_told(mark, value)}</circle>')
    return parts


def _names(series: Sequence[Sequence[Mark]], left: float, bottom: float, scale: float) -> list[str]:
    """At the ends of their lines, and none over another."""
    ends = [(bottom - line[-1].value * scale, line[-1]) for line in series if line[-1].value is not None]
    parts, free = [], float(HEAD)
    ordered = sorted(ends, key=lambda end: end[0])
    for count, (at, mark) in enumerate(ordered):
        below = len(ordered) - 1 - count
        height = max(min(at, bottom - below * LINE), free)
        free = height + LINE
        parts.append(_text(left, round(height + 4, 1), mark.label, "ours-name" if mark.kind == "ours" else ""))
    return parts


def _told(mark: Mark, value: float) -> str:
    return f"<title>{escape(mark.label)}: {number(value)} ({number(mark.low)} to {number(mark.high)})</title>"


def _drawing(title: str, note: str, width: float, height: float, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}"'
            f' role="img" aria-label={quoteattr(title)}>',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{width - 1}" height="{height - 1:g}" rx="6"/>',
            _text(MARGIN, 27, title, "title"),
            _text(MARGIN, 46, note, "note"),
            *parts,
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, left: float, top: float, width: float) -> list[str]:
    largest = max((max(mark.value, mark.high) for mark in panel.marks if mark.value is not None), default=0.0)
    zero, room = left + LABEL, width - LABEL - VALUE
    scale = room / largest if largest else 0.0
    bottom = top + PANEL_HEAD + len(panel.marks) * ROW
    parts = [_text(left, top + 14, panel.title, "head")]
    for place, mark in enumerate(panel.marks):
        parts += _row(mark, zero, top + PANEL_HEAD + place * ROW, scale, left + width)
    parts.append(_line("axis", zero, top + PANEL_HEAD - 4, zero, bottom))
    # How far the others are from ours is seen along one line.
    guides = [zero + mark.value * scale for mark in panel.marks if mark.kind == "ours" and mark.value is not None]
    parts += [_line("guide", at, top + PANEL_HEAD - 4, at, bottom) for at in guides[:1]]
    return parts


def _row(mark: Mark, zero: float, top: float, scale: float, right: float) -> list[str]:
    middle = top + ROW / 2
    name = _text(zero - 8, middle + 4, mark.label, "ours-name" if mark.kind == "ours" else "", "end")
    if mark.value is None:
        return [name, _text(zero + 6, middle + 4, "not measured", "no")]
    low, high = zero + mark.low * scale, zero + mark.high * scale
    bar = (
        f'<rect class="{mark.kind}" x="{zero:.1f}" y="{middle - BAR / 2:.1f}" width="{mark.value * scale:.1f}" height="{BAR}">'
        f"{_told(mark, mark.value)}</rect>"
    )
    caps = f"M{low:.1f} {middle - 3:.1f}v6M{low:.1f} {middle:.1f}H{high:.1f}M{high:.1f} {middle - 3:.1f}v6"
    value = _text(right, middle + 4, number(mark.value), "ours-name" if mark.kind == "ours" else "", "end")
    return [name, bar, f'<path class="reach" d="{caps}"/>', value]


def _text(left: float, top: float, text: str, kind: str, anchor: str = "start") -> str:
    made = f' class="{kind}"' if kind else ""
    made += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{left:g}" y="{top:g}"{made}>{escape(text)}</text>'


def _line(kind: str, left: float, top: float, right: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{left:.1f}" y1="{top:.1f}" x2="{right:.1f}" y2="{bottom:.1f}"/>'
