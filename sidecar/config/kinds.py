"""Kinds of values: what a key expects, in words, and the function that takes a TOML value or says why not.

Owns: the spelling of durations, sizes and choices, and how a found value is shown. Used by the schema, the flags and the tests.
Never here: which keys exist (schema), a file, an environment variable, a system call.
"""

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

N = TypeVar("N", bound=Hashable)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

SHOWN_CHARS = 60  # of a value that did not fit: enough to recognise it, and a line stays a line


class Misfit(Exception):
    """A value that its kind does not take. Empty parts are filled in by the kind and the key; `at` is added to the key."""

    def __init__(self, found: str, *, expected: str = "", next_step: str = "", at: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.next_step = next_step
        self.at = at


class Kind(Generic[T_co]):
    """What a value must be, in words (`expected`); `take` converts it or raises Misfit; `write` turns it back into TOML's."""

    def __init__(
        self, expected: str, take: Callable[[object], T_co], write: Callable[[Any], object] = lambda value: value
    ) -> None:
        self.expected = expected
        self.take = take
        self.write = write


def shown(value: object) -> str:
    """A TOML value as a message shows it: text in quotes, tables and arrays by their size."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def words(options: Sequence[str]) -> str:
    """`"a", "b" or "c"`."""
    quoted = [f'"{option}"' for option in options]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def text_of(value: object, *, number_hint: str = "") -> str:
    """The value, if it is text: what every kind that is written in quotes begins with."""
    if not isinstance(value, str):
        is_number = isinstance(value, int) and not isinstance(value, bool)
        raise Misfit(shown(value), next_step=number_hint.format(value) if is_number else "")
    return value


def boolean() -> Kind[bool]:
    """true or false."""

    def take(value: object) -> bool:
        if not isinstance(value, bool):
            raise Misfit(shown(value))
        return value

    return Kind("true or false", take)


def integer(low: int, high: int, *, taken: Sequence[tuple[int, str]] = ()) -> Kind[int]:
    """A whole number from low to high, but none of `taken` (number, by what)."""

    def take(value: object) -> int:
        # bool is an int in Python, but not in TOML
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Misfit(shown(value))
        for number, holder in taken:
            if value == number:
                raise Misfit(shown(value), expected=f"another number than {number}, which {holder} has")
        return value

    return Kind(f"an integer from {low} to {high}", take)


def choice(*options: str, aliases: Sequence[tuple[str, str]] = (), any_case: bool = False) -> Kind[str]:
    """One of the options; an alias (alias, option) is taken for its option."""
    by_word = {**dict(zip(options, options, strict=True)), **dict(aliases)}

    def take(value: object) -> str:
        text = text_of(value)
        option = by_word.get(text.lower() if any_case else text)
        if option is None:
            raise Misfit(shown(text))
        return option

    return Kind(words(options), take)


def pattern(expected: str, expression: str) -> Kind[str]:
    """Text that matches the expression as a whole."""
    matches = re.compile(expression).fullmatch

    def take(value: object) -> str:
        text = text_of(value)
        if not matches(text):
            raise Misfit(shown(text))
        return text

    return Kind(expected, take)


UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?", re.ASCII)


def duration(low: str, high: str, *, zero: str = "", whole_seconds: bool = False) -> Kind[int]:
    """Milliseconds, written as "1h30m", "10s" or "250ms"; when `zero` tells what "0s" means, that is allowed below `low`."""
    low_ms, high_ms = parse_duration(low), parse_duration(high)

    def take(value: object) -> int:
        hint = 'give it a unit, as in "{}s"'
        text = text_of(value, number_hint=hint)
        try:
            number = parse_duration(text)
        except ValueError:
            raise Misfit(shown(text), next_step=hint.format(text) if text.isdecimal() else "") from None
        in_range = low_ms <= number <= high_ms or (number == 0 and zero)
        if not in_range or (whole_seconds and number % 1000):
            raise Misfit(shown(text))
        return number

    what = "whole seconds" if whole_seconds else "a duration"
    return Kind(f'{what} from "{low}" to "{high}"' + (f', or "0s": {zero}' if zero else ""), take, write_duration)


def parse_duration(text: str) -> int:
    """Milliseconds of "1h30m"; ValueError when it is not written like that."""
    match = DURATION.fullmatch(text)
    if not text or not match:
        raise ValueError(text)
    return sum(int(count or 0) * unit for count, unit in zip(match.groups(), UNITS_MS.values(), strict=True))


def write_duration(milliseconds: int) -> str:
    """The shortest way to write it: 5400000 is "1h30m"."""
    parts = []
    for name, unit in UNITS_MS.items():
        count, milliseconds = divmod(milliseconds, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


MICROSECONDS = re.compile(r"(\d{1,9})us", re.ASCII)


def microseconds(most: str, *, zero: str) -> Kind[int]:
    """Written as "50us"; `zero` tells what "0s" means."""
    limit = int(most.removesuffix("us"))

    def take(value: object) -> int:
        text = text_of(value, number_hint='give it a unit, as in "{}us"')
        match = MICROSECONDS.fullmatch(text)
        if text != "0s" and not (match and 1 <= int(match[1]) <= limit):
            raise Misfit(shown(text))
        return int(match[1]) if match else 0

    return Kind(f'"1us" to "{most}", or "0s": {zero}', take, lambda value: f"{value}us" if value else "0s")


UNITS_BYTES = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
SIZE = re.compile(r"(\d{1,12})(GiB|MiB|KiB|B)", re.ASCII)


def size(low: str, high: str) -> Kind[int]:
    """Bytes, written as "64MiB"."""
    low_bytes, high_bytes = parse_size(low), parse_size(high)

    def take(value: object) -> int:
        text = text_of(value, number_hint='give it a unit, as in "{}B"')
        try:
            number = parse_size(text)
        except ValueError:
            raise Misfit(shown(text)) from None
        if not low_bytes <= number <= high_bytes:
            raise Misfit(shown(text))
        return number

    return Kind(f'a size from "{low}" to "{high}"', take, write_size)


def parse_size(text: str) -> int:
    """Bytes of "64MiB"; ValueError when it is not written like that."""
    match = SIZE.fullmatch(text)
    if not match:
        raise ValueError(text)
    return int(match[1]) * UNITS_BYTES[match[2]]


def write_size(number: int) -> str:
    """In the greatest unit that leaves no fraction: 67108864 is "64MiB"."""
    name, unit = next(item for item in UNITS_BYTES.items() if number % item[1] == 0)
    return f"{number // unit}{name}"


def array(of: Kind[T], what: str, *, most: int) -> Kind[tuple[T, ...]]:
    """An array of at most `most` values of one kind; a misfit names its index."""

    def take(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Misfit(shown(value))
        if len(value) > most:
            raise Misfit(shown(value), expected=f"at most {most} entries")
        return tuple(_part(of, item, f"[{index}]") for index, item in enumerate(value))

    return Kind(f"an array of {what}", take, lambda items: [of.write(item) for item in items])


def all_or(of: Kind[T]) -> Kind[T | None]:
    """ "all" (None), or what the kind takes."""

    def take(value: object) -> T | None:
        if isinstance(value, str):
            if value != "all":
                raise Misfit(shown(value))
            return None
        return of.take(value)

    return Kind(f'"all", or {of.expected}', take, lambda value: "all" if value is None else of.write(value))


def by_name(names: Kind[N], values: Kind[T], what: str, *, most: int) -> Kind[Mapping[N, T]]:
    """A table whose keys the one kind takes and whose values the other; no two keys may mean the same."""

    def take(value: object) -> Mapping[N, T]:
        if not isinstance(value, dict):
            raise Misfit(shown(value))
        if len(value) > most:
            raise Misfit(f"{len(value)} {what}", expected=f"at most {most} {what}")
        taken: dict[N, T] = {}
        for key, item in value.items():
            name = _part(names, key, "")
            if name in taken:
                raise Misfit(shown(key), expected=f"each of the {what} once")
            taken[name] = _part(values, item, f".{key}")
        return taken

    expected = f"a table of {what}, each with {values.expected}"
    return Kind(expected, take, lambda table: {names.write(name): values.write(item) for name, item in table.items()})


def anything_by_name() -> Kind[Mapping[str, object]]:
    """A table of whatever TOML can say: others know what it means."""

    def take(value: object) -> Mapping[str, object]:
        if not isinstance(value, dict):
            raise Misfit(shown(value))
        return value

    return Kind("a table", take)


def _part(of: Kind[T], value: object, at: str) -> T:
    """A part of a value, whose misfit tells where in it."""
    try:
        return of.take(value)
    except Misfit as misfit:
        raise Misfit(
            misfit.found, expected=misfit.expected or of.expected, next_step=misfit.next_step, at=f"{at}{misfit.at}"
        ) from None
