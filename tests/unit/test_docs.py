"""What the pages tell users to write, read by the product: configurations by its loader, command lines by its parser."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from sidecar.cli import parse
from sidecar.config import Flags, load_config

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"(?:(?:^    .*\n)(?:^\n(?=    ))?)+", re.M)
COMMAND = re.compile(r"(?:\w+=\S+ )*(?:\S*/)?relay-sidecar(?: |$)")
INLINE = re.compile(r"`(relay-sidecar [^`]+)`")


def code(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block; of an indented one the language is seen from its first character."""
    text = page.read_text()
    indented = [textwrap.dedent(block) for block in INDENTED.findall(FENCED.sub("", text))]
    return FENCED.findall(text) + [("toml" if block.startswith("[") else "", block) for block in indented]


def configurations() -> list[tuple[str, str]]:
    return [(page.name, text) for page in PAGES for language, text in code(page) if language == "toml"]


def command_lines() -> list[tuple[str, str]]:
    """Every call of the program, without what a shell does around it."""
    found = []
    for page in PAGES:
        lines = [line for language, text in code(page) if language != "toml" for line in text.splitlines()]
        parts = [part.strip() for line in lines for part in re.split(r"&&|[;|&]|\s#|2?>|=(?=/)", line)]
        found += [(page.name, part) for part in parts if COMMAND.match(part)]
        found += [(page.name, words) for words in INLINE.findall(page.read_text()) if "…" not in words]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "text"), configurations())
def test_a_configuration_of_the_pages_is_valid(page: str, text: str, tmp_path: Path) -> None:
    """Users would begin with a file that is refused."""
    file = tmp_path / "relay.toml"
    file.write_text(text)
    load_config(Flags(config=str(file)), {})


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_a_command_line_of_the_pages_is_one(page: str, line: str) -> None:
    """A flag that was renamed would live on in the pages."""
    words = [word for word in shlex.split(line) if not re.fullmatch(r"\w+=.*", word)]
    try:
        parse(words[1:] if len(words) != 2 else [words[1], "--help"])  # one word alone names a command
    except SystemExit as end:
        assert end.code in (0, None), line


def test_the_pages_have_both() -> None:
    """A change of how the pages are written would leave nothing to be tested."""
    assert len(configurations()) > 3
    assert len(command_lines()) > 20
