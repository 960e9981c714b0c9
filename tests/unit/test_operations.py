"""docs/operations.md names every event, message, metric, reason, exit status, signal and command, and none that is not there.

What it must name is read from the code: from its tables where it has them, else from the calls that make a record or a message.
"""

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from relaycore import REASONS
from relaycore._use import TALLIES
from sidecar import errors
from sidecar.cli import INTERRUPTED, make_parser
from sidecar.config import Flags, load_config
from sidecar.proxy import elements_at_work, rules_state, signals
from sidecar.proxy.facts import Facts, Limits, Shown
from sidecar.proxy.settings import Changes
from sidecar.report import Family
from sidecar.rules import attempts
from sidecar.rules.apply import NOT_AS_SAID
from sidecar.rules_commands import DIFFERS
from tests.unit.sidecar.test_facts import Engine

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
HOLE = "…"  # stands on the page, and here, for what a message fills in

# Which argument of a call is the event of a record, and which what a message expected.
EVENT_AT = {"record": 1, "form": 1, "warn": 1, "refuse": 0, "_line": 2}
EXPECTED_AT = {"Problem": 1, "_refusal": 1, "refuse": 1, "warn": 1, "_problem": 1, "_problem_in_file": 1}
# The functions that make the fields of records which are not named in a call.
FIELDS_IN = {
    "start": [("proxy/start.py", "start_fields")],
    "access": [("proxy/facts.py", "access")],
    "rules": [("proxy/rules_state.py", "tell"), ("proxy/rules_state.py", "hear_companion"), ("rules/guard.py", "_shown")],
    "warning": [("report/records.py", "warn")],
    "log_dropped": [("report/records.py", "_drops")],
}
FOLDED = {"first"}  # what a companion says of a difference becomes the detail of a record
EVALUATED = "evaluated"  # what `apply` makes of an inbound trial that was not probed
NO_METRICS = {"relay_sidecar", "tcp_rmem", "tcp_wmem"}


# The page.


class Table(NamedTuple):
    """One table, under which heading it stands, and its cells."""

    heading: str
    head: list[str]
    rows: list[list[str]]


@cache
def tables() -> list[Table]:
    """All of the page."""
    found = []
    for part in re.split(r"^##+ ", PAGE.read_text(), flags=re.M):
        for block in re.findall(r"(?:^\|.*\n)+", part, re.M):
            head, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
            found.append(Table(part.partition("\n")[0], head, rows))
    return found


def spans(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def column(heading: str, name: str, *others: str) -> list[tuple[str, ...]]:
    """The cells of a column, each with those of other columns beside it."""
    found = [table for table in tables() if table.heading == heading and name in table.head]
    assert found, f"{PAGE.name}: expected a table with {name!r} under {heading!r}"
    return [tuple(row[table.head.index(each)] for each in (name, *others)) for table in found for row in table.rows]


def named(heading: str, name: str) -> set[str]:
    """What stands in backticks in a column."""
    return {span for (cell,) in column(heading, name) for span in spans(cell)}


# The code.


@cache
def sources() -> dict[str, ast.Module]:
    folder = ROOT / "sidecar"
    return {path.relative_to(folder).as_posix(): ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for file, tree in sources().items():
        yield from ((file, node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def calls(function: ast.AST) -> Iterator[tuple[str, str, ast.Call]]:
    """Each call with the name of what is called, and the last name of whose it is: ("record", "_report", …)."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, "", node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            whose = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            yield node.func.attr, whose, node


def phrases(node: ast.expr, function: ast.FunctionDef) -> set[str]:
    """What an expression of text may come to, with holes where it is made of something else."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.JoinedStr):
        return {"".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)}
    if isinstance(node, ast.IfExp):
        return phrases(node.body, function) | phrases(node.orelse, function)
    if isinstance(node, ast.Name):
        return {phrase for value in assigned(node.id, function) for phrase in phrases(value, function)} or {HOLE}
    return {HOLE}


def assigned(name: str, function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What a function gives to a name."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = (
                zip(target.elts, value.elts, strict=False)
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
                else [(target, value)]
            )
            yield from (given for to, given in pairs if isinstance(to, ast.Name) and to.id == name)


def messages() -> dict[str, str]:
    """What every message expects, and where it is made."""
    found = {}
    for file, function in functions():
        for name, whose, call in calls(function):
            at = EXPECTED_AT.get(name, 0)
            # A report's warn() and refuse() take problems that were made elsewhere.
            if at and len(call.args) > at and whose in ("", "self"):
                found |= {phrase: f"{file}: {function.name}" for phrase in phrases(call.args[at], function) if phrase != HOLE}
    return found


def events() -> dict[str, set[str]]:
    """Every event of a record, with its fields."""
    found: dict[str, set[str]] = {}
    for file, function in functions():
        for name, whose, call in calls(function):
            if name not in EVENT_AT or not (whose.endswith("report") or (file, whose) == ("report/records.py", "self")):
                continue
            event = call.args[EVENT_AT[name]] if len(call.args) > EVENT_AT[name] else ast.Constant("warning")
            if isinstance(event, ast.Constant):
                fields = found.setdefault(str(event.value), set())
                fields |= {keyword.arg for keyword in call.keywords if keyword.arg}
                fields |= {"errors"} if name == "refuse" else set()
            else:
                assert file == "report/records.py", f"{file}: {function.name}: an event that this test cannot read"
    for event, places in FIELDS_IN.items():
        found[event] |= {key for place in places for key in keys_in(*place)}
    found["reload"] |= set(Changes._fields)
    return found


def keys_in(file: str, name: str) -> set[str]:
    """The keys of all dictionaries that a function writes out."""
    made = [node for there, function in functions() if (there, function.name) == (file, name) for node in ast.walk(function)]
    assert made, f"{file} has no {name}()"
    keys = [key for node in made if isinstance(node, ast.Dict) for key in node.keys]
    return {str(key.value) for key in keys if isinstance(key, ast.Constant)} - FOLDED


def served(what: str) -> set[str]:
    """The names that a relay serves: commands of its admin socket, paths of metrics or of health."""
    tree = sources()["proxy/relay.py"]
    (given,) = [
        keyword.value for name, _, call in calls(tree) if name == "Admin" for keyword in call.keywords if keyword.arg == what
    ]
    assert isinstance(given, ast.Dict)
    return {str(key.value) for key in given.keys if isinstance(key, ast.Constant)}


def families() -> list[Family]:
    """Every metric, as /metrics would show it."""
    shown = [Shown(listener, listener.port, []) for listener in load_config(Flags(), {}).listeners]
    facts = Facts(Engine(), shown)  # type: ignore[arg-type]
    relay = facts.families(ready=True, limits=Limits(1, 2, 3, 4), log_dropped=0, rules_work=True)
    return [*relay, *elements_at_work.families({"one": dict.fromkeys(TALLIES, 1)})]


# Both, compared.


def test_every_exit_status() -> None:
    """A script would be told a number that nobody explains."""
    known = {0, DIFFERS, NOT_AS_SAID, INTERRUPTED, *(value for value in vars(errors).values() if isinstance(value, int))}
    assert {int(cell) for (cell,) in column("Exit status", "status")} == known


def test_every_command_has_its_exit_statuses() -> None:
    """Whoever runs a new command would not know how it fails."""
    found = set()
    for name, parser in commands(make_parser()):
        below = commands(parser)
        found |= {f"{name} {inner}" for inner, _ in below} or {name}
    assert named("Exit status", "command") == found


def commands(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [item for action in actions for item in action.choices.items()]


def test_every_signal() -> None:
    """A supervisor could send one that ends more than it should."""
    assert named("Signals", "signal") == {number.name for number in (*signals.HANDLED, *signals.IGNORED)}


def test_every_command_of_the_admin_socket_and_every_path() -> None:
    """A probe would be pointed at a path that is not there."""
    assert named("Admin socket", "command") == served("commands")
    assert named("Health and metrics", "path") == served("metrics") | served("health")


def test_every_event_with_its_fields() -> None:
    """A log pipeline would meet records that it does not know, or wait for ones that never come."""
    told = {spans(event)[0]: set(spans(fields)) for event, fields in column("Events", "event", "fields")}
    assert told == events()


def test_every_reason() -> None:
    """A flow would end for a reason that nobody explains."""
    assert named("Reasons", "reason") == set(REASONS)


def test_every_metric_with_its_type_and_labels() -> None:
    """An alert would be built on a name that stays empty, or a limit be hit without one."""
    told = {spans(name)[0]: (kind, set(spans(labels))) for name, kind, labels in column("Metrics", "metric", "type", "labels")}
    real = {
        family.name: (family.kind, {label for sample in family.samples for label, _ in sample.labels} - {"le"})
        for family in families()
    }
    assert told == real
    elsewhere = set(re.findall(r"(?<![.\w])(?:relay|tcp|process)_\w+", PAGE.read_text())) - NO_METRICS
    assert elsewhere <= set(real)


def test_every_state_word_and_verdict_about_rules() -> None:
    """Somebody who is woken by a word would not find it."""
    states = {getattr(rules_state, name) for name in ("NONE", "OK", "CHANGED", "MISSING", "UNKNOWN", "NOT_OBSERVABLE")}
    assert named("Rules", "state") == states
    assert named("Rules", "word") == set(rules_state._WORDS)
    assert named("Rules", "verdict") == {attempts.CAPTURED, attempts.FAILED, attempts.NOT_PROBED, EVALUATED}


def test_every_message() -> None:
    """A message would leave its reader alone, or the page explain one that no longer comes."""
    lines = [line for table in tables() if "expected" in table.head for line in column(table.heading, "expected")]
    told = {phrase for (cell,) in lines for phrase in spans(cell)}
    made = messages()
    assert {phrase: place for phrase, place in made.items() if phrase not in told} == {}
    assert told - set(made) == set()
