"""`relay-sidecar rules …` as a user runs it, in a namespace of the tests.

Owns: the command line, its configuration file, and what a machine can read of what it printed; which captures and back ends
tests of rules are run over.
Never here: a look inside; what a test knows of the rules, the commands or the programs of others say.
"""

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.rules.keeper import ADDRESS
from tests.support.clock import eventually
from tests.support.netns import Namespace
from tests.support.relay import PROGRAM
from tests.support.toml import to_toml
from tests.support.ways import CAPTURES, UNTRACKED
from tests.support.world import Way, listeners

BACKENDS = ("nft", "iptables", "iptables-legacy")  # every one; the relay's own tests (ways) leave the oldest out

captures = pytest.mark.parametrize("capture", CAPTURES)
every_capture = pytest.mark.parametrize("capture", [*CAPTURES, UNTRACKED])
backends = pytest.mark.parametrize("backend", BACKENDS)

Tables = Mapping[str, Any]
Done = subprocess.CompletedProcess[str]


def tables(capture: str = "redirect", backend: str = "nft", **rules: Any) -> dict[str, Any]:
    """A configuration with both directions."""
    if capture == UNTRACKED:
        return tables("tproxy", backend, notrack=True, **rules)
    return {"rules": {"backend": backend, **rules}, "listener": listeners(Way(capture), {})}


class Pod:
    """A namespace, a configuration file, and the commands."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        self.namespace = namespace
        self.config = directory / "relay.toml"
        directory.chmod(0o755)  # the relay's user reads it too

    def configure(self, capture: str = "redirect", backend: str = "nft", **rules: Any) -> None:
        """Write the file."""
        self.config.write_text(to_toml(tables(capture, backend, **rules)))

    def argv(self, command: str, *arguments: str) -> list[str]:
        """A command line; apply does not probe."""
        configured = ["--config", str(self.config)] if command in ("show", "plan", "apply", "status") else []
        return [*PROGRAM, "rules", command, *configured, *(["--no-probe"] if command == "apply" else []), *arguments]

    def run(
        self,
        command: str,
        *arguments: str,
        status: int | None = 0,
        launcher: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """To its end, which has to be with this exit status (None: whatever)."""
        with self.namespace.entered():
            done = subprocess.run(
                [*launcher, *self.argv(command, *arguments)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
            )
        assert status in (None, done.returncode), f"{command}: {done.returncode}: {done.stderr}{done.stdout}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ask(self, command: str, *arguments: str, status: int | None = 0) -> Any:
        """What it says as JSON."""
        return json.loads(self.run(command, *arguments, "--json", status=status).stdout)

    def state(self) -> str:
        """The word of `rules status`, which its exit status has to bear out."""
        done = self.run("status", "--json", status=None)
        state = json.loads(done.stdout)["state"]
        assert done.returncode == (0 if state == "applied" else 1)
        return str(state)

    def popen(self, command: str, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Started; the caller ends it."""
        with self.namespace.entered():
            return subprocess.Popen([*options.pop("launcher", ()), *self.argv(command, *arguments)], **options)

    def kept(self) -> bool:
        """Whether a keeper holds the address of this namespace."""
        with self.namespace.entered(), socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.bind(ADDRESS)
            except OSError:
                return True
            return False

    def await_rest(self) -> None:
        """Until no keeper is left: whatever was to be undone is undone."""
        assert eventually(lambda: not self.kept(), within=30), "a keeper is still at work"


@contextmanager
def made() -> Iterator[Pod]:
    """A pod of its own."""
    namespace = Namespace("pod")
    try:
        with tempfile.TemporaryDirectory(prefix="rules-") as directory:
            yield Pod(Path(directory), namespace)
    finally:
        namespace.close()
