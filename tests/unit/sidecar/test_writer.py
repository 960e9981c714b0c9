"""sidecar.report.writer: a log that is blocked, full or gone."""

import errno
import fcntl
import os
import threading

import pytest

from sidecar.report import writer as module
from sidecar.report.writer import BATCH_LINES, Writer
from tests.support.clock import Stopwatch


class Disk:
    """os.write() as a test wants it: writes what `room` allows, then fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        self.written = b""
        self.tried = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        monkeypatch.setattr(module.os, "write", self.write)

    def write(self, _: int, data: bytes) -> int:
        self.tried.release()
        self.go_on.acquire()
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        self.written += taken
        return len(taken)

    def let(self, writes: int, room: int = 10**9) -> None:
        """Let so many writes happen, and wait until they were tried."""
        self.room = room
        for _ in range(writes):
            self.go_on.release()


def told(count: int) -> str:
    return f"dropped {count}\n"


def test_put_never_waits_for_a_reader() -> None:
    """A log collector that stops would stop probes, signals and the list of flows."""
    reader, descriptor = os.pipe()
    writer = Writer(descriptor, 100, told)
    writer.start()
    for number in range(5000):
        writer.put([b"%d %s\n" % (number, b"x" * 1000)])
    assert 4000 < writer.dropped <= 5000 - 100
    writer.close(0.01)
    os.close(reader)


def test_what_is_written_is_in_order_and_whole() -> None:
    """Records would be mixed up or torn."""
    reader, descriptor = os.pipe()
    writer = Writer(descriptor, 100_000, told)
    lines = [b"%d %s\n" % (number, b"x" * (number % 700)) for number in range(10_000)]
    for at in range(0, len(lines), 100):
        writer.put(lines[at : at + 100])
    writer.start()
    with os.fdopen(reader, "rb") as file:
        assert [file.readline() for _ in lines] == lines
    writer.close(5)
    os.close(descriptor)


def test_a_full_disk_is_told_once_when_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap would go unnoticed, or each lost record would be told by one more."""
    disk = Disk(monkeypatch)
    writer = Writer(1, 100, told)
    writer.put([b"a\n", b"b\n", b"c\n"])
    writer.start()
    disk.tried.acquire()
    writer.put([b"d\n"])
    disk.let(1, room=0)
    disk.tried.acquire()
    disk.let(1, room=10**9)
    disk.tried.acquire()  # the line that tells
    assert writer.dropped == 3
    disk.let(1)
    writer.close(5)
    assert disk.written == b"d\ndropped 3\n"


def test_a_torn_line_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a full disk, the first record would be glued to half of another one and lost with it."""
    disk = Disk(monkeypatch)
    writer = Writer(1, 100, told)
    writer.put([b"first\n", b"second\n"])
    writer.start()
    disk.tried.acquire()
    writer.put([b"third\n"])
    disk.let(2, room=9)
    disk.tried.acquire()
    disk.tried.acquire()
    disk.let(3)
    writer.close(5)
    assert disk.written == b"first\nsec\nthird\ndropped 1\n"
    assert writer.dropped == 1


def test_a_descriptor_that_is_non_blocking_is_waited_for() -> None:
    """Whoever shares our stdout and makes it non-blocking would lose our records."""
    reader, descriptor = os.pipe()
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_NONBLOCK)
    writer = Writer(descriptor, 100_000, told)
    line = b"x" * 999 + b"\n"
    writer.put([line] * 1000)
    writer.start()
    with os.fdopen(reader, "rb") as file:
        assert all(file.readline() == line for _ in range(1000))
    assert writer.dropped == 0
    writer.close(5)
    os.close(descriptor)


def test_a_reader_that_has_gone_is_survived() -> None:
    """SIGPIPE or EPIPE would end the relay with its log collector."""
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = Writer(descriptor, 100, told)
    writer.start()
    writer.put([b"a\n"])
    writer.close(5)
    assert writer.dropped == 1
    os.close(descriptor)


def test_settle_waits_for_the_queue_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last records of a drain would be dropped though somebody reads; or the end would never come."""
    disk = Disk(monkeypatch)
    writer = Writer(1, 10_000, told)
    writer.put([b"a\n"] * (BATCH_LINES + 1))
    writer.start()
    writer.settle(0.01)
    assert disk.written == b""
    disk.let(2)
    writer.settle(5)
    assert not writer._lines
    writer.close(5)
    assert disk.written.count(b"\n") == BATCH_LINES + 1


def test_a_writer_with_nothing_to_say_ends_at_once() -> None:
    """Every stop of the relay would take seconds."""
    watch = Stopwatch()
    writer = Writer(1, 3, told)
    writer.start()
    writer.close(60)
    assert watch.seconds < 5


def test_the_limit_holds() -> None:
    """Memory would grow with the time that nobody reads."""
    writer = Writer(1, 3, told)
    writer.put([b"x\n"] * 2)
    writer.put([b"x\n"] * 5)
    assert writer.dropped == 4
    assert len(writer._lines) == 3


def test_a_thread_that_has_ended_already_is_not_started_again() -> None:
    """A relay that ended well would exit with 1 and a traceback, once in a while: the thread is quicker than close()."""
    reader, descriptor = os.pipe()
    writer = Writer(descriptor, 16, str)
    writer.start()
    for _ in range(2):
        writer.close(1)
    os.close(descriptor)
    assert os.read(reader, 1) == b""
    os.close(reader)
