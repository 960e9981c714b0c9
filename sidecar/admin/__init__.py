"""How a running relay is asked and told: the unix socket, metrics and health.

Owns: which of the three is opened, and what becomes of one that cannot be: a failure if its key was set, else a warning.
Never here: an answer (proxy has them), a port of a listener.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sidecar.admin.service import Dialect, Service
from sidecar.admin.unix import Arguments, Commands, Unix, ask, inode_of, open_socket, prepare_directory, remove_socket
from sidecar.admin.web import Page, Web, open_endpoint
from sidecar.config import Config
from sidecar.errors import Problem, RelayError
from sidecar.loop import Loop

__all__ = ["Admin", "Arguments", "Commands", "Page", "Sockets", "ask", "open_sockets", "prepare_directory"]

Pages = Mapping[str, Callable[[], Page]]


class Sockets(NamedTuple):
    """What could be opened, by its key in [admin]."""

    socket: socket.socket | None
    metrics: socket.socket | None
    health: socket.socket | None


def open_sockets(config: Config, warn: Callable[[Problem], None]) -> Sockets:
    """Listen, as the relay's user; RelayError for a key that was set and cannot be had."""
    return Sockets(
        _opened(config, "socket", open_socket, warn),
        _opened(config, "metrics", open_endpoint, warn),
        _opened(config, "health", open_endpoint, warn),
    )


def _opened(
    config: Config, key: str, open_it: Callable[[str, Any], socket.socket], warn: Callable[[Problem], None]
) -> socket.socket | None:
    place = getattr(config.admin, key)
    if not place:
        return None
    try:
        return open_it(config.where(f"admin.{key}"), place)
    except RelayError as error:
        if key in config.admin.given:
            raise
        for problem in error.problems:
            warn(problem)
        return None


class Admin:
    """The services on the sockets that are open, until close()."""

    def __init__(
        self,
        loop: Loop,
        sockets: Sockets,
        *,
        commands: Commands,
        metrics: Pages,
        health: Pages,
        failed: Callable[[Exception], None],
    ) -> None:
        self._path = sockets.socket.getsockname() if sockets.socket else ""
        self._inode = inode_of(self._path)
        dialects: tuple[Dialect, ...] = (Unix(commands, failed), Web(metrics, failed), Web(health, failed))
        self._services = [Service(loop, sock, dialect) for sock, dialect in zip(sockets, dialects, strict=True) if sock]

    def close(self) -> None:
        """End all services and remove the unix socket's file."""
        if self._path:
            remove_socket(self._path, self._inode)
        for service in self._services:
            service.close()
