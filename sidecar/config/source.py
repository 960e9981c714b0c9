"""The configuration file: opened once, checked, read whole, parsed as TOML.

Owns: which files are safe to obey, and where in the text each key stands.
Never here: what a key means; a second look at the path (what was checked is what is read).
"""

import os
import re
import stat
from collections.abc import Mapping
from typing import NamedTuple

from sidecar.errors import BAD_CONFIG, Problem, RelayError, reason

MOST_BYTES = 1024 * 1024  # a configuration has a few KB; a file of this size is a mistake


class Document(NamedTuple):
    """A parsed file: its tables, and the line of each table and key ("relay", "relay.user", "listener[0].port")."""

    tables: Mapping[str, object]
    lines: Mapping[str, int]


def read_document(path: str) -> Document:
    """Open, check and parse; RelayError (exit status 78) says what is wrong with the file as a whole."""
    text = _decode(path, _read_safely(path))
    import tomli  # nine milliseconds that client commands without a file do not pay

    try:
        tables = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        where = f"{path}: line {error.lineno}, column {error.colno}"
        raise _refusal(where, "TOML", f"an error: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # nested too deep; an integer of thousands of digits
        raise _refusal(path, "TOML", f"an error: {error}") from None
    return Document(tables, _lines_of_keys(text))


def _refusal(where: str, expected: str, found: str, next_step: str = "") -> RelayError:
    return RelayError(Problem(where, expected, found, next_step), exit_status=BAD_CONFIG)


def _read_safely(path: str) -> bytes:
    """The bytes of a regular file that only root, this user or SUDO_UID can have written."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer. Symlinks are followed, as ConfigMaps need.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _refusal(path, "a readable file", reason(error)) from None
    try:
        _check_safe(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _refusal(path, "a readable file", reason(error)) from None
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise _refusal(path, f"at most {MOST_BYTES} bytes (1 MiB)", "more")
    return content


def _check_safe(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        raise _refusal(path, "a regular file", kinds.get(stat.S_IFMT(status.st_mode), "something else"))
    owners = {0, os.geteuid()}
    if (sudo_uid := os.environ.get("SUDO_UID", "")).isdecimal():
        owners.add(int(sudo_uid))
    if status.st_uid not in owners:
        trusted = " or ".join(map(str, sorted(owners)))
        raise _refusal(path, f"a file of user {trusted}", f"user {status.st_uid}", "its owner could change what the relay does")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        raise _refusal(path, "a file that only its owner may write", mode, "chmod go-w")


def _decode(path: str, content: bytes) -> str:
    if content.startswith(b"\xef\xbb\xbf"):
        raise _refusal(f"{path}: line 1", "no byte-order mark", "one", "save the file as UTF-8 without it")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refusal(f"{path}: line {line}", "UTF-8", f"the byte 0x{content[error.start]:02x}") from None
    if "\0" in text:
        raise _refusal(f"{path}: line {text.count(chr(10), 0, text.index(chr(0))) + 1}", "text", "a NUL")
    return text


HEADER = re.compile(r"[ \t]*(\[\[?)[ \t]*([A-Za-z0-9_.-]+)[ \t]*\]")
ASSIGNMENT = re.compile(r"[ \t]*\"?([A-Za-z0-9_-]+)\"?[ \t]*=")


def _lines_of_keys(text: str) -> dict[str, int]:
    """Where keys stand, for messages: exact for one key per line, as everyone writes them; else a near line, or none."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := HEADER.match(line):
            brackets, table = header.groups()
            if brackets == "[[":
                index = counts[table] = counts.get(table, -1) + 1
                table = f"{table}[{index}]"
            lines.setdefault(table, number)
        elif assignment := ASSIGNMENT.match(line):
            lines.setdefault(f"{table}.{assignment[1]}" if table else assignment[1], number)
    return lines
