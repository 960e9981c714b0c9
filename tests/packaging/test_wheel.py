"""The wheel and the source distribution: what is in them, and that they work where nothing of this tree is."""

import signal
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar import __version__
from tests.support.netns import Place
from tests.support.network import V4
from tests.support.package import ROOT, Package, environment, install, run
from tests.support.path import Path as Way
from tests.support.peers import text_of
from tests.support.relay import NO_ENDPOINTS, relay_user
from tests.support.toml import to_toml
from tests.support.traffic import MIB, Stream, exchange

WHEELS = ("wheel", "wheel_of_sdist")
EXTENSIONS = list((ROOT / "relaycore").glob("*.pyx"))


@pytest.fixture(scope="module", params=WHEELS)
def programs(request: pytest.FixtureRequest, package: Package) -> Iterator[Path]:
    """The folder of programs of a clean environment with the wheel in it, and an empty directory beside it."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the relay's user reads its program, and its configuration again
        (folder / "empty").mkdir()
        yield install(folder / "venv", getattr(package, request.param))


def here(programs: Path) -> Path:
    return programs.parents[1] / "empty"


def names_in(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def names_of_sdist(package: Package) -> set[str]:
    with tarfile.open(package.sdist) as archive:
        return {entry.name.partition("/")[2] for entry in archive if entry.isfile()}


def test_the_wheel_holds_the_two_packages_and_nothing_else(package: Package) -> None:
    """A room would be missing at the user's, or tests and generated C would come along."""
    names = names_in(package.wheel).keys()
    found = {name for name in names if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(package.tree))
        for folder in ("relaycore", "sidecar")
        for path in (package.tree / folder).rglob("*")
        if path.suffix in (".py", ".pyi", ".pxd", ".h") or path.name == "py.typed"
    }
    built = found - sources
    assert {name.partition(".")[0] for name in built} == {str(path.relative_to(ROOT).with_suffix("")) for path in EXTENSIONS}
    assert all(name.endswith(".so") for name in built)
    assert found == sources | built
    assert {"relaycore/include/relay_element.h", "relaycore/py.typed", "sidecar/py.typed", "relaycore/_engine.pyi"} <= found
    assert {name.rpartition("/")[2] for name in names - found} >= {"LICENSE", "METADATA", "entry_points.txt"}


def test_the_source_distribution_holds_what_builds_and_deploys(package: Package) -> None:
    """Whoever builds from source, as distributions do, would lack a file."""
    names = names_of_sdist(package)
    tree = {
        str(path.relative_to(ROOT)) for folder in ("deploy", "etc", "docs", "examples") for path in (ROOT / folder).rglob("*.*")
    }
    assert tree - names == set()
    assert {"LICENSE", "README.md", "setup.py", "pyproject.toml", "relaycore/_engine.pyx"} <= names
    generated = [name for name in names if name.endswith((".c", ".so", ".pyc")) and name != "examples/compiled/passthrough.c"]
    assert generated + [name for name in names if name.startswith(("tests/", "build/"))] == []


def test_the_source_distribution_builds_to_the_same(package: Package, tmp_path: Path) -> None:
    """Two users with the same version would run different programs."""
    of_tree, of_sdist = names_in(package.wheel), names_in(package.wheel_of_sdist)
    assert package.wheel.name == package.wheel_of_sdist.name
    assert of_tree.keys() == of_sdist.keys()
    built = {name for name in of_tree if name.endswith(".so")}
    record = next(name for name in of_tree if name.endswith("/RECORD"))  # has their checksums
    assert {name for name in of_tree if of_tree[name] != of_sdist[name]} <= built | {record}
    for name in built:
        assert code_of(package.wheel, name, tmp_path / "1") == code_of(package.wheel_of_sdist, name, tmp_path / "2")


def code_of(wheel: Path, extension: str, folder: Path) -> bytes:
    """An extension without where it was built, which its debugging information and so its id tell."""
    with zipfile.ZipFile(wheel) as archive:
        file = archive.extract(extension, folder)
    run("strip", "--strip-debug", "--remove-section=.note.gnu.build-id", file, folder=folder)
    return Path(file).read_bytes()


def test_an_environment_has_what_is_required_and_nothing_more(programs: Path) -> None:
    """A user would have to install by hand what the wheel forgot to name, or get a compiler with it."""
    listed = run(programs / "pip", "list", "--format=freeze", folder=here(programs)).split()
    installed = {line.partition("==")[0] for line in listed} - {"pip", "setuptools", "wheel"}
    assert installed == {"relay-sidecar", "tomli", "setproctitle"}


def test_commands_work_from_an_empty_directory(programs: Path) -> None:
    """The installed program would need the tree that it was built from."""
    empty = here(programs)
    assert run(programs / "relay-sidecar", "--version", folder=empty) == f"relay-sidecar {__version__}\n"
    assert run(programs / "python", "-m", "sidecar", "--version", folder=empty) == f"relay-sidecar {__version__}\n"
    run(programs / "relay-sidecar", "check", folder=empty)
    assert "redirect to :15006" in run(programs / "relay-sidecar", "rules", "show", folder=empty)
    where = run(
        programs / "python", "-c", "import relaycore, sidecar; print(relaycore.__file__, sidecar.__file__)", folder=empty
    )
    assert [Path(path).is_relative_to(programs.parent) for path in where.split()] == [True, True]


@contextmanager
def relaying(argv: list[str], folder: Path, tables: dict[str, object]) -> Iterator["subprocess.Popen[bytes]"]:
    """The installed relay, until the caller ends it."""
    config = folder / "relay.toml"
    config.write_text(to_toml(tables))
    with subprocess.Popen([*argv, "--config", str(config)], cwd=folder, env=environment(), stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("start", [["relay-sidecar"], ["python", "-m", "sidecar"]], ids=["program", "module"])
def test_the_installed_relay_relays(programs: Path, start: list[str]) -> None:
    """A wheel that can be installed and not be used."""
    place, host, folder = Place(), "127.0.0.1", here(programs)
    sock = folder / "run" / "admin.sock"
    with Way(place, place, V4, host, (host, 0)) as way:
        way.listen()
        listener = {"name": "loop", "direction": "outbound", "port": 0, "capture": "none", "address": host}
        tables: dict[str, object] = {
            "relay": {"target": text_of(way.origin), "user": relay_user(), "group": relay_user()},
            "admin": {"socket": str(sock), **NO_ENDPOINTS},
            "listener": [listener],
        }
        with relaying([str(programs / start[0]), *start[1:]], folder, tables) as process:
            run(programs / "relay-sidecar", "wait", "--socket", sock, folder=folder)
            answer = run(programs / "relay-sidecar", "stats", "--json", "--socket", sock, folder=folder)
            way.dial_to = (host, int(answer.partition(f"{host}:")[2].partition('"')[0]))
            client, origin, _ = way.pair()
            exchange(client, origin, Stream(1, MIB), Stream(2, MIB))
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            assert b'"reason":"finished"' in out
