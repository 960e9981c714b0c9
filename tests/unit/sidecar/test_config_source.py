"""sidecar.config.source: which files are obeyed, and where their keys stand."""

import os
import socket
from pathlib import Path

import pytest

from sidecar.config.source import MOST_BYTES, read_document
from sidecar.errors import RelayError
from tests.unit.sidecar.conftest import WriteConfig


def refused(path: str) -> str:
    """The one line with which a file is refused, with exit status 78."""
    with pytest.raises(RelayError) as caught:
        read_document(path)
    assert caught.value.exit_status == 78
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line.removeprefix(f"{path}: ")


def test_a_file_that_others_may_write_is_refused(write_config: WriteConfig) -> None:
    """Any user of the group could change where connections go."""
    path = write_config("")
    for mode in (0o664, 0o646, 0o666):
        Path(path).chmod(mode)
        assert refused(path) == f"expected a file that only its owner may write, found mode {mode:04o}; chmod go-w"
    Path(path).chmod(0o400)
    assert read_document(path).tables == {}


def test_a_file_of_another_user_is_refused(write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could change what the relay does, whatever its mode is now."""
    path = write_config("")
    owner = Path(path).stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        os.chown(path, 4242, -1)
        owner = 4242
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert refused(path).endswith(f"found user {owner}; its owner could change what the relay does")
    monkeypatch.setenv("SUDO_UID", str(owner))
    assert read_document(path).tables == {}


def test_symlinks_are_followed(write_config: WriteConfig, tmp_path: Path) -> None:
    """A ConfigMap, which is a chain of symlinks, could not be used."""
    target = write_config("[log]\n")
    link = tmp_path / "link.toml"
    link.symlink_to(target)
    assert read_document(str(link)).tables == {"log": {}}


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO would hang the start, a device would be read for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    link = tmp_path / "link"
    link.symlink_to(fifo)
    assert refused(str(link)) == "expected a regular file, found a FIFO"
    assert refused("/dev/zero") == "expected a regular file, found a device"
    assert refused(str(tmp_path)) == "expected a regular file, found a directory"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))
        assert refused(str(tmp_path / "sock")) == "expected a readable file, found No such device or address"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A typing error in --config would start the relay with its defaults."""
    assert refused(str(tmp_path / "none")) == "expected a readable file, found No such file or directory"


def test_a_great_file_is_refused(write_config: WriteConfig) -> None:
    """Ten megabytes would be parsed before anybody noticed the mistake."""
    path = write_config("#" * MOST_BYTES)
    assert read_document(path).tables == {}
    path = write_config("#" * (MOST_BYTES + 1))
    assert refused(path) == "expected at most 1048576 bytes (1 MiB), found more"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xef\xbb\xbf[relay]\n", "line 1: expected no byte-order mark, found one; save the file as UTF-8 without it"),
        (b"[relay]\nuser = '\xff'\n", "line 2: expected UTF-8, found the byte 0xff"),
        (b"[relay]\n\n# \0\n", "line 3: expected text, found a NUL"),
        (b"[relay]\nuser = \n", "line 2, column 8: expected TOML, found an error: Invalid value"),
        (b"[relay]\n[relay]\n", "line 2, column 7: expected TOML, found an error: Cannot declare"),
        (b"x = " + b"9" * 5000, "expected TOML, found an error: "),
        (b"x = " + b"[" * 100_000, "expected TOML, found an error: "),
    ],
)
def test_a_file_that_is_no_toml_is_told_where(write_config: WriteConfig, content: bytes, told: str) -> None:
    """In a long file nobody could find the mistake; an odd one would end in a traceback."""
    path = write_config("")
    Path(path).write_bytes(content)
    assert refused(path).startswith(told)


def test_the_line_of_a_key_is_known(write_config: WriteConfig) -> None:
    """Messages would name a key, but not its line."""
    text = '# a\n[relay]\nuser = "1"\n\n[[listener]]\nport = 1\n[[listener]]\n"port" = 2 # [x]\n[ log ]\n  level="info"\n'
    lines = read_document(write_config(text)).lines
    assert lines == {
        "relay": 2,
        "relay.user": 3,
        "listener[0]": 5,
        "listener[0].port": 6,
        "listener[1]": 7,
        "listener[1].port": 8,
        "log": 9,
        "log.level": 10,
    }


def test_the_file_is_opened_once(write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked could be exchanged for something else before it is read."""
    path = write_config("[log]\n")
    opened = []
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda name, flags, *rest: opened.append(name) or real_open(name, flags, *rest))
    read_document(path)
    assert opened == [path]
