"""sidecar.holders: why a port cannot be had."""

import errno
import os
import socket

import pytest

from sidecar import holders
from sidecar.errors import RelayError
from sidecar.holders import Holder, explained, parse_table, port_holder

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A9A 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 4711 1 ffff 100 0 0 10 0
   1: 0100007F:3A9A 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 ffff 100 0 0 10 0
   2: 0100007F:003A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 ffff 100 0 0 10 0
"""


def test_listening_sockets_of_a_port_are_found() -> None:
    """The message would name a client of the port, or the holder of another one."""
    assert parse_table(TABLE, 0x3A9A) == [Holder(1337, "4711")]
    assert parse_table(TABLE, 1) == []
    assert parse_table("", 1) == []


def test_the_holder_is_named_with_its_pid() -> None:
    """A user would have to look for the process that has the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_holder(port).endswith(f"(pid {os.getpid()})")
    assert port_holder(port) == ""


def test_a_holder_that_is_not_ours_to_see_is_named_by_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As uid 1337 nothing would be said of a process of root."""
    monkeypatch.setattr(holders, "_read", lambda path: TABLE if path.endswith("tcp") else "")
    assert port_holder(0x3A9A) == "a process of user 1337"


@pytest.mark.parametrize(
    ("error", "told", "status"),
    [
        (errno.EADDRINUSE, "found Address already in use; stop it, or choose another port", 1),
        (errno.EADDRNOTAVAIL, "found Cannot assign requested address; choose an address of this machine", 1),
        (
            errno.EACCES,
            "found Permission denied; ports below 1024 need CAP_NET_BIND_SERVICE: start as root, or choose another port",
            77,
        ),
        (errno.EPERM, "found Operation not permitted", 1),
    ],
)
def test_each_failure_has_its_next_step(error: int, told: str, status: int) -> None:
    """A user would read an errno, and not what to do."""
    with pytest.raises(RelayError) as caught, explained("listener x", "1.2.3.4:1", 1):
        raise OSError(error, "")
    assert str(caught.value) == f"listener x: expected to listen on 1.2.3.4:1, {told}"
    assert caught.value.exit_status == status
