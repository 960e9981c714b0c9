"""The bytecode that an installed package has beside its sources: without it a start would be measured that compiles first.

Owns: a folder for the time of the run, and the environment of whoever is started from the sources.
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
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": _compiled()}


@functools.cache
def _compiled() -> str:
    """Where it is; everybody may read it."""
    folder = tempfile.mkdtemp(prefix="bytecode-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Path(folder).chmod(0o755)
    argv = [sys.executable, "-m", "compileall", "-q", *(str(ROOT / package) for package in PACKAGES)]
    subprocess.run(argv, env={**os.environ, "PYTHONPYCACHEPREFIX": folder}, check=True)
    return folder
