"""[[element]]: what the configuration takes, what `check` finds, and which code the flows of a listener begin with."""

from pathlib import Path
from typing import Any

import pytest

from sidecar.config import Flags, load_config
from sidecar.errors import RelayError
from sidecar.proxy.elements import Elements
from tests.unit.sidecar.conftest import Load

TWO = """
[[listener]]
name = "out"
direction = "outbound"
port = 15002

[[listener]]
name = "in"
direction = "inbound"
port = 15006
"""
CODE = """
from relaycore.element import Element

class Good(Element):
    @classmethod
    def configure(cls, options):
        return options.integer("most", 1, 10, 5)

class Strict(Element):
    @classmethod
    def configure(cls, options):
        return options.networks("deny")

class Broken(Element):
    @classmethod
    def configure(cls, options):
        raise RuntimeError("no")

class Plain:
    pass
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    (tmp_path / "code.py").write_text(CODE)

    def write(*elements: str) -> Path:
        path = tmp_path / "relay.toml"
        path.write_text(TWO + "".join(f"[[element]]\n{element}\n" for element in elements))
        return path

    return write


def element(name: str, use: str, more: str = "") -> str:
    return f'name = "{name}"\nuse = "{use}"\n{more}'


def refused(path: Path) -> list[str]:
    with pytest.raises(RelayError) as caught:
        Elements(load_config(Flags(config=str(path)), {}), 0)
    assert caught.value.exit_status == 78
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("use", "more", "message"),
    [
        ("./none.py:Good", "", "element[0].use: expected a file {0}/none.py, found none"),
        ("nowhere.at.all:Good", "", "element[0].use: expected a module nowhere.at.all, found no module named nowhere"),
        (
            "./code.py:Goof",
            "",
            "element[0].use: expected a class Goof in ./code.py, found nothing of that name; it has Good, Strict",
        ),
        ("./code.py:Plain", "", "element[0].use: expected Plain in ./code.py to be a subclass of relaycore.element.Element"),
        ("./code.py:Good", "options = { most = 11 }", "element[0].options.most: expected an integer from 1 to 10, found 11"),
        ("./code.py:Good", "options = { least = 1 }", "element[0].options.least: expected one of most, found 1"),
        (
            "./code.py:Strict",
            'options = { deny = ["10.0.0.0/8", "x"] }',
            'element[0].options.deny[1]: expected a network such as "10.0.0.0/8", found x',
        ),
        (
            "./code.py:Broken",
            "",
            "element[0].options: expected options that the element takes, found {0}/code.py:17: RuntimeError",
        ),
        ("./code.py", "", 'element[0].use: expected "package.module:Class" or "./file.py:Class", found "./code.py"'),
        ("./code.py:Good", 'listeners = ["up"]', 'element[0].listeners[0]: expected one of the listeners out, in, found "up"'),
        ("./code.py:Good", 'on_error = "ignore"', 'element[0].on_error: expected "close" or "pass", found "ignore"'),
        ("./code.py:Good", 'budgt = "1s"', 'element[0].budgt: expected a known key, found "budgt"'),
    ],
)
def test_what_is_wrong_is_told_in_one_line(write: Any, tmp_path: Path, use: str, more: str, message: str) -> None:
    """Who configures an element would have to read tracebacks, or learn of a mistake from the first connection."""
    (line,) = refused(write(element("one", use, more)))
    assert line.startswith(message.format(tmp_path)), line


def test_every_mistake_is_told_at_once(write: Any) -> None:
    """They would be found one start after the other."""
    lines = refused(write(element("one", "./none.py:A"), element("two", "./code.py:Plain"), element("three", "./code.py:Good")))
    assert [line.partition(":")[0] for line in lines] == ["element[0].use", "element[1].use"]


def test_two_elements_of_one_name_are_refused(write: Any) -> None:
    """Counters and records could not be told apart."""
    (line,) = refused(write(element("one", "./code.py:Good"), element("one", "./code.py:Good")))
    assert 'element[1].name: expected a name of its own, found "one", as element[0] has' in line


def test_listeners_have_the_elements_that_name_them_in_their_order(write: Any) -> None:
    """A flow would go through elements that are not for it, or in another order than the file says."""
    path = write(
        element("a", "./code.py:Good", 'listeners = ["in"]'),
        element("b", "./code.py:Good"),
        element("c", "./code.py:Good", 'listeners = ["in", "out"]'),
    )
    config = load_config(Flags(config=str(path)), {})
    elements = Elements(config, 0)
    names = {listener.name: [use.name for use in elements.uses(listener) or []] for listener in config.listeners}
    assert names == {"out": ["b", "c"], "in": ["a", "b", "c"]}


def test_a_listener_without_elements_stays_a_plain_one(write: Any) -> None:
    """Its flows would pay for what others have; and a reload cannot move its sockets to other workers."""
    path = write(element("a", "./code.py:Good", 'listeners = ["in"]'))
    elements = Elements(load_config(Flags(config=str(path)), {}), 0)
    fresh = load_config(Flags(config=str(write(element("a", "./code.py:Good")))), {})
    assert elements.reload(fresh) == ["element[0].listeners"]
    out, inbound = fresh.listeners
    assert elements.uses(out) is None
    assert [use.name for use in elements.uses(inbound) or []] == ["a"]


def test_a_name_keeps_its_number(write: Any) -> None:
    """After a reload the counters of one element would go on under the name of another."""
    elements = Elements(
        load_config(Flags(config=str(write(element("a", "./code.py:Good"), element("b", "./code.py:Good")))), {}), 0
    )
    fresh = load_config(Flags(config=str(write(element("c", "./code.py:Good"), element("b", "./code.py:Good")))), {})
    elements.reload(fresh)
    assert elements.names == ["a", "b", "c"]
    assert [use.number for use in elements.uses(fresh.listeners[0]) or []] == [2, 1]


def test_changed_files_are_seen_once(write: Any, tmp_path: Path) -> None:
    """`watch` would load the code each second, or never again."""
    elements = Elements(load_config(Flags(config=str(write(element("a", "./code.py:Good", "watch = true")))), {}), 0)
    assert elements.watched
    assert elements.changed() == []
    (tmp_path / "code.py").write_text(CODE + "\n# more\n")
    assert elements.changed() == ["a"]
    assert elements.changed() == []


def test_a_configuration_without_elements_needs_no_worker_for_them(load: Load) -> None:
    """Threads and memory would be spent on what nobody has."""
    from sidecar.proxy.settings import element_worker_count

    assert element_worker_count(load("[relay]\nelement_workers = 3\n")) == 0
