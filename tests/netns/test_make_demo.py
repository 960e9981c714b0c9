"""`make demo` in a fresh copy, as the newcomer's first command: for root, and for a user who is not."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.foreign import snapshot
from tests.support.netns import Namespace, Place
from tests.support.package import copy_tree, environment
from tests.support.users import launcher

NOBODY = 65534
SECONDS = 300  # to build; the demo itself takes a few


def make(place: Place, checkout: Path, target: str, before: list[str]) -> str:
    with place.entered():
        done = subprocess.run(
            [*before, "make", "-C", str(checkout), target],
            env={**environment(), "HOME": str(checkout)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def processes_below(checkout: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [str(entry)] if str(checkout).encode() in entry.read_bytes() else []
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.long
@pytest.mark.parametrize("who", [0, NOBODY])
def test_make_demo(namespace: Namespace, tmp_path: Path, who: int) -> None:
    """The first command of the README would fail, or leave something where it was tried."""
    checkout = tmp_path / "checkout"
    copy_tree(checkout)
    below = tmp_path.relative_to(tempfile.gettempdir())
    for folder in (below, *below.parents[:-1]):  # pytest closes them to others
        (tempfile.gettempdir() / folder).chmod(0o755)
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, who, who)
    before = launcher(who) if who else []
    make(Place(), checkout, "build/demo/ready", before)  # with the machine's network, for what the build requires
    rules = snapshot(namespace)
    out = make(namespace, checkout, "demo", before)
    assert out.count(": as it should be\n") == 5
    assert "received 1.0 GiB" in out
    assert ("as user 1337" if who == 0 else "as you, without root") in out
    assert processes_below(checkout) == []
    assert snapshot(namespace) == rules
