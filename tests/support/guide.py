"""The pages of docs/ as data: what stands between their fences, under which heading.

Never here: what it means (tests/packaging runs it, tests/unit/test_docs.py reads it).
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PARTS = re.compile(r"^## (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """One fenced block."""

    heading: str
    language: str
    text: str


def blocks(page: str, language: str, heading: str = "") -> list[Block]:
    """Those of a page in this language, all of them or those under one heading."""
    found, current = [], ""
    for match in PARTS.finditer((ROOT / page).read_text()):
        current = match["heading"] or current
        if match["language"] == language and heading in ("", current):
            found.append(Block(current, language, match["text"]))
    return found
