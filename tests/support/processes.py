"""What /proc says of processes that somebody else started.

Never: a process of its own, a signal.
"""

import os
from pathlib import Path

from tests.support.netns import Namespace


def inside(namespace: Namespace) -> dict[int, dict[str, str]]:
    """What /proc says of each process there."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns" / "net") == os.readlink(namespace.path):
                lines = (process / "status").read_text().splitlines()
                found[int(process.name)] = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone since it was listed, or above us
    return found


def works(pid: int) -> bool:
    """Whether this process is there, and more than a name that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
