"""etc/relay.toml as the schema tells it. `python -m tests.unit.sidecar.example_file > etc/relay.toml` writes it anew.

Owns: the layout of the example. Never here: a meaning, a range or a default, which are the schema's.
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping

from sidecar.config.schema import DEFAULT_LISTENERS, TABLES
from sidecar.config.sections import REQUIRED, Key, Section

WIDTH = 110
SHOWN_ELEMENT = {"name": "shout", "use": "./shout.py:Shout"}
HEAD = """\
# relay-sidecar: every key, with its meaning, what it may be, and its default. A file needs only what it changes.
# Keys not named here are refused. Durations are written as "1h30m", "10s" or "250ms", sizes as "64MiB".
# "Reload" marks what SIGHUP and `relay-sidecar reload` apply to the running relay; the rest waits for a restart.
"""


def written(name: str, value: object) -> str:
    """A value in TOML."""
    return f"{value:#x}" if name.endswith("mark") else json.dumps(value)


def commented(name: str, key: Key, value: object) -> Iterator[str]:
    """A key with its comment."""
    default = "Required." if key.default is REQUIRED else f"Default: {written(name, key.default)}."
    told = f"{key.meaning[0].upper()}{key.meaning[1:]}."
    for text in (told, f"Expected: {key.kind.expected}. {default}{' Reload.' if key.live else ''}"):
        yield from textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    yield f"{name} = {written(name, value)}"


def table(heading: str, section: type[Section], values: Mapping[str, object]) -> Iterator[str]:
    """A table with all of its keys."""
    yield heading
    for name, key in section.keys.items():
        yield from ("", *commented(name, key, values.get(name, key.default)))


def listeners() -> Iterator[str]:
    """The two that there are without a file."""
    first, *others = DEFAULT_LISTENERS
    yield from (*table("[[listener]]", TABLES["listener"], first), "")
    for listener in others:
        yield from ("[[listener]]", *(f"{key} = {written(key, value)}" for key, value in listener.items()), "")


def elements() -> Iterator[str]:
    """There are none: one is shown that would be."""
    yield from ("# An element: a Python class that sees the bytes of flows. There is none unless one is named, as here:", "#")
    for line in (*table("[[element]]", TABLES["element"], SHOWN_ELEMENT), ""):
        yield f"# {line}".rstrip() if line else "#"
    yield ""


def example() -> str:
    """The whole file."""
    lines = [HEAD]
    for name, section in TABLES.items():
        special = {"listener": listeners, "element": elements}.get(name)
        lines += special() if special else [*table(f"[{name}]", section, {}), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(example())
