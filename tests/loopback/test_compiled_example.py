"""The example of compiled elements, built against the installed header as its README says, and at work in a real relay."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.peers import receive, receive_all, receive_until_reset
from tests.support.traffic import MIB, Stream, exchange
from tests.support.world import World, looped

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "compiled"


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """The example, built in place, where uid 1337 can read it."""
    with tempfile.TemporaryDirectory(prefix="compiled-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
        made = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CFLAGS": "-Wall -Wextra -Wno-missing-field-initializers"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stdout
        assert "warning: " not in made.stdout
        yield folder


@contextmanager
def relay(built: Path, **limits: object) -> Iterator[World]:
    """A relay with both of them, in the order of their relay.toml."""
    elements: list[Mapping[str, Any]] = [
        {"name": "lines", "use": "line_limits:LineLimits", "options": limits},
        {"name": "pass", "use": "passing:Pass"},
    ]
    path = os.pathsep.join([str(built), str(ROOT)])
    with looped(elements=elements, environment={"PYTHONPATH": path}) as world:
        world.path.listen()
        yield world


def test_the_header_stands_alone(built: Path) -> None:
    """A program in C or C++ that is stricter than ours could not include it."""
    include = ROOT / "relaycore" / "include"
    for language, standard in (("c", "c99"), ("c++", "c++11")):
        source = built / "alone"
        source.write_text(
            "#include <relay_element.h>\nstatic const relay_element none = {0};\nint main(void) { return (int)none.abi; }\n"
        )
        compiler = ["cc" if language == "c" else "c++", "-x", language, f"-std={standard}", "-pedantic", "-Wall", "-Werror"]
        if shutil.which(compiler[0]):
            subprocess.run([*compiler, "-I", include, "-fsyntax-only", source], check=True)
        else:
            assert language == "c++", "no C compiler: apt-get install gcc"


@pytest.mark.parametrize("size", [0, 1, 64 * MIB])
def test_bytes_pass(built: Path, size: int) -> None:
    """A user who begins with the example would begin with a stream that is not whole."""
    with relay(built, longest="1GiB") as world:
        client, origin, name = world.path.pair()
        exchange(client, origin, Stream(1, size), Stream(2, size))
        record = world.relay.access(client=name)
        assert (record["bytes_sent"], record["bytes_received"], record["reason"]) == (size, size, "finished")
        lines, passing = world.relay.ask("stats")["elements"]
        assert (lines["bytes_in"], lines["bytes_out"]) == (size, size)
        assert (passing["bytes_in"], passing["bytes_out"]) == (2 * size, 2 * size)


def test_a_line_too_long_is_cut_off(built: Path) -> None:
    """The limit would count pieces instead of lines."""
    with relay(built, longest="16B") as world:
        client, origin, name = world.path.pair()
        for piece in (b"sixteen ", b"byte----\n", b"\n", b"0123456789"):
            client.sendall(piece)
            assert receive(origin, len(piece)) == piece
        client.sendall(b"0123456")
        assert receive_until_reset(origin) == b""
        assert receive_until_reset(client) == b""
        record = world.relay.access(client=name)
        assert (record["reason"], record["element"]) == ("rejected", "lines")


def test_a_client_with_too_many_lines_is_shown_out(built: Path) -> None:
    """The last request that is allowed would be lost, or one more be let through."""
    with relay(built, most=3) as world:
        client, origin, name = world.path.pair()
        client.sendall(b"one\n")
        assert receive(origin, 4) == b"one\n"
        client.sendall(b"two\nthree\nfour\n")
        assert receive_all(origin) == b"two\nthree\n"
        assert receive_all(client) == b""
        assert world.relay.access(client=name)["reason"] == "rejected"


def test_loaded_again_it_is_the_same_code_with_new_limits(built: Path) -> None:
    """A reload would fail because a compiled module is loaded only once in a process."""
    with relay(built, most=1) as world:
        text = world.relay.config_path.read_text()
        world.relay.write_config(text.replace('"most" = 1', '"most" = 2'))
        world.relay.ask("reload")
        client, origin, _ = world.path.pair()
        client.sendall(b"one\ntwo\nthree\n")
        assert receive_all(origin) == b"one\ntwo\n"


def test_the_readme_tells_the_truth(built: Path) -> None:
    """Who tries the example first without a relay would see something else."""
    text = (EXAMPLE / "README.md").read_text()
    block = text.partition("## Try it")[2].partition("## What")[0]
    lines = [line.removeprefix("    ") for line in block.splitlines() if line.startswith("    ")]
    code, said = zip(*((line.partition("#")[0].rstrip(), line.partition("# ")[2]) for line in lines), strict=True)
    program = "\n".join(f"print(repr({each}))" if answer else each for each, answer in zip(code, said, strict=True))
    path = os.pathsep.join([str(built), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    expected = [repr(eval(answer)) for answer in said if answer]  # noqa: S307 - our own page
    assert done.stdout.splitlines() == expected
