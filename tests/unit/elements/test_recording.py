"""The file of recorded flows: what was written is read, and what was not written is never read."""

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore.elements.recording import (
    BUFFER,
    HEAD,
    HEADER,
    LARGEST,
    MAGIC,
    Kind,
    NotARecording,
    Opening,
    Reader,
    Record,
    State,
    Writer,
    look,
)

NUMBERS = st.integers(0, 2**64 - 1)
RECORDS = st.builds(Record, st.sampled_from(Kind), NUMBERS, st.integers(0, 1), NUMBERS, st.binary(max_size=200))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
SOME = [Record(Kind.OPEN, 1), Record(Kind.BYTES, 1, 0, 5, b"question"), Record(Kind.END, 1, 1, 9), Record(Kind.CLOSE, 1)]


def read(path: Path) -> tuple[list[Record], State, int]:
    with Reader(str(path)) as reader:
        return list(reader), reader.state, reader.end


def write(path: Path, records: list[Record]) -> None:
    with Writer(str(path)) as writer:
        for record in records:
            writer.write(record.packed())


@given(st.lists(RECORDS, max_size=20), st.integers(0, 20))
def test_what_was_written_is_read(records: list[Record], pause: int) -> None:
    """A field would be lost, or the records of a second run of the relay."""
    with TemporaryDirectory() as name:
        path = Path(name, "file")
        write(path, records[:pause])
        write(path, records[pause:])
        assert read(path) == (records, State.WHOLE, path.stat().st_size)


@given(st.integers(0, 2**64 - 1), TEXTS, TEXTS, TEXTS)
def test_an_opening_is_read(wall: int, listener: str, client: str, origin: str) -> None:
    """Names with a space or a newline would be taken for two."""
    opening = Opening(wall, listener, client, origin)
    assert Opening.of(opening.packed()) == opening


@given(st.binary(max_size=60))
def test_any_payload_is_an_opening_or_refused(payload: bytes) -> None:
    """A recording from elsewhere would end its reader with an error that nobody expects."""
    try:
        Opening.of(payload)
    except NotARecording:
        return


@given(st.lists(RECORDS, max_size=8), st.data())
def test_a_cut_file_is_a_prefix_and_is_appended_to(records: list[Record], data: st.DataObject) -> None:
    """After a crash, what was recorded before would be unreadable, or what is recorded after."""
    with TemporaryDirectory() as name:
        path = Path(name, "file")
        write(path, records)
        cut = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(path, cut)
        found, state, end = read(path)
        assert found == records[: len(found)]
        ends = [len(HEADER) + sum(HEAD.size + len(record.payload) for record in records[:n]) for n in range(len(records) + 1)]
        assert len(found) == max(0, sum(end <= cut for end in ends) - 1)
        assert state is (State.WHOLE if cut in (0, *ends) else State.TORN)
        assert end == max([0, *(end for end in ends if end <= cut)])
        write(path, SOME)
        assert read(path) == ([*found, *SOME], State.WHOLE, path.stat().st_size)


@given(st.lists(RECORDS, min_size=1, max_size=8), st.data())
def test_a_changed_byte_is_found(records: list[Record], data: st.DataObject) -> None:
    """Bytes that no client has sent would be replayed."""
    with TemporaryDirectory() as name:
        path = Path(name, "file")
        write(path, records)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        if place < len(HEADER):
            with pytest.raises(NotARecording):
                read(path)
            return
        found, state, end = read(path)
        assert state is not State.WHOLE
        assert found == records[: len(found)]
        assert end <= place < end + HEAD.size + len(records[len(found)].payload)


def test_appending_after_damage(tmp_path: Path) -> None:
    """What is recorded behind a damaged record would never be read."""
    path = tmp_path / "file"
    write(path, SOME)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    write(path, SOME)
    assert read(path)[:2] == (SOME[:-1] + SOME, State.WHOLE)


@pytest.mark.parametrize("content", [b"hello", b"#!/bin/sh\nexit 0\n", MAGIC + b"\0\0\0\2"])
def test_another_file_is_left_alone(content: bytes, tmp_path: Path) -> None:
    """A wrong path would cost the operator a file."""
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(0o644)
    for action in (read, lambda path: write(path, SOME)):
        with pytest.raises(NotARecording):
            action(path)
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_nobody_else_reads_the_file(tmp_path: Path) -> None:
    """Payloads would be there for every user of the machine, in a file that was there before too."""
    path = tmp_path / "file"
    path.touch(0o666)
    write(path, SOME)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_and_a_pipe_are_refused(tmp_path: Path) -> None:
    """Somebody who may write the directory would choose which file grows, or would stop the relay at a pipe."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="symbolic"):
        Writer(str(tmp_path / "link"))
    with pytest.raises(NotARecording):
        Writer(str(tmp_path / "pipe"))
    assert not (tmp_path / "target").exists()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    """A second relay would cut off what the first one is writing."""
    path = tmp_path / "file"
    with Writer(str(path)), pytest.raises(BlockingIOError):
        Writer(str(path))
    write(path, SOME)
    assert read(path)[0] == SOME


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    """A long flow would be kept in memory until it ends."""
    path = tmp_path / "file"
    with Writer(str(path)) as writer:
        writer.write(SOME[1].packed())
        assert path.stat().st_size == len(HEADER)
        writer.write(Record(Kind.BYTES, 1, payload=bytes(BUFFER)).packed())
        assert path.stat().st_size == writer.size > BUFFER


def test_a_look_goes_on_where_one_ended(tmp_path: Path) -> None:
    """Two runs would give two flows one number, or a large file would be read again and again."""
    path = tmp_path / "file"
    write(path, [Record(Kind.OPEN, 7)])
    known = look(str(path))
    assert known == (path.stat().st_size, 7)
    write(path, [Record(Kind.OPEN, 3)])
    assert look(str(path), known) == (path.stat().st_size, 7)
    with Writer(str(path), known) as writer:
        assert (writer.flows, writer.size) == (7, path.stat().st_size)


def test_too_large_a_payload_is_not_written() -> None:
    """A record would be written that its own reader calls damaged."""
    with pytest.raises(ValueError, match="at most"):
        Record(Kind.BYTES, 1, payload=bytes(LARGEST + 1)).packed()
