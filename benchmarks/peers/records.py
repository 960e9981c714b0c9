"""What a log of connections has lost: a relay that drops records is faster than one that writes them.

Owns: the comparison of the log with the relay's own counters. Never here: the writing of either.
"""

import http.client
import re
from pathlib import Path

from tests.support.clock import DEADLINE, eventually
from tests.support.netns import Place

METRICS_PORT = 15020
RECORD = b'"event":"access"'
OPENED, LOST = "tcp_connections_opened_total", ("relay_records_lost_total", "relay_log_records_dropped_total")
_SAMPLE = re.compile(rf"^({'|'.join((OPENED, *LOST))})(?:{{.*}})? (\d+)$", re.M)


class Records:
    """The log of a relay, a file that grows."""

    def __init__(self, place: Place, log: Path, port: int = METRICS_PORT) -> None:
        self._place = place
        self._log = log
        self._port = port
        self._read = 0  # bytes, to the end of a line
        self._found = 0

    def lost(self, *, within: float = DEADLINE) -> int:
        """The losses that the relay has counted, once each connection is a record here or one of these."""

        def settled() -> bool:
            opened, gone = self._counted()
            return self._written() + gone == opened

        assert eventually(settled, within=within), (
            f"{self._log}: {self._written()} records; connections and losses: {self._counted()}"
        )
        return self._counted()[1]

    def _written(self) -> int:
        with self._log.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        self._found += whole.count(RECORD)
        return self._found

    def _counted(self) -> tuple[int, int]:
        """Connections, and records that are lost, by the metrics."""
        with self._place.entered():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
            try:
                connection.request("GET", "/metrics")
                samples = _SAMPLE.findall(connection.getresponse().read().decode())
            finally:
                connection.close()
        totals = {name: sum(int(value) for found, value in samples if found == name) for name in (OPENED, *LOST)}
        return totals[OPENED], sum(totals[name] for name in LOST)
