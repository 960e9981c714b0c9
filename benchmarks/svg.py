"""A plot as an SVG file: panels of horizontal bars, each with a line from its smallest to its largest value.

Owns: the drawing. Readable on light and dark pages: the plot brings its own ground and follows the reader's colour scheme.
Never here: what the values mean (page).
"""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from benchmarks.shown import number

PANEL, GAP, MARGIN = 312, 20, 20
NARROWEST = 2 * PANEL + GAP  # as long as the titles are
LABEL, VALUE = 114, 54  # what the names and the numbers take of a panel's width
ROW, BAR = 21, 11
HEAD, PANEL_HEAD, FOOT = 60, 26, 14

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
"""
STYLE = f"""\
text {{ font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }}
.title {{ font-size: 16px; font-weight: 600; }}
.head, .ours-name {{ font-weight: 600; }}
.reach {{ stroke-width: 1.5; fill: none; }}
.direct {{ fill: none; stroke-dasharray: 3 2; }}
.guide {{ stroke-dasharray: 2 3; }}
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
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top:g}" width="{width}" height="{top:g}" role="img"'
            f" aria-label={quoteattr(title)}>",
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{width - 1}" height="{top - 1:g}" rx="6"/>',
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
        f"<title>{escape(mark.label)}: {number(mark.value)} ({number(mark.low)} to {number(mark.high)})</title></rect>"
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
