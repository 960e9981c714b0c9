"""FirstBytes: what a protocol looks like, in a file of its owner's."""

from pathlib import Path
from typing import Any

import pytest

from relaycore.elements.first_bytes import FirstBytes
from relaycore.options import OptionError, Options, configured
from relaycore.testing import Drive


def drive(folder: Path, **options: Any) -> Drive:
    shared = configured(FirstBytes, Options({"file": "first.txt", "count": 8, **options}, directory=str(folder)))
    return Drive(FirstBytes, shared=[shared])


def test_the_first_bytes_of_both_directions_are_written(tmp_path: Path) -> None:
    """What was looked for would not be there, or more than was asked for."""
    flow = drive(tmp_path)
    assert flow.request(b"GET /\r\n secret") == b"GET /\r\n secret"
    assert flow.response(b"HT") == b"HT"
    assert flow.response(b"TP/1.1 200") == b"TP/1.1 200"
    text = (tmp_path / "first.txt").read_text()
    assert b"GET /\r\n ".hex(" ") in text
    assert b"HTTP/1.1".hex(" ") in text
    assert "secret" not in text
    assert flow.released


def test_few_bytes_are_written_at_the_end(tmp_path: Path) -> None:
    """A short exchange would leave nothing."""
    flow = drive(tmp_path)
    flow.request(b"ab")
    flow.close()
    assert b"ab".hex(" ") in (tmp_path / "first.txt").read_text()


def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    """Payloads would be open to every user of the machine."""
    drive(tmp_path).request(b"12345678")
    assert (tmp_path / "first.txt").stat().st_mode & 0o777 == 0o600


def test_there_is_no_file_unless_it_is_named() -> None:
    """Payloads would be written somewhere by default."""
    with pytest.raises(OptionError, match="file"):
        configured(FirstBytes, Options({}))


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    """`relay-sidecar check` as root would leave a file that the relay's user cannot write."""
    drive(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["nowhere/first.txt", "."])
def test_a_place_that_cannot_be_is_told_at_once(tmp_path: Path, file: str) -> None:
    """The first flow would learn of it."""
    with pytest.raises(OptionError, match="file"):
        configured(FirstBytes, Options({"file": file}, directory=str(tmp_path)))


def test_a_file_that_cannot_be_opened_is_an_error_once(tmp_path: Path) -> None:
    """Every flow would end because of a file."""
    shared = configured(FirstBytes, Options({"file": "first.txt", "count": 1}, directory=str(tmp_path)))
    (tmp_path / "first.txt").symlink_to("/dev/null")
    first = Drive(FirstBytes, shared=[shared])
    first.request(b"a")
    assert first.outcome == "failed"
    second = Drive(FirstBytes, shared=[shared])
    assert second.request(b"a") == b"a"
    assert second.outcome == "on"
