"""What went wrong, worded so that a user can act on it: one line with where, expected, found and the next step.

Owns: the shape of every message and the exit statuses. Anyone in sidecar raises it; cli alone prints it and exits.
Never here: printing, exiting, a traceback.
"""

import os
from typing import Final, NamedTuple

FAILED: Final = 1
USAGE: Final = 2
NO_PRIVILEGE: Final = 77
BAD_CONFIG: Final = 78


class Problem(NamedTuple):
    """One thing that is not as it should be; also the shape of a warning."""

    where: str
    expected: str
    found: str
    next_step: str = ""

    def __str__(self) -> str:
        """One line, whatever a file name or a value may hold."""
        line = f"{self.where}: expected {self.expected}, found {self.found}"
        if self.next_step:
            line += f"; {self.next_step}"
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


class RelayError(Exception):
    """Why a command cannot go on: all problems that were found, and the exit status that they mean."""

    def __init__(self, *problems: Problem, exit_status: int = FAILED) -> None:
        super().__init__(*problems)
        self.problems = problems
        self.exit_status = exit_status

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def reason(error: OSError) -> str:
    """The kernel's words for an OSError, without what Python adds to them."""
    return os.strerror(error.errno) if error.errno else str(error)
