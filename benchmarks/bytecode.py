"""The bytecode that an installed package has beside its sources: without it a start would be measured that compiles first.

Owns: a copy of the packages for the time of the run, and the environment of whoever is started from the sources.
Never here: a file in the source tree.
"""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("sidecar", "relaycore", "benchmarks")


def environment() -> dict[str, str]:
    """This process's, for programs of the source tree that run as any user and in any folder."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
    return {**kept, "PYTHONPATH": _installed(), "PYTHONSAFEPATH": "1"}  # not the folder it is started in


@functools.cache
def _installed() -> str:
    """A folder with the packages as pip would leave them; everybody may read it."""
    folder = tempfile.mkdtemp(prefix="installed-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Path(folder).chmod(0o755)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, Path(folder, package), ignore=shutil.ignore_patterns("__pycache__"))
    # Only theirs: a cache in another place would hide the bytecode that the standard library has.
    argv = [sys.executable, "-m", "compileall", "-q", folder]
    subprocess.run(argv, env={**os.environ, "PYTHONPYCACHEPREFIX": ""}, check=True)
    return folder
