"""The namespace's own addresses, followed while the relay runs.

Owns: the look at them after netlink has told of a change. Never here: what they mean (the engine's verdict).
"""

import socket
from collections.abc import Callable

from sidecar.addresses import own_networks
from sidecar.errors import Problem, reason
from sidecar.loop import READABLE, Loop
from sidecar.netlink import forget
from sidecar.report import Report

PAUSE_SECONDS = 0.1  # a routing daemon may change thousands


class AddressWatch:
    """Tells what the own networks are, each time that they have changed."""

    def __init__(
        self,
        watcher: socket.socket,
        networks: tuple[str, ...],
        loop: Loop,
        report: Report,
        changed: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._watcher = watcher
        self._networks = networks
        self._loop = loop
        self._report = report
        self._changed = changed

    def start(self) -> None:
        """Look from now on."""
        self._loop.watch(self._watcher.fileno(), READABLE, self._look)

    def _look(self) -> None:
        self._loop.forget(self._watcher.fileno())
        forget(self._watcher)
        try:
            networks = own_networks()
        except OSError as error:
            self._report.warn(
                Problem("rtnetlink", "the addresses of this network namespace", reason(error), "the old ones hold")
            )
            networks = self._networks
        if networks != self._networks:
            self._networks = networks
            self._changed(networks)
            self._report.record("debug", "addresses", own_networks=networks)
        self._loop.call_later(PAUSE_SECONDS, self.start)
