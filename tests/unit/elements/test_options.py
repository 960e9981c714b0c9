"""Options by name: what fits, what does not, and where it says so."""

from collections.abc import Callable
from typing import Any

import pytest

from relaycore.element import Element
from relaycore.options import OptionError, Options, configured

Take = Callable[[Options], Any]

FITS: list[tuple[Any, Take, Any]] = [
    ("a", lambda o: o.text("x"), "a"),
    (True, lambda o: o.boolean("x", False), True),
    (3, lambda o: o.integer("x", 0, 3), 3),
    (1, lambda o: o.number("x", 0, 1), 1.0),
    (0.25, lambda o: o.number("x", 0, 1), 0.25),
    ("b", lambda o: o.choice("x", ("a", "b"), "a"), "b"),
    ("250ms", lambda o: o.seconds("x"), 0.25),
    ("64KiB", lambda o: o.size("x"), 65536),
    (["a"], lambda o: o.texts("x"), ["a"]),
    ([1, 2], lambda o: o.integers("x", 0, 2), [1, 2]),
    ([443, "8000-8002"], lambda o: o.ports("x"), [range(443, 444), range(8000, 8003)]),
    (["10.0.0.0/8", "::1"], lambda o: [str(each) for each in o.networks("x")], ["10.0.0.0/8", "::1/128"]),
    ("[::1]:80", lambda o: o.address("x"), ("::1", 80)),
    ("f", lambda o: o.path("x"), "/etc/f"),
    ("/f", lambda o: o.path("x"), "/f"),
    ([{"y": 1}], lambda o: [table.integer("y", 0, 9) for table in o.tables("x")], [1]),
]
MISFITS: list[tuple[Any, Take, str]] = [
    (1, lambda o: o.text("x"), "x"),
    ("true", lambda o: o.boolean("x", False), "x"),
    (True, lambda o: o.integer("x", 0, 3), "x"),
    (4, lambda o: o.integer("x", 0, 3), "x"),
    (float("nan"), lambda o: o.number("x", 0, 1), "x"),
    ("c", lambda o: o.choice("x", ("a", "b"), "a"), "x"),
    ("1 s", lambda o: o.seconds("x"), "x"),
    ("1KB", lambda o: o.size("x"), "x"),
    ("a", lambda o: o.texts("x"), "x"),
    (["a", 1], lambda o: o.texts("x"), "x[1]"),
    ([1, 3], lambda o: o.integers("x", 0, 2), "x[1]"),
    ([0], lambda o: o.ports("x"), "x[0]"),
    (["9-8"], lambda o: o.ports("x"), "x[0]"),
    ([True], lambda o: o.ports("x"), "x[0]"),
    (["1-65536"], lambda o: o.ports("x"), "x[0]"),
    (["10.0.0.1/8"], lambda o: o.networks("x"), "x[0]"),
    ("::1:80", lambda o: o.address("x"), "x"),
    ("localhost:80", lambda o: o.address("x"), "x"),
    ([1], lambda o: o.tables("x"), "x[0]"),
    ([{}, {"y": 10}], lambda o: [table.integer("y", 0, 9, 0) for table in o.tables("x")], "x[1].y"),
    ([{"z": [{"y": "no"}]}], lambda o: [t.integer("y", 0, 9) for s in o.tables("x") for t in s.tables("z")], "x[0].z[0].y"),
]


@pytest.mark.parametrize(("value", "take", "expected"), FITS)
def test_what_fits(value: Any, take: Take, expected: Any) -> None:
    """An element would have another option than the file says."""
    assert take(Options({"x": value}, directory="/etc")) == expected


@pytest.mark.parametrize(("value", "take", "where"), MISFITS)
def test_what_does_not_fit(value: Any, take: Take, where: str) -> None:
    """A slip would be taken for something, or nobody told where it stands."""
    with pytest.raises(OptionError) as error:
        take(Options({"x": value}))
    assert error.value.where == where


@pytest.mark.parametrize("take", [FITS[number][1] for number in (0, 2, 3, 6, 7, 12, 13)])
def test_what_is_missing(take: Take) -> None:
    """An option without which nothing makes sense would be forgotten in silence."""
    with pytest.raises(OptionError, match="found nothing"):
        take(Options({}))


class Takes(Element):
    @classmethod
    def configure(cls, options: Options) -> Any:
        return options.text("a", None), [table.text("b", None) for table in options.tables("t")]


@pytest.mark.parametrize(
    ("values", "where"), [({"c": 1}, "c"), ({"t": [{"b": "x"}, {"c": 1}]}, "t[1].c"), ({"a": "x", "t": [{}]}, None)]
)
def test_what_nobody_asked_for(values: dict[str, Any], where: str | None) -> None:
    """A misspelt option would be none."""
    if where is None:
        assert configured(Takes, Options(values)) == ("x", [None])
        return
    with pytest.raises(OptionError) as error:
        configured(Takes, Options(values))
    assert error.value.where == where
