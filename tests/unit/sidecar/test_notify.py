"""sidecar.notify: the words of sd_notify."""

import os
import socket
from pathlib import Path

import pytest

from sidecar.notify import notify, watchdog_seconds


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    """systemd would wait for READY and kill the relay; containers' managers use the abstract namespace."""
    name = f"@relay-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        notify("READY=1", {"NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:1:2"])
def test_a_manager_that_does_not_listen_changes_nothing(address: str) -> None:
    """The relay would die with its manager, or without one."""
    notify("READY=1", {"NOTIFY_SOCKET": address})


def test_a_manager_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    """A stuck manager would stop the main thread."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        for _ in range(1000):
            notify("WATCHDOG=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_period(environ: dict[str, str], seconds: float | None) -> None:
    """A healthy relay would be killed, or one that nobody watches would wake up for nothing."""
    assert watchdog_seconds(environ) == seconds
