"""docs/elements.md, run: its classes, its tests and its configuration."""

import re
from pathlib import Path
from typing import Any

import tomli

from sidecar.config import Flags, load_config

PAGE = (Path(__file__).parents[3] / "docs" / "elements.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def test_the_code_does_what_the_page_says() -> None:
    """Who begins with the tutorial would begin with an error."""
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks("python"):
        exec(block, names)  # noqa: S102 - that is the test
    tests = [name for name in names if name.startswith("test_")]
    assert len(tests) == 2
    for name in tests:
        names[name]()


def test_the_configuration_is_one(tmp_path: Path) -> None:
    """A key of the page would be refused."""
    tables = [element for block in blocks("toml") for element in tomli.loads(block)["element"]]
    assert len(tables) >= 2
    path = tmp_path / "relay.toml"
    path.write_text("\n".join(blocks("toml")))
    assert [element.name for element in load_config(Flags(config=str(path)), {}).elements] == [
        table["name"] for table in tables
    ]
