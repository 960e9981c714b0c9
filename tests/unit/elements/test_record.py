"""The element Record: what it writes, and that the flow never notices."""

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore.element import OptionError
from relaycore.elements.record import Record
from relaycore.elements.recording import CUT, HEAD, HEADER, Kind, Opening, Reader, State, Writer
from relaycore.elements.recording import Record as Entry
from relaycore.testing import Drive


def drive(path: Path, **options: Any) -> Drive:
    return Drive(Record, options={"file": str(path), **options})


def entries(path: Path) -> list[Entry]:
    with Reader(str(path)) as reader:
        found = list(reader)
        assert reader.state is State.WHOLE
        return found


def without_times(found: list[Entry]) -> list[tuple[Kind, int, int, bytes]]:
    return [(each.kind, each.flow, each.half, each.payload) for each in found if each.kind is not Kind.OPEN]


def talk(flow: Drive) -> None:
    assert flow.request(b"question") == b"question"
    assert flow.response(b"answer") == b"answer"
    assert flow.request(ends=True) == b""
    assert flow.response(b"bye", ends=True) == b"bye"
    flow.close("finished")


def test_a_flow_is_recorded(tmp_path: Path) -> None:
    """Something of the flow would be missing, or in another order than it was said."""
    path = tmp_path / "flows.rec"
    talk(drive(path))
    found = entries(path)
    opening = Opening.of(found[0].payload)
    assert found[0].kind is Kind.OPEN
    assert opening[1:] == ("outbound", "192.0.2.1:40000", "198.51.100.1:80")
    assert without_times(found) == [
        (Kind.BYTES, 1, 0, b"question"),
        (Kind.BYTES, 1, 1, b"answer"),
        (Kind.END, 1, 0, b""),
        (Kind.BYTES, 1, 1, b"bye"),
        (Kind.END, 1, 1, b""),
        (Kind.CLOSE, 1, 0, b"finished"),
    ]
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=50)), max_size=10), st.integers(0, 200))
def test_no_byte_changes_and_none_is_missing(tmp_path_factory: Any, pieces: list[tuple[int, bytes]], most: int) -> None:
    """The element would change what it is to watch; or a limit would cut in the middle and nobody would be told."""
    path = tmp_path_factory.mktemp("record") / "flows.rec"
    flow = drive(path, max_flow=f"{most}B")
    for half, piece in pieces:
        assert (flow.response if half else flow.request)(piece) == piece
    total = sum(len(piece) for _, piece in pieces)
    assert flow.released == (total > most)
    assert dict(flow.labels) == ({"record": "cut"} if total > most else {})
    flow.close()
    found = without_times(entries(path))
    assert found[-1] == (Kind.CLOSE, 1, 0, CUT if total > most else b"finished")
    assert b"".join(each[3] for each in found[:-1]) == b"".join(piece for _, piece in pieces)[:most]
    for half in (0, 1):
        said = b"".join(piece for which, piece in pieces if which == half)
        assert said.startswith(b"".join(each[3] for each in found[:-1] if each[2] == half))


def test_flows_have_numbers_of_their_own(tmp_path: Path) -> None:
    """Two flows would be read as one: of one load, of two, of two runs."""
    path = tmp_path / "flows.rec"
    first, second = drive(path), drive(path)
    talk(second)
    talk(first)
    assert [each.flow for each in entries(path) if each.kind is Kind.OPEN] == [1, 2]
    del first, second
    talk(drive(path))
    assert [each.flow for each in entries(path) if each.kind is Kind.OPEN] == [1, 2, 3]


def test_a_full_file_releases_flows(tmp_path: Path) -> None:
    """The disk would fill, or connections would end because of a recording."""
    path = tmp_path / "flows.rec"
    flow = drive(path, max_file="1KiB")
    assert flow.request(b"a" * 500) == b"a" * 500
    assert not flow.released
    assert flow.request(b"b" * 500) == b"b" * 500
    assert (flow.released, flow.outcome, dict(flow.labels)) == (True, "on", {"record": "full"})
    assert [each.payload for each in entries(path)][1:] == [b"a" * 500]
    assert path.stat().st_size <= 1024
    later = Drive(Record, shared=flow.shared)
    assert (later.released, later.outcome, dict(later.labels)) == (True, "on", {})


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file of this process grows beyond: EFBIG, as a full disk is ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full_ends_no_flow(tmp_path: Path) -> None:
    """Clients would pay for a full disk; or half a record would stay in the file; or every flow would tell of it."""
    path = tmp_path / "flows.rec"
    talk(drive(path))
    before = entries(path)
    flow = drive(path)
    other = Drive(Record, shared=flow.shared)
    with small_files(path.stat().st_size + 100):
        assert flow.request(b"x" * 100_000) == b"x" * 100_000
    assert (flow.released, flow.outcome, dict(flow.labels)) == (True, "on", {"record": "failed: File too large"})
    assert other.request(b"hello") == b"hello"
    assert (other.released, other.outcome, dict(other.labels), other.errors) == (True, "on", {}, [])
    assert entries(path) == before
    talk(drive(path))
    assert len(entries(path)) == 2 * len(before)


def test_an_error_at_the_end_of_a_flow_is_told_by_the_next(tmp_path: Path) -> None:
    """Nobody would learn that nothing is recorded any more."""
    path = tmp_path / "flows.rec"
    flow = drive(path)
    flow.request(b"x" * 1000)
    with small_files(100):
        flow.close()
    later = [Drive(Record, shared=flow.shared) for _ in range(2)]
    assert [dict(each.labels) for each in later] == [{"record": "failed: File too large"}, {}]
    assert all(each.released and not each.errors for each in [*later])


def test_a_file_of_somebody_else_ends_no_flow(tmp_path: Path) -> None:
    """A relay that takes over from another would lose flows, or spoil the other's file."""
    path = tmp_path / "flows.rec"
    with Writer(str(path)):
        flow = drive(path)
        assert (flow.released, flow.outcome) == (True, "on")
        assert flow.labels["record"].startswith("failed: ")


def test_a_file_that_was_moved_away_is_begun_again_by_a_load(tmp_path: Path) -> None:
    """An operator who takes a recording away would get no other."""
    path = tmp_path / "flows.rec"
    old = drive(path)
    path.rename(tmp_path / "old.rec")
    talk(drive(path))
    old.request(b"still here")
    old.close()
    assert len(entries(path)) == 7
    assert entries(tmp_path / "old.rec")[1].payload == b"still here"


def test_options_are_checked_and_nothing_is_written(tmp_path: Path) -> None:
    """A wrong path would be found by the first flow; or a check would write beside a relay that runs."""
    (tmp_path / "text").write_text("hello")
    (tmp_path / "link").symlink_to(tmp_path / "flows.rec")
    for name in ("text", "link", "none/flows.rec", ".", ""):
        with pytest.raises(OptionError, match=r"^file: expected"):
            drive(tmp_path / name if name else Path("/"))
    with pytest.raises(OptionError, match=r"^file: .*found nothing"):
        Drive(Record, options={})
    with pytest.raises(OptionError, match=r"^max_flow: "):
        drive(tmp_path / "flows.rec", max_flow=5)
    assert sorted(os.listdir(tmp_path)) == ["link", "text"]


def test_a_large_piece_is_recorded_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece larger than a record would be an error of the element."""
    monkeypatch.setattr("relaycore.elements.record.LARGEST", 10)
    path = tmp_path / "flows.rec"
    flow = drive(path)
    flow.request(b"abcdefghijklmnopqrstuvwxyz")
    flow.close()
    assert [each.payload for each in entries(path)][1:-1] == [b"abcdefghij", b"klmnopqrst", b"uvwxyz"]
    assert len(HEADER) + HEAD.size < path.stat().st_size
