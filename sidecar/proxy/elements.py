"""The code of [[element]]: loaded as the relay's user, loaded again while it runs, and what becomes of its errors.

Owns: which class, with which options, the flows of a listener begin with.
Who may touch it: start and relay; `check` loads without a relay.
Never here: a flow; code that is run as root where the relay is somebody else.
"""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from relaycore import Engine
from relaycore._use import Use
from relaycore.faults import Faults
from relaycore.loading import LoadError, explained, load
from relaycore.options import OptionError, Options, configured
from sidecar.config import Config, Element, Listener
from sidecar.config.schema import MOST_ELEMENTS
from sidecar.errors import BAD_CONFIG, Problem, RelayError


class Loaded(NamedTuple):
    """What one load of all code made."""

    uses: Mapping[str, Use]  # by the element's name
    files: Mapping[str, Sequence[str]]


class Elements:
    """Of one relay. The engine knows an element by its number, which its name keeps for as long as the process lives."""

    def __init__(self, config: Config, mark: int) -> None:
        self.faults = Faults()
        self._mark = mark
        self._numbers: dict[str, int] = {}
        self._config = config
        self._loaded = self._load(config)
        self._stamps = self._stamp()
        self._served = [listener.name for listener in config.listeners if config.elements_of(listener)]

    @property
    def names(self) -> list[str]:
        """Of all elements that there were, in the order of their numbers."""
        return list(self._numbers)

    @property
    def config(self) -> Config:
        """The one that is loaded."""
        return self._config

    @property
    def watched(self) -> bool:
        """Whether changed() has anything to look at."""
        return any(element.watch for element in self._config.elements)

    def uses(self, listener: Listener) -> list[Use] | None:
        """What flows of a listener begin with; None for one that has no elements."""
        if listener.name not in self._served:
            return None
        return [self._loaded.uses[element.name] for element in self._config.elements_of(listener)]

    def reload(self, fresh: Config) -> list[str]:
        """Load everything anew. RelayError, and no effect, if anything does not load. The keys that wait for a restart."""
        self._loaded = self._load(fresh)
        self._config = fresh
        self._stamps = self._stamp()
        return [
            f"element[{index}].listeners"
            for index, element in enumerate(fresh.elements)
            if any(listener.name not in self._served and element in fresh.elements_of(listener) for listener in fresh.listeners)
        ]

    def hand_over(self, engine: Engine, listeners: Sequence[Listener]) -> None:
        """Flows that begin from now on have what is loaded now."""
        for number, listener in enumerate(listeners):
            uses = self.uses(listener)
            if uses is not None:
                engine.use_elements(number, uses)

    def changed(self) -> list[str]:
        """The names of watched elements whose files have changed since they were loaded, or since the last call."""
        stamps = self._stamp()
        changed = [
            element.name
            for element in self._config.elements
            if element.watch and stamps[element.name] != self._stamps[element.name]
        ]
        self._stamps = stamps
        return changed

    def _load(self, config: Config) -> Loaded:
        numbers = dict(self._numbers)
        for element in config.elements:
            numbers.setdefault(element.name, len(numbers))
        if len(numbers) > MOST_ELEMENTS:
            found = f"{len(numbers)} since the start"
            raise RelayError(Problem(config.where("element"), f"at most {MOST_ELEMENTS} names of elements", found, "restart"))
        loaded = load_elements(config, self.faults, numbers, self._mark)
        self._numbers = numbers
        return loaded

    def _stamp(self) -> dict[str, list[tuple[int, int, int] | None]]:
        return {name: [_stamp_of(file) for file in files] for name, files in self._loaded.files.items()}


def load_elements(config: Config, faults: Faults, numbers: Mapping[str, int], mark: int) -> Loaded:
    """Load and configure every element; RelayError (78) with all problems."""
    problems: list[Problem] = []
    uses: dict[str, Use] = {}
    files: dict[str, Sequence[str]] = {}
    for index, element in enumerate(config.elements):
        key = f"element[{index}]"
        try:
            uses[element.name], files[element.name] = _load_one(config, element, faults, numbers[element.name], mark)
        except LoadError as error:
            problems.append(Problem(config.where(f"{key}.use"), error.expected, error.found))
        except OptionError as error:
            problems.append(Problem(config.where(f"{key}.options.{error.where}"), error.expected, error.found))
        except Exception as error:  # of configure(), which is not ours
            found = explained(error, element.use).found
            problems.append(Problem(config.where(f"{key}.options"), "options that the element takes", found))
    if problems:
        raise RelayError(*problems, exit_status=BAD_CONFIG)
    return Loaded(uses, files)


def _load_one(config: Config, element: Element, faults: Faults, number: int, mark: int) -> tuple[Use, Sequence[str]]:
    directory = os.path.dirname(os.path.abspath(config.file)) if config.file else os.getcwd()
    found = load(element.use, directory)
    shared = configured(found.kind, Options(element.options, mark=mark, directory=directory))
    use = Use(
        number,
        element.name,
        found.kind,
        shared,
        faults,
        passes_errors=element.on_error == "pass",
        budget_ns=element.budget * 1_000_000,
        max_held=element.max_held,
        max_output=element.max_output,
    )
    return use, found.files


def _stamp_of(file: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
