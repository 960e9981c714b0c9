"""The system calls of processes, counted by strace while something is done.

Owns: strace, and the reading of its table. It slows down whom it counts: no time may be taken meanwhile.
Never here: what is done (measure), a figure (workloads).
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest

Done = TypeVar("Done")


def counted(pids: Sequence[int], work: Callable[[], Done]) -> tuple[int, Done]:
    """How often the threads of these processes called the kernel while the work was done, and what came of it."""
    if shutil.which("strace") is None:
        pytest.fail("strace is missing: apt-get install strace", pytrace=False)
    with TemporaryDirectory() as folder:
        table = Path(folder, "calls")
        argv = ["strace", "--summary-only", "--follow-forks", f"--output={table}", *(f"--attach={pid}" for pid in pids)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            try:
                for _ in pids:  # a line says that all threads of a process are attached
                    assert "attached" in (line := strace.stderr.readline()), line
                done = work()
            finally:
                strace.terminate()
                strace.communicate()  # it lets go of the threads, and says so
        return total(table.read_text()), done


def total(table: str) -> int:
    """All calls, whether or not they failed: an idle process has made none, and an empty table."""
    rows = re.findall(r"^ *\d+\.\d+ +\S+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", table, re.M)
    assert rows or not table.strip(), f"expected the table of `strace --summary-only`, found {table!r}"
    return sum(int(calls) for calls, name in rows if name != "total")
