"""sidecar.inherited: sockets that a service manager passed."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import inherited
from sidecar.errors import Problem
from sidecar.inherited import take_inherited


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Neighbouring descriptors: a listening socket, one that does not listen, a pipe, a unix socket. (3 itself is taken.)"""
    base = 900
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(True)
    idle = socket.socket()
    reader, writer = os.pipe()
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "unix"))
    unix.listen()
    for offset, descriptor in enumerate((listening.fileno(), idle.fileno(), reader, unix.fileno())):
        os.dup2(descriptor, base + offset)
    monkeypatch.setattr(inherited, "FIRST_DESCRIPTOR", base)
    yield base
    for descriptor in (reader, writer):
        os.close(descriptor)
    listening.close()
    idle.close()
    unix.close()


def environment(count: object = 4, names: str = "web:x", pid: object = None) -> dict[str, str]:
    return {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names, "OTHER": "1"}


def test_listening_sockets_are_taken_and_others_are_told(first: int) -> None:
    """A service manager's socket would be ignored, or something that is none would be handed to the engine."""
    environ, warnings = environment(), list[Problem]()
    (taken,) = take_inherited(environ, warnings.append)
    assert taken.name == "web"
    assert not taken.socket.getblocking()
    assert not os.get_inheritable(taken.socket.fileno())
    assert environ == {"OTHER": "1"}
    where = "environment: LISTEN_FDS: descriptor"
    assert [str(warning) for warning in warnings] == [
        f"{where} {first + 1}: expected a listening TCP socket, found another socket; it was closed",
        f"{where} {first + 2}: expected a listening TCP socket, found Socket operation on non-socket",
        f"{where} {first + 3}: expected a listening TCP socket, found another socket; it was closed",
    ]
    taken.socket.close()
    os.close(first + 2)


def test_what_was_passed_to_another_process_is_left_alone(first: int) -> None:
    """A parent's announcement, inherited by accident, would make us use descriptors that mean something else."""
    environ, warnings = environment(pid=1), list[Problem]()
    assert take_inherited(environ, warnings.append) == []
    assert warnings == []
    for offset in range(4):
        os.close(first + offset)


@pytest.mark.parametrize("count", ["many", "-1", "", "99999999999"])
def test_a_wrong_count_is_told(count: str) -> None:
    """The relay would start with no socket and no word, or try a hundred million descriptors."""
    warnings = list[Problem]()
    assert take_inherited(environment(count), warnings.append) == []
    assert len(warnings) == 1
