"""Puts a configuration together: file, environment and flags, each key from the first that has it, checked whole.

Owns: the order flag > environment > file > default, where each value came from, and the collecting of all problems.
Never here: what is valid for one key (schema) or for several together (checks); anything that binds, resolves or connects.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from sidecar.config.checks import Draft, check_together
from sidecar.config.kinds import Misfit, shown
from sidecar.config.schema import (
    DEFAULT_LISTENERS,
    MOST_ELEMENTS,
    MOST_LISTENERS,
    TABLES,
    Admin,
    Element,
    Listener,
    Log,
    Relay,
    Rules,
)
from sidecar.config.sections import REQUIRED, Key, Section
from sidecar.config.source import Document, read_document
from sidecar.errors import BAD_CONFIG, USAGE, Problem, RelayError

S = TypeVar("S", bound=Section)

ENVIRONMENT = {"LOG_LEVEL": "log.level", "LOG_FORMAT": "log.format", "TARGET_ADDR": "relay.target"}


class Flags(NamedTuple):
    """What the command line sets; empty means not given."""

    config: str = ""
    ports: tuple[int, ...] = ()
    interface: str = ""
    log_level: str = ""
    log_format: str = ""
    with_rules: bool = False


class Config(NamedTuple):
    """The whole configuration, valid."""

    file: str  # "": none
    relay: Relay
    listeners: tuple[Listener, ...]
    elements: tuple[Element, ...]
    rules: Rules
    log: Log
    admin: Admin
    interface: str
    with_rules: bool
    warnings: tuple[Problem, ...]
    places: Mapping[str, str]  # of the keys that a flag or the environment set: which

    def where(self, key: str) -> str:
        """The place to name in a message about a key, as in "relay.toml: relay.user"."""
        return self.places.get(key) or f"{self.file or 'defaults'}: {key}"

    def elements_of(self, listener: Listener) -> list[Element]:
        """Those that see the flows of a listener, in their order."""
        return [element for element in self.elements if not element.listeners or listener.name in element.listeners]

    def client_mark_of(self, listener: Listener) -> int:
        """SO_MARK of a listener, which all that it accepts inherits: by it the rules know what goes to untracked clients."""
        untracked = self.rules.notrack and listener.capture == "tproxy" and listener.direction != "outbound"
        return self.rules.client_mark if untracked else 0


def config_path(flags: Flags, environ: Mapping[str, str]) -> str:
    """The file that --config, else RELAY_CONFIG, names; "" for none."""
    return flags.config or environ.get("RELAY_CONFIG", "")


def load_config(flags: Flags, environ: Mapping[str, str]) -> Config:
    """Read and check everything. RelayError holds all problems; its exit status is 2 if only flags are wrong, else 78."""
    file = config_path(flags, environ)
    return _Loading(file, read_document(file) if file else Document({}, {}), flags, environ).finish()


def load_admin(flags: Flags, environ: Mapping[str, str]) -> Admin:
    """[admin] alone: how to reach a relay, also one whose file has since been spoilt elsewhere."""
    file = config_path(flags, environ)
    return _Loading(file, read_document(file) if file else Document({}, {}), flags, environ).admin()


class _Loading:
    """One load. A key is named by its dotted path, as in "relay.user" and "listener[0].port"."""

    def __init__(self, file: str, document: Document, flags: Flags, environ: Mapping[str, str]) -> None:
        self.file = file
        self.document = document
        self.flags = flags
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.unsound: set[str] = set()  # keys, and listeners, that have a problem: no check of several keys looks at them
        self.overrides: dict[str, str] = {}
        self.places: dict[str, str] = {}  # of the keys whose value is not the file's
        for place, key, value in (
            *((f"environment: {name}", key, environ.get(name, "")) for name, key in ENVIRONMENT.items()),
            ("--log-level", "log.level", flags.log_level),
            ("--log-format", "log.format", flags.log_format),
        ):
            if value:
                self.overrides[key], self.places[key] = value, place

    def finish(self) -> Config:
        """The configuration; or RelayError with every problem."""
        self._refuse_unknown_tables()
        relay = self._section(Relay, "relay", self._table("relay"))
        rules = self._section(Rules, "rules", self._table("rules"))
        log = self._section(Log, "log", self._table("log"))
        admin = self._section(Admin, "admin", self._table("admin"))
        listeners = {
            name: self._section(Listener, name, table)
            for name, table in self._listener_tables(relay.target is not None).items()
        }
        elements = {
            name: self._section(Element, name, table) for name, table in self._tables_of("element", MOST_ELEMENTS).items()
        }
        check_together(
            Draft(relay, listeners, elements, rules, admin, self.flags.interface, self.unsound),
            lambda *told: self.problems.append(self._problem(*told)),
            lambda *told: self.warnings.append(self._problem(*told)),
        )
        self._raise_problems()
        return Config(
            self.file,
            relay,
            tuple(listeners.values()),
            tuple(elements.values()),
            rules,
            log,
            admin,
            self.flags.interface,
            self.flags.with_rules,
            tuple(self.warnings),
            self.places,
        )

    def admin(self) -> Admin:
        """One section, or RelayError with its problems."""
        admin = self._section(Admin, "admin", self._table("admin"))
        self._raise_problems()
        return admin

    def _raise_problems(self) -> None:
        if self.problems:
            only_flags = all(problem.where.startswith("--") for problem in self.problems)
            raise RelayError(*self.problems, exit_status=USAGE if only_flags else BAD_CONFIG)

    def _problem(self, key: str, expected: str, found: str, next_step: str = "") -> Problem:
        """A problem at the place that the key's value came from: a flag, the environment or the file."""
        place = self.places.get(key, key if key.startswith("--") else "")
        return Problem(place, expected, found, next_step) if place else self._problem_in_file(key, expected, found, next_step)

    def _problem_in_file(self, key: str, expected: str, found: str, next_step: str = "") -> Problem:
        lines = self.document.lines
        # of the key; of the table that should not be one of several; of the array it is an entry of; of the table that lacks it
        nearest = (key, f"{key}[0]", key.rpartition("[")[0], key.rpartition(".")[0])
        line = next((lines[name] for name in nearest if name in lines), None)
        return Problem(f"{self.file or 'defaults'}: {key}", expected, f"{found} (line {line})" if line else found, next_step)

    def _refuse_unknown_tables(self) -> None:
        for name in self.document.tables:
            if name not in TABLES:
                home = next((table for table, section in TABLES.items() if name in section.keys), "")
                heading = f"[[{home}]]" if home in ("listener", "element") else f"[{home}]"
                hint = f"it belongs under {heading}" if home else _nearest(name, TABLES)
                self.problems.append(self._problem(name, "one of the tables " + ", ".join(TABLES), shown(name), hint))

    def _table(self, name: str) -> Mapping[str, object]:
        table = self.document.tables.get(name, {})
        if isinstance(table, dict):
            return table
        self.problems.append(self._problem(name, f"a table, [{name}]", shown(table)))
        return {}

    def _listener_tables(self, has_target: bool) -> dict[str, Mapping[str, object]]:
        """What --ports, else the file, else the default says, by dotted name."""
        tables = self._tables_of("listener", MOST_LISTENERS)
        if "listener" in self.unsound or (tables and not self.flags.ports):
            return tables
        # who names a target, and no listener, wants it used
        capture = {} if tables or not has_target else {"capture": "none"}
        defaults = [{**table, **capture} for table in DEFAULT_LISTENERS]
        if self.flags.ports:
            defaults = [{**table, "port": port} for table, port in zip(defaults, self.flags.ports, strict=False)]
            self.places |= {f"listener[{index}].port": "--ports" for index in range(len(defaults))}
        return {f"listener[{index}]": table for index, table in enumerate(defaults)}

    def _tables_of(self, name: str, most: int) -> dict[str, Mapping[str, object]]:
        """The tables of an array, by dotted name; none when it is no such array."""
        tables = self.document.tables.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.problems.append(self._problem(name, f"tables, [[{name}]]", shown(tables)))
            self.unsound.add(name)
            return {}
        if len(tables) > most:
            self.problems.append(self._problem(name, f"at most {most} {name}s", str(len(tables))))
            self.unsound.add(name)
            return {}
        return {f"{name}[{index}]": table for index, table in enumerate(tables)}

    def _section(self, section: type[S], path: str, table: Mapping[str, object]) -> S:
        """Take each key of one table. What has a problem is marked unsound, so that the rest can still be checked."""
        for name in table:
            if name not in section.keys:
                hint = _nearest(name, section.keys)
                self.problems.append(self._problem_in_file(f"{path}.{name}", "a known key", shown(name), hint))
        values: dict[str, object] = {}
        given = set()
        for name, key in section.keys.items():
            dotted = f"{path}.{name}"
            if key.default is not REQUIRED:
                values[name] = key.kind.take(key.default)
            elif name not in table:
                values[name] = None
                self.problems.append(self._problem_in_file(dotted, key.kind.expected, "nothing"))
                self.unsound |= {path, dotted}
            if name in table:
                given.add(name)
                values[name] = self._take(key, dotted, table[name], self._problem_in_file)
            if dotted in self.overrides:
                given.add(name)
                values[name] = self._take(key, dotted, self.overrides[dotted], self._problem)
        return section(values, frozenset(given))

    def _take(self, key: Key, dotted: str, value: object, problem: Callable[[str, str, str, str], Problem]) -> object:
        """The value as its kind wants it; None, and the key unsound, when it does not fit."""
        try:
            return key.kind.take(value)
        except Misfit as misfit:
            self.problems.append(
                problem(dotted + misfit.at, misfit.expected or key.kind.expected, misfit.found, misfit.next_step)
            )
            self.unsound |= {dotted, dotted.rpartition(".")[0]}
            return None


def _nearest(name: str, known: Iterable[str]) -> str:
    import difflib  # seven milliseconds that only a mistake pays

    matches = difflib.get_close_matches(name, known, n=1)
    return f"the nearest is {matches[0]}" if matches else f"known: {', '.join(known)}"
