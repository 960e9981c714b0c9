"""From `use = "mypackage.firewall:Firewall"` or `"./firewall.py:Firewall"` to a class, also again while running.

Each load executes the code anew, as a module of its own: flows that began with the old code keep it.

Owns: sys.modules as far as elements are concerned. Who may touch it: whoever configures a relay; one thread at a time.
Never here: an element's options (configure does that), a flow.
"""

import importlib
import importlib.util
import itertools
import os
import stat
import sys
import traceback
from pathlib import Path
from types import ModuleType

from relaycore._use import check_compiled
from relaycore.element import Element

_loads = itertools.count(1)


class LoadError(Exception):
    """What was expected, what was found, and where in the code if it is the code's fault."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")
        self.expected = expected
        self.found = found


class Loaded:
    """A class, and the files whose change makes another one of it."""

    def __init__(self, kind: type[Element], files: tuple[str, ...]) -> None:
        self.kind = kind
        self.files = files


def load(use: str, directory: str) -> Loaded:
    """The class that `use` names; a path is relative to the directory. LoadError when there is none."""
    place, colon, name = use.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise LoadError('"package.module:Class" or "./file.py:Class"', f'"{use}"')
    is_path = place.endswith(".py") or "/" in place
    if not is_path and not all(part.isidentifier() for part in place.split(".")):
        raise LoadError('"package.module:Class" or "./file.py:Class"', f'"{use}"')
    module = _from_path(Path(directory, place)) if is_path else _from_package(place)
    kind = getattr(module, name, None)
    if kind is None:
        known = [word for word, value in vars(module).items() if _is_element(value) and value.__module__ == module.__name__]
        hint = f"; it has {', '.join(known)}" if known else ""
        raise LoadError(f"a class {name} in {place}", f"nothing of that name{hint}")
    if not _is_element(kind):
        what = "a class that is no Element" if isinstance(kind, type) else f"a {type(kind).__name__}"
        raise LoadError(f"{name} in {place} to be a subclass of relaycore.element.Element", what)
    try:
        check_compiled(kind)
    except TypeError as error:
        raise LoadError(f"{name} in {place} to have functions that this relay can call", str(error)) from error
    return Loaded(kind, _files_of(module))


def _is_element(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Element) and value is not Element


def _from_path(path: Path) -> ModuleType:
    # A name of its own for each load: the old module stays what it is for those who use it.
    name = f"relay_element_{next(_loads)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError("a Python file", str(path))
    module = importlib.util.module_from_spec(spec)
    try:
        # Read here: bytecode that another load has cached says nothing of a file that changed within the same second.
        code = _read_safely(path)
    except OSError as error:
        raise _unreadable(error, path) from error
    sys.modules[name] = module
    try:
        exec(compile(code, str(path), "exec"), module.__dict__)  # noqa: S102
    except BaseException as error:
        del sys.modules[name]
        raise _load_error(error, str(path)) from error
    return module


def _read_safely(path: Path) -> bytes:
    """The source, if nobody can have written it but root, this user, or who became root by sudo: as for the configuration."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        sudo = os.environ.get("SUDO_UID", "")
        if status.st_uid not in {0, os.geteuid(), int(sudo) if sudo.isdecimal() else 0}:
            raise LoadError(
                f"a file {path} of root or of this user", f"one of user {status.st_uid}, who could change what the relay does"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise LoadError(f"a file {path} that only its owner may write", f"mode {stat.S_IMODE(status.st_mode):04o}")
        return file.read()


def _from_package(name: str) -> ModuleType:
    """The module and its siblings of the same package are imported anew, unless they are parts of the relay itself."""
    top = name.partition(".")[0]
    old = {}
    if not _is_ours(name):
        old = {key: sys.modules.pop(key) for key in list(sys.modules) if key == top or key.startswith(f"{top}.")}
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except BaseException as error:
        for key in [] if _is_ours(name) else [key for key in sys.modules if key == top or key.startswith(f"{top}.")]:
            del sys.modules[key]
        sys.modules.update(old)
        raise _load_error(error, name) from error


def _is_ours(module: str) -> bool:
    """Whether it is a part of the relay, of which there is one only."""
    return module.partition(".")[0] in ("relaycore", "sidecar")


def _unreadable(error: OSError, path: Path) -> LoadError:
    if isinstance(error, FileNotFoundError):
        return LoadError(f"a file {path}", "none")
    return LoadError(f"a file {path} that this user can read", error.strerror or str(error))


def _load_error(error: BaseException, what: str) -> LoadError:
    if isinstance(error, ModuleNotFoundError) and error.name and (what == error.name or what.startswith(f"{error.name}.")):
        return LoadError(f"a module {what}", f"no module named {error.name}")
    return explained(error, what)


def explained(error: BaseException, what: str) -> LoadError:
    """An error of an element's code, with file and line."""
    words = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
    if isinstance(error, SyntaxError) and error.filename:
        return LoadError("code that loads", f"{error.filename}:{error.lineno}: {words}")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    own = [frame for frame in frames if frame.filename != __file__]
    place = f"{own[-1].filename}:{own[-1].lineno}" if own else what
    return LoadError("code that loads", f"{place}: {words}")


def _files_of(module: ModuleType) -> tuple[str, ...]:
    """Of the module, and of those of its package."""
    top = module.__name__.partition(".")[0]
    found = {getattr(module, "__file__", None)}
    if not _is_ours(module.__name__):
        found |= {
            getattr(other, "__file__", None)
            for key, other in list(sys.modules.items())
            if key == top or key.startswith(f"{top}.")
        }
    return tuple(sorted(file for file in found if file))
