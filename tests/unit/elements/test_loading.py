"""relaycore.loading: which code `use` names, loaded anew each time, and what is said of code that does not load."""

import sys
from pathlib import Path

import pytest

from relaycore.loading import LoadError, load

GOOD = "from relaycore.element import Element\n\n\nclass Good(Element):\n    version = {0}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


def refused(use: str, folder: Path) -> str:
    with pytest.raises(LoadError) as caught:
        load(use, str(folder))
    return str(caught.value)


def test_each_load_is_new_code_and_the_old_class_stays(folder: Path) -> None:
    """Flows that live would change under their clients, or a change would not come at all."""
    path = write(folder / "code.py", GOOD.format(1))
    old = load("./code.py:Good", str(folder)).kind
    path.write_text(GOOD.format(2))
    new = load("./code.py:Good", str(folder)).kind
    assert (old.version, new.version) == (1, 2)  # type: ignore[attr-defined]


def test_a_package_is_loaded_with_its_modules(folder: Path) -> None:
    """A helper that was changed would stay the old one."""
    write(folder / "apackage" / "__init__.py", "")
    helper = write(folder / "apackage" / "helper.py", "number = 1\n")
    write(folder / "apackage" / "code.py", "from apackage.helper import number\n" + GOOD.format("number"))
    assert load("apackage.code:Good", str(folder)).kind.version == 1  # type: ignore[attr-defined]
    helper.write_text("number = 2222\n")
    loaded = load("apackage.code:Good", str(folder))
    assert loaded.kind.version == 2222  # type: ignore[attr-defined]
    assert {Path(file).name for file in loaded.files} == {"__init__.py", "helper.py", "code.py"}


def test_a_package_that_does_not_load_leaves_the_old_modules(folder: Path) -> None:
    """Old flows would import halves of the new code."""
    write(folder / "bpackage" / "__init__.py", "")
    code = write(folder / "bpackage" / "code.py", GOOD.format(1))
    load("bpackage.code:Good", str(folder))
    module = sys.modules["bpackage.code"]
    code.write_text("raise RuntimeError('in the middle of an edit')\n")
    assert "code.py:1: RuntimeError: in the middle of an edit" in refused("bpackage.code:Good", folder)
    assert sys.modules["bpackage.code"] is module


def test_a_slip_in_a_name_of_the_relays_own_forgets_nothing(folder: Path) -> None:
    """A typing error in a reload would leave the relay without its modules."""
    before = {name: module for name, module in sys.modules.items() if name.startswith("relaycore")}
    assert "a module relaycore.elements.snif" in refused("relaycore.elements.snif:Sniff", folder)
    assert {name: sys.modules.get(name) for name in before} == before


@pytest.mark.parametrize("use", ["a b:Good", "a..b:Good", "3x:Good", "./code.py:Go od", "code"])
def test_what_is_no_name_is_told_as_that(folder: Path, use: str) -> None:
    """Python's own words for it would not help."""
    assert f'found "{use}"' in refused(use, folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("class Good(:\n", "code.py:1: SyntaxError"),
        ("import os\n1 / 0\n", "code.py:2: ZeroDivisionError"),
        ("import nothing_of_that_name\n", "code.py:1: ModuleNotFoundError"),
        ("Good = 5\n", "a int"),
        ("open('/nowhere/at/all')\n", "code.py:1: FileNotFoundError"),
        ("class Good: pass\n", "a class that is no Element"),
        ("", "nothing of that name"),
    ],
)
def test_what_does_not_load_is_told_with_its_place(folder: Path, text: str, why: str) -> None:
    """Who has made a typing error would search for it."""
    write(folder / "code.py", text)
    assert why in refused("./code.py:Good", folder)


def test_code_that_others_may_write_is_not_run(folder: Path) -> None:
    """Whoever can write the file would be the relay."""
    path = write(folder / "code.py", GOOD.format(1))
    path.chmod(0o664)
    assert "that only its owner may write, found mode 0664" in refused("./code.py:Good", folder)
