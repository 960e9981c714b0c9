"""benchmarks.calls: what is counted is what was done, in all threads of all processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.calls import counted, total

TABLE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.14    0.305583      305583         1           poll
 29.18    0.148254           4     35850           sendto
  0.08    0.000384          12        32        32 connect
------ ----------- ----------- --------- --------- ----------------
100.00    0.508157          14     35883        32 total
"""


@pytest.mark.parametrize(
    ("table", "count"),
    [
        (TABLE, 35883),
        (TABLE.replace("        32 ", "           "), 35883),
        (TABLE.replace("100.00    0.508157          14", "100.00    0.508157            "), 35883),  # as older ones print it
        ("", 0),
    ],
)
def test_all_calls_are_counted(table: str, count: int) -> None:
    """Errors, or times, would be taken for calls."""
    assert total(table) == count


def test_what_is_no_table_is_shown() -> None:
    """Another strace prints something else, and every relay would make no calls."""
    with pytest.raises(AssertionError, match="found 'strace: something'"):
        total("strace: something")


def test_a_strace_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page would be without these rows, and nobody would know why."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(pytest.fail.Exception, match="strace is missing: apt-get install strace"):
        counted([1], lambda: None)


# Each line of stdin asks for so many calls, of another thread and then of this one.
CALLING = """
import os, sys
from concurrent.futures import ThreadPoolExecutor

def call(count):
    for _ in range(count):
        os.getppid()

with ThreadPoolExecutor(1) as other:
    other.submit(call, 1).result()
    print("ready", flush=True)
    for line in sys.stdin:
        other.submit(call, int(line)).result()
        call(int(line))
        print("done", flush=True)
"""


@contextmanager
def calling() -> Iterator["subprocess.Popen[str]"]:
    argv = [sys.executable, "-c", CALLING]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def ask(count: int, *processes: "subprocess.Popen[str]") -> str:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
    return "".join(process.stdout.readline() for process in processes if process.stdout)


def test_the_calls_of_all_threads_and_processes_are_counted() -> None:
    """A relay with two processes, or with workers, would seem to make fewer calls than it does."""
    with calling() as one, calling() as other:
        pids = [one.pid, other.pid]
        few, _ = counted(pids, lambda: ask(100, one, other))
        more, said = counted(pids, lambda: ask(1100, one, other))
        assert said == "done\ndone\n"
        # Two processes, two threads each; how they wait for one another differs by a few.
        assert abs(more - few - 4000) < 100
        assert ask(1, one, other) == said  # strace has let go of both
