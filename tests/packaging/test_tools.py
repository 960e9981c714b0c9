"""tools/: what a fresh machine lacks is said, by the line that mends it."""

import subprocess

from tests.support.package import ROOT
from tests.support.users import launcher

PACKAGES = ROOT / "tools" / "packages.sh"


def run(*packages: str) -> "subprocess.CompletedProcess[str]":
    argv = [*launcher(65534), str(PACKAGES), "make demo", *packages]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")


def test_without_root_the_line_is_said() -> None:
    """Whoever may not install would get a compiler's error, pages later."""
    done = run("coreutils", "no-such-package", "nor-this-one")
    assert done.returncode == 1
    assert done.stderr == (
        "make demo: expected Debian packages, found these missing: no-such-package nor-this-one; "
        "run: sudo apt-get install no-such-package nor-this-one\n"
    )


def test_where_all_is_there_nothing_is_said_or_done() -> None:
    """Each `make` would ask the network."""
    done = run("coreutils", "util-linux")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
