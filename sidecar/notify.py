"""What a service manager is told (sd_notify(3)): ready, stopping, alive.

Owns: the datagrams to NOTIFY_SOCKET and the watchdog's period. Without those variables it does nothing.
Never here: a failure that anyone else notices; the relay does not depend on being heard.
"""

import contextlib
import os
import socket
from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send "READY=1" and the like, if somebody listens. A path that begins with @ is in the abstract namespace."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """How often "WATCHDOG=1" is due: twice in the manager's period; None when it does not watch this process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if (
        not microseconds.isdecimal()
        or int(microseconds) == 0
        or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid())
    ):
        return None
    return int(microseconds) / 1_000_000 / 2
