"""The options of an element, as its configuration gives them: taken by name, each with what was expected.

Owns: Options, OptionError, the spelling of durations and sizes in options.
Who may touch it: elements, in configure(), and who calls that.
Never here: the meaning of an option.
"""

import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

T = TypeVar("T")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"(\d{1,9})(us|ms|s|m|h)", re.ASCII)
SIZES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SIZE = re.compile(r"(\d{1,12})(B|KiB|MiB|GiB)", re.ASCII)
PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
SHOWN_CHARS = 60


class OptionError(ValueError):
    """An option that does not fit: where (`deny[0]`), what was expected, what was found."""

    def __init__(self, where: str, expected: str, found: object) -> None:
        self.where = where
        self.expected = expected
        self.found = found if isinstance(found, str) else _shown(found)
        super().__init__(f"{where}: expected {expected}, found {self.found}")


class _Missing:
    pass


MISSING = _Missing()


class Options(Mapping[str, Any]):
    """What stands under `options`. Each method takes one by its name; without a default the option must be there."""

    def __init__(
        self, values: Mapping[str, Any] | None = None, *, mark: int = 0, directory: str = ".", inside: str = ""
    ) -> None:
        self._values = dict(values or {})
        self._asked: set[str] = set()
        self._inside = inside  # where these stand in others: "deny[0]."
        self._tables: list[Options] = []
        self.mark = mark  # SO_MARK that the element's own connections need, so that no rule captures them; 0: none
        self.directory = directory  # of the configuration file: where relative paths begin

    def __getitem__(self, name: str) -> Any:
        self._asked.add(name)
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def unknown(self) -> list[str]:
        """Those that nobody has asked for."""
        return [name for name in self._values if name not in self._asked]

    def asked(self) -> list[str]:
        """Those that were."""
        return sorted(self._asked)

    def refuse_unknown(self) -> None:
        """OptionError for one that nobody has asked for, here or in a table."""
        for name in self.unknown():
            known = ", ".join(self.asked())
            raise OptionError(self._inside + name, f"one of {known}" if known else "no options", self[name])
        for table in self._tables:
            table.refuse_unknown()

    @overload
    def text(self, name: str) -> str: ...
    @overload
    def text(self, name: str, default: T) -> str | T: ...
    def text(self, name: str, default: Any = MISSING) -> Any:
        """Text in quotes."""
        return self._take(name, default, "text", lambda value: isinstance(value, str))

    def boolean(self, name: str, default: bool) -> bool:
        """true or false."""
        return bool(self._take(name, default, "true or false", lambda value: isinstance(value, bool)))

    @overload
    def integer(self, name: str, low: int, high: int) -> int: ...
    @overload
    def integer(self, name: str, low: int, high: int, default: T) -> int | T: ...
    def integer(self, name: str, low: int, high: int, default: Any = MISSING) -> Any:
        """A whole number from low to high."""
        expected = f"an integer from {low} to {high}"
        return self._take(name, default, expected, lambda value: type(value) is int and low <= value <= high)

    @overload
    def number(self, name: str, low: float, high: float) -> float: ...
    @overload
    def number(self, name: str, low: float, high: float, default: T) -> float | T: ...
    def number(self, name: str, low: float, high: float, default: Any = MISSING) -> Any:
        """A number from low to high."""
        fits = lambda value: type(value) in (int, float) and low <= value <= high  # noqa: E731
        return self._take(name, default, f"a number from {low:g} to {high:g}", fits, float)

    def pattern(self, name: str, pattern: "re.Pattern[str]", expected: str, default: str) -> str:
        """Text of a form."""
        fits = lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None  # noqa: E731
        return str(self._take(name, default, expected, fits))

    def path(self, name: str) -> str:
        """Of a file; a relative one begins where the configuration file is."""
        return os.path.join(self.directory, self.text(name))

    def choice(self, name: str, words: Sequence[str], default: str) -> str:
        """One of some words."""
        expected = "one of " + ", ".join(f'"{word}"' for word in words)
        return str(self._take(name, default, expected, lambda value: value in words))

    @overload
    def seconds(self, name: str) -> float: ...
    @overload
    def seconds(self, name: str, default: T) -> float | T: ...
    def seconds(self, name: str, default: Any = MISSING) -> Any:
        """A duration such as "250ms", in seconds."""
        return self._take(name, default, 'a duration such as "250ms" or "2s"', _is(DURATION), _seconds)

    @overload
    def size(self, name: str) -> int: ...
    @overload
    def size(self, name: str, default: T) -> int | T: ...
    def size(self, name: str, default: Any = MISSING) -> Any:
        """A size such as "64KiB", in bytes."""
        return self._take(name, default, 'a size such as "64KiB"', _is(SIZE), _bytes)

    def texts(self, name: str, default: Sequence[str] = ()) -> list[str]:
        """An array of texts."""
        self._array(name, default)
        for index, item in enumerate(self._values.get(name, ())):
            if not isinstance(item, str):
                raise self.misfit(f"{name}[{index}]", "text", item)
        return list(self._values.get(name, default))

    def integers(self, name: str, low: int, high: int, default: Sequence[int] = ()) -> list[int]:
        """An array of whole numbers."""
        self._array(name, default)
        for index, item in enumerate(self._values.get(name, ())):
            if type(item) is not int or not low <= item <= high:
                raise self.misfit(f"{name}[{index}]", f"an integer from {low} to {high}", item)
        return list(self._values.get(name, default))

    def networks(self, name: str) -> list[Network]:
        """An array of networks such as "10.0.0.0/8"; an address alone is a network of one."""
        found = []
        for index, text in enumerate(self.texts(name)):
            try:
                found.append(ipaddress.ip_network(text))
            except ValueError:
                raise self.misfit(f"{name}[{index}]", 'a network such as "10.0.0.0/8"', text) from None
        return found

    def ports(self, name: str) -> list[range]:
        """An array of ports and of ranges of them: 443, "8000-8999"."""
        self._array(name, ())
        found = []
        for index, item in enumerate(self._values.get(name, ())):
            match = PORTS.fullmatch(str(item)) if type(item) in (int, str) else None
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 0 < first <= last < 2**16:
                raise self.misfit(f"{name}[{index}]", 'a port or a range of them such as "8000-8999"', item)
            found.append(range(first, last + 1))
        return found

    def tables(self, name: str) -> "list[Options]":
        """An array of tables, each with options of its own."""
        self._array(name, ())
        found = []
        for index, item in enumerate(self._values.get(name, ())):
            if not isinstance(item, Mapping):
                raise self.misfit(f"{name}[{index}]", "a table", item)
            inside = f"{self._inside}{name}[{index}]."
            found.append(Options(item, mark=self.mark, directory=self.directory, inside=inside))
        self._tables += found
        return found

    def misfit(self, name: str, expected: str, found: object) -> OptionError:
        """To raise for an option of these that does not fit: where, also within tables, it says itself."""
        return OptionError(self._inside + name, expected, found)

    def address(self, name: str) -> tuple[str, int]:
        """A numeric address and a port: "10.0.0.1:80", "[::1]:80"."""
        text = self.text(name)
        host, colon, port = text.rpartition(":")
        try:
            number = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            if not colon or not 0 < int(port) < 2**16 or (number.version == 6) != host.startswith("["):
                raise ValueError(text)
        except ValueError:
            raise self.misfit(name, 'a numeric address and a port, "10.0.0.1:80" or "[::1]:80"', text) from None
        return str(number), int(port)

    def _array(self, name: str, default: object) -> None:
        self._take(name, default, "an array", lambda value: isinstance(value, list))

    def _take(self, name: str, default: Any, expected: str, fits: Any, made: Any = lambda value: value) -> Any:
        self._asked.add(name)
        if name not in self._values:
            if default is MISSING:
                raise self.misfit(name, expected, "nothing")
            return default
        if not fits(self._values[name]):
            raise self.misfit(name, expected, self._values[name])
        return made(self._values[name])


def configured(kind: Any, options: Options) -> Any:
    """What an element's configure() makes of the options. OptionError also for those that it did not ask for."""
    made = kind.configure(options)
    options.refuse_unknown()
    return made


def _is(pattern: "re.Pattern[str]") -> Any:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _seconds(text: str) -> float:
    match = DURATION.fullmatch(text)
    assert match is not None  # noqa: S101 - _is() has looked
    return int(match[1]) * UNITS[match[2]]


def _bytes(text: str) -> int:
    match = SIZE.fullmatch(text)
    assert match is not None  # noqa: S101 - _is() has looked
    return int(match[1]) * SIZES[match[2]]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."
