"""Programs as another user, with the capabilities that a test gives them and no others."""

import os
import sys
from collections.abc import Sequence


def nobody_else() -> int:
    """A user whom no other test runs as. What the kernel counts per user, it counts over the whole machine."""
    return 100_000 + os.getpid()


def launcher(uid: int, *capabilities: str) -> list[str]:
    """What to put before a command: it runs as uid and gid `uid`, holds these capabilities alone, and can never gain more."""
    held = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        f"--inh-caps={held}",
        f"--ambient-caps={held}",
        f"--bounding-set={held}",
        "--no-new-privs",
    ]


def script(uid: int, source: str, *capabilities: str) -> Sequence[str]:
    """A few lines of Python as that user."""
    return [*launcher(uid, *capabilities), sys.executable, "-c", source]
