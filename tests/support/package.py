"""The product as users get it: a source distribution, the wheel, and the wheel that is built from the source distribution.

Owns: how they are built and installed: from a copy of the tree, which the build would change, by the build requirements of the
test environment (PEP 517, without isolation). Never here: what must be in them (tests/packaging).
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 100
# The interpreter that the environment of the tests was made from: what a user has.
PYTHON = getattr(sys, "_base_executable", sys.executable)
# Whoever runs the tests has built the tree with these.
NOT_FOR_USERS = ("RELAY_PROBE", "RELAY_BUILD", "PYTHONPATH")

_BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"


class Package(NamedTuple):
    """Where they are."""

    sdist: Path
    wheel: Path  # of the tree
    wheel_of_sdist: Path
    tree: Path  # the copy that they were built from
    dependencies: Path  # wheels of what is required, for a machine without an index


def environment() -> dict[str, str]:
    """Without what only the tests set."""
    return {name: value for name, value in os.environ.items() if name not in NOT_FOR_USERS}


def run(*argv: str | Path, folder: Path) -> str:
    """What a program printed; it has to succeed."""
    done = subprocess.run(
        argv, cwd=folder, env=environment(), capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def made(factory: pytest.TempPathFactory) -> Package:
    """Built once in a run of the tests, also where several processes share it."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = factory.getbasetemp().parent / f"package-{run_id}" if run_id else factory.mktemp("package")
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            _build(folder)
            (folder / "built").touch()
    (sdist,), (wheel,) = (folder / "sdist").iterdir(), (folder / "wheel").iterdir()
    (wheel_of_sdist,) = (folder / "wheel-of-sdist").iterdir()
    return Package(sdist, wheel, wheel_of_sdist, folder / "tree", folder / "dependencies")


def install(directory: Path, wheel: Path) -> Path:
    """The wheel, with what it requires and nothing else, in an environment of its own; its folder of programs."""
    run(PYTHON, "-m", "venv", directory, folder=directory.parent)
    run(directory / "bin" / "pip", "install", "-q", wheel, folder=directory.parent)
    return directory / "bin"


def _build(folder: Path) -> None:
    tree, unpacked = folder / "tree", folder / "unpacked"
    copy_tree(tree)
    run(sys.executable, "-c", _BUILD, "sdist", folder / "sdist", folder=tree)
    run(sys.executable, "-c", _BUILD, "wheel", folder / "wheel", folder=tree)
    (sdist,) = (folder / "sdist").iterdir()
    unpacked.mkdir()
    run("tar", "-xf", sdist, folder=unpacked)
    (project,) = unpacked.iterdir()
    run(sys.executable, "-c", _BUILD, "wheel", folder / "wheel-of-sdist", folder=project)
    tools = folder / "tools"
    run(PYTHON, "-m", "venv", tools, folder=folder)
    run(tools / "bin" / "pip", "wheel", "-q", "-w", folder / "dependencies", "tomli", "setproctitle", folder=folder)


def copy_tree(target: Path) -> None:
    """What is in the repository, or would be; a copy that has no repository is taken without what a build leaves."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\0")
    names = [name for name in listed if name and (ROOT / name).is_file()]
    for name in names or _unlisted():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)


def _unlisted() -> list[str]:
    left_by_builds = {"build", "dist", "__pycache__"}
    names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file() and path.suffix not in (".so", ".pyc")]
    return [str(name) for name in names if not any(part in left_by_builds or part.startswith(".") for part in name.parts)]
