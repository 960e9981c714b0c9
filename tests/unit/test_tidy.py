"""The house's rules that a machine can see. What is said twice in review becomes a line here.

A line that must break a rule says so: `tidy: why`.
"""

import ast
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(
    ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
).stdout.split()
FILES = [ROOT / name for name in TRACKED if (ROOT / name).is_file()] or [
    path for folder in ("relaycore", "sidecar", "tests") for path in (ROOT / folder).rglob("*.p[yx]*")
]
SOURCES = [path for path in FILES if path.suffix in (".py", ".pyx", ".pxd", ".pyi")]
ENGINE = [path for path in SOURCES if path.suffix in (".pyx", ".pxd") and path.parent.name == "relaycore"]
SIDECAR = [path for path in SOURCES if path.is_relative_to(ROOT / "sidecar")]

# From the ground up: a room takes from rooms before it, never from one after it.
ENGINE_ORDER = (
    *("_libc", "_check", "_atomic", "_sys", "_addr", "_stats", "_wheel", "_pipe", "_flow", "_table", "_move"),
    *("_calls", "compiled", "_compiled", "_capsule", "_names", "_ring", "_lines", "_use", "_chain", "_chains"),
    *("_mailbox", "_core", "_kept", "_close", "_spoof", "_dial", "_ask", "_run", "_accept", "_step"),
    *("_transfer", "_answer", "_sweep", "_worker", "_make", "_convert", "_warden", "_process", "_driver", "_engine"),
)
SIDECAR_ORDER = (
    *("errors", "users", "config", "netlink", "addresses", "links", "holders", "inherited", "notify", "loop", "wakeup"),
    *("listeners", "target", "privileges", "rules", "report", "admin", "proxy", "commands", "flags", "rules_commands"),
    *("demo", "cli"),
)
MAX_LINES = 330
MAX_FUNCTION_LINES = 70


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def numbered(path: Path) -> list[tuple[int, str]]:
    return [(n, line) for n, line in enumerate(path.read_text().splitlines(), 1) if "tidy:" not in line]


def places(paths: list[Path], pattern: str) -> list[str]:
    return [f"{shown(path)}:{n}: {line.strip()}" for path in paths for n, line in numbered(path) if re.search(pattern, line)]


@pytest.mark.parametrize("path", ENGINE, ids=shown)
def test_engine_rooms_import_one_way(path: Path) -> None:
    """A stranger could no longer read the engine from the ground up."""
    allowed = ENGINE_ORDER[: ENGINE_ORDER.index(path.stem)]
    taken = re.findall(r"^from relaycore\.(\w+) c?import", path.read_text(), re.M)
    assert [room for room in taken if room not in [*allowed, "_facts", "_words", "answers"]] == []


def sidecar_room(path: Path) -> str:
    return path.relative_to(ROOT / "sidecar").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SIDECAR, ids=shown)
def test_sidecar_rooms_import_one_way(path: Path) -> None:
    """Configuration would come to depend on the faces that show it."""
    room = sidecar_room(path)
    if room in ("__init__", "__main__"):
        return
    allowed = SIDECAR_ORDER[: SIDECAR_ORDER.index(room) + 1]
    taken = re.findall(r"^\s*from sidecar\.(\w+)", path.read_text(), re.M)
    assert [other for other in taken if other not in allowed] == []


def test_only_proxy_and_privileges_know_the_engine() -> None:
    """A face of the sidecar would stop working without the engine, and check would load it."""
    users = {sidecar_room(path) for path in SIDECAR if re.search(r"^\s*(from|import) relaycore", path.read_text(), re.M)}
    assert users <= {"proxy", "privileges"}


def test_the_engine_never_knows_the_sidecar() -> None:
    """The engine could not be used as a library."""
    assert places([path for path in SOURCES if path.is_relative_to(ROOT / "relaycore")], r"\bimport sidecar|from sidecar") == []


def code_of(path: Path) -> str:
    """The file without comments and strings, line for line."""
    blank = lambda match: "\n" * match.group().count("\n")  # noqa: E731
    return re.sub(r"#.*", "", re.sub(r'"""[\s\S]*?"""|"[^"\n]*"', blank, path.read_text()))


@pytest.mark.parametrize(
    ("pattern", "home"),
    [
        (r"^\s*with nogil", "_engine.pyx"),
        (r"\bwith gil", "_ask.pxd"),
        (r"(?<![.\w])errno\b(?! import)", "_sys.pxd"),
        (r"\bc_[a-z0-9_]+\(", "_sys.pxd"),
        (r"^cdef extern from", "_libc.pxd, _check.pxd, _atomic.pxd, compiled.pxd"),
        (r"^\s*include\b", "nowhere"),
        (r"^\s*assert\b", "nowhere"),
        (r"\bcpdef\b", "nowhere"),
    ],
)
def test_what_has_one_home_in_the_engine(pattern: str, home: str) -> None:
    """The unsafe parts would spread until nobody can review them."""
    elsewhere = [path for path in ENGINE if path.name not in home and path.name != "_libc.pxd"]
    assert [f"{shown(path)}: {found}" for path in elsewhere for found in re.findall(pattern, code_of(path), re.M)] == []


def test_nogil_functions_are_noexcept() -> None:
    """A bare nogil means `except? -1`, and -1 is -EPERM."""
    rooms = [path for path in ENGINE if path.suffix == ".pxd" and path.stem != "_libc"]
    assert places(rooms, r"^(cdef|\)).* nogil:") == places(rooms, r"^(cdef|\)).* noexcept nogil:")


@pytest.mark.parametrize("path", [path for path in SOURCES if path.read_text().strip()], ids=shown)
def test_a_file_begins_by_saying_what_it_is(path: Path) -> None:
    """A reader would have to guess what a file owns and what never happens there."""
    text = path.read_text()
    if path.suffix == ".pxd":
        assert text.startswith("# ")
        assert re.search(r"^# Owns: ", text, re.M)
        assert re.search(r"^# Who may touch it: ", text, re.M)
        assert re.search(r"^# Never here: ", text, re.M)
    else:
        assert text.startswith('"""')


@pytest.mark.parametrize("path", [path for path in SOURCES if "tests" not in path.parts], ids=shown)
def test_files_and_functions_stay_short(path: Path) -> None:
    """What grows over these usually has two things in it."""
    lines = path.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    for name, length in function_lengths(path, lines):
        assert length <= MAX_FUNCTION_LINES, f"{shown(path)}: {name} has {length} lines"


def function_lengths(path: Path, lines: list[str]) -> list[tuple[str, int]]:
    if path.suffix in (".py", ".pyi"):
        functions = [node for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.FunctionDef)]
        return [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    # Cython: from one definition to the next.
    starts = [n for n, line in enumerate(lines) if re.match(r"\s*def \w|(    )?cdef [^=]*\w\(", line)]
    return [(lines[start].strip(), end - start) for start, end in pairwise([*starts, len(lines)])]


def test_nothing_is_left_for_later() -> None:
    """Users would find promises instead of code."""
    assert places([path for path in SOURCES if path != Path(__file__)], r"TODO|FIXME|XXX|NotImplementedError") == []


def test_no_test_is_skipped_and_none_sleeps() -> None:
    """A skipped test proves nothing, and one that sleeps is slow or flaky."""
    tests = [path for path in SOURCES if "tests" in path.parts and path != Path(__file__)]
    assert places(tests, r"pytest\.skip|mark\.skip|mark\.xfail|importorskip|time\.sleep\(|asyncio\.sleep\(") == []


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name.startswith("test_")], ids=shown)
def test_a_test_says_what_would_break(path: Path) -> None:
    """Nobody would know whether a failing test matters."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{shown(path)}: {node.name} has no docstring"
