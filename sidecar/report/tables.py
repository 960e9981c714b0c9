"""Figures and columns for human eyes.

Owns: alignment and rounding. Never here: what is shown.
"""

from collections.abc import Sequence

from sidecar.config.kinds import write_duration


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]], figures: Sequence[str]) -> str:
    """Columns under headings: text to the left, the columns named in `figures` to the right."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if heading in figures else text.ljust(width)
            for text, width, heading in zip(line, widths, headings, strict=True)
        ).rstrip()
        for line in lines
    )


def human_bytes(number: int) -> str:
    """Enough figures to compare: "512 B", "1.5 MiB"."""
    value, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def human_time(milliseconds: int) -> str:
    """Whole seconds from one second on: "250ms", "12s", "3h5m"."""
    return write_duration(milliseconds if milliseconds < 1000 else milliseconds // 1000 * 1000)
