"""nft and iptables that go wrong: programs of the same names, found first in PATH, which do as a test says.

Owns: their text. A program that would only look, or try out, is always the real one; only changes are counted and go wrong.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

CHANGING = ("nft", *(f"{base}-{variant}-restore" for base in ("iptables", "ip6tables") for variant in ("nft", "legacy")))

FAIL = "echo 'Error: it is raining' >&2; exit 1"
FAIL_AFTERWARDS = "{real}; echo 'Error: too late' >&2; exit 1"
KILL_PARENT = "kill -KILL $PPID; {real}"
KILL_PARENT_AFTERWARDS = "{real}; kill -KILL $PPID"
# The keeper first: it would undo what its end is to leave.
KILL_BOTH = (
    'for child in $(cat /proc/$PPID/task/*/children); do [ "$child" = $$ ] || kill -KILL "$child"; done; kill -KILL $PPID'
)
KILL_BOTH_AFTERWARDS = f"{{real}}; {KILL_BOTH}"

_SCRIPT = """#!/bin/sh
case "$*" in *--test*|"-c "*|*"list "*|--version) exec {path} "$@" ;; esac
echo "{name} $*" >>{log}
[ "$(wc -l <{log})" = {number} ] || exec {path} "$@"
{deed}
"""


class FakePrograms:
    """A directory for PATH, in which the `number`-th change goes wrong; in every other way all is as it should be."""

    def __init__(self, directory: Path, deed: str, number: int) -> None:
        self._log = directory / "changes"
        self._bin = directory / "bin"
        shutil.rmtree(self._bin, ignore_errors=True)
        self._bin.mkdir()
        self._log.write_text("")
        for name in CHANGING:
            path = shutil.which(name)
            done = deed.format(real=f'{path} "$@"')
            script = self._bin / name
            script.write_text(_SCRIPT.format(name=name, path=path, log=self._log, number=number, deed=done))
            script.chmod(0o755)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"PATH": f"{self._bin}:/usr/sbin:/usr/bin:/sbin:/bin"}

    @property
    def changes(self) -> int:
        """How many were asked for."""
        return len(self._log.read_text().splitlines())


def linked(directory: Path, programs: Mapping[str, str], others: Iterable[str] = ()) -> Mapping[str, str]:
    """A PATH with these programs alone, under the names that a test gives them."""
    directory.mkdir()
    for name, real in {**programs, **{name: name for name in others}}.items():
        path = shutil.which(real)
        assert path, real
        (directory / name).symlink_to(Path(path).resolve())
    return {"PATH": str(directory)}
