"""One hundred spoilt copies of etc/relay.toml, each made from a seed: every one must be refused, by name and line."""

import random
import re
from pathlib import Path

import pytest

from sidecar.config import Flags, load_config
from sidecar.errors import RelayError
from tests.unit.sidecar.conftest import WriteConfig

EXAMPLE = (Path(__file__).parents[3] / "etc" / "relay.toml").read_text()
SEED = 20240607
ASSIGNMENT = re.compile(r"^([a-z0-9_]+) = (.*)$", re.MULTILINE)
WRONG_VALUES = ("-1", "1e9", "true", '"\\u0007"', '"; flush ruleset"', "[[1]]", "{a = 1}", "1979-05-27", '"' + "x" * 200 + '"')


def spoil(number: int) -> tuple[bytes, str]:
    """A spoilt file, and what its refusal must name: the key, or the line."""
    dice = random.Random(f"{SEED}/{number}")
    match = dice.choice(list(ASSIGNMENT.finditer(EXAMPLE)))
    name, value = match.groups()
    before, after = EXAMPLE[: match.start()], EXAMPLE[match.end() :]
    line = f"line {before.count(chr(10)) + 1}"
    ways: dict[str, tuple[str, str]] = {
        "unknown key": (f"{name}x = {value}", f"{name}x"),
        "key twice": (f"{match[0]}\n{match[0]}", f"line {before.count(chr(10)) + 2}"),
        "no value": (f"{name} =", line),
        "open quote": (f'{name} = "x', line),
        "NUL": (f"{match[0]} # \0", line),
        "wrong value": (f"{name} = {dice.choice([wrong for wrong in WRONG_VALUES if fits_nowhere(name, wrong)])}", name),
    }
    text, named = ways[dice.choice(sorted(ways))]
    spoilt = f"{before}{text}{after}".encode()
    if dice.random() < 0.1:
        at = dice.randrange(len(before)) if before else 0
        return spoilt[:at] + b"\xff" + spoilt[at:], "0xff"
    return spoilt, named


def fits_nowhere(name: str, value: str) -> bool:
    """Whether no key of this name takes the value: true is right for a boolean, and 200 letters are nobody's name."""
    return not (value == "true" and name in ("ipv6", "only_open_ports", "access", "preserve_client"))


@pytest.mark.parametrize("number", range(100))
def test_a_spoilt_file_is_refused_by_name_and_line(number: int, write_config: WriteConfig) -> None:
    """After a bad edit, SIGHUP would apply half of a file, crash the relay, or tell nothing that helps."""
    content, named = spoil(number)
    path = write_config("")
    Path(path).write_bytes(content)
    with pytest.raises(RelayError) as caught:
        load_config(Flags(config=path), {})
    assert caught.value.exit_status == 78
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    assert all(re.match(rf"{re.escape(path)}: .*expected .+, found .+", line) for line in lines), lines
    assert any(named in line for line in lines), (named, lines)
    assert all(re.search(r"\bline \d+\b", line) for line in lines), lines


def test_the_example_itself_is_good(write_config: WriteConfig) -> None:
    """The mutations would prove nothing."""
    assert load_config(Flags(config=write_config(EXAMPLE)), {}).warnings == ()
