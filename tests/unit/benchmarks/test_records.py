"""benchmarks.peers.records: what a log has lost is counted, and what nobody counted is told."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from benchmarks.peers.records import Records
from tests.support.netns import Place

LINE = '{"time":"2026","level":"info","event":"access","flow":1}\n'
METRICS = """\
# TYPE tcp_connections_opened_total counter
tcp_connections_opened_total{{listener="gateway",direction="gateway"}} {opened}
tcp_connections_opened_total{{listener="other",direction="gateway"}} 1
relay_records_lost_total {lost}
relay_log_records_dropped_total {dropped}
"""


@contextmanager
def metrics(values: Mapping[str, int]) -> Iterator[int]:
    """A page of them, as they are when it is asked for; its port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.format_map(values).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_losses_are_those_that_the_relay_counted(tmp_path: Path) -> None:
    """A log with holes would be taken for a whole one."""
    log = tmp_path / "log"
    log.write_text('{"event":"start"}\n' + 3 * LINE)
    with metrics({"opened": 7, "lost": 2, "dropped": 3}) as port:
        assert Records(Place(), log, port).lost() == 5
    with metrics({"opened": 2, "lost": 0, "dropped": 0}) as port:
        assert Records(Place(), log, port).lost() == 0


def test_a_log_that_grows_is_read_on(tmp_path: Path) -> None:
    """A record would count twice, or one that was half written never."""
    log = tmp_path / "log"
    half = LINE.index("access")
    log.write_text(LINE + LINE[:half])
    values = {"opened": 0, "lost": 0, "dropped": 0}
    with metrics(values) as port:
        found = Records(Place(), log, port)
        assert found.lost() == 0
        with log.open("a") as file:
            file.write(LINE[half:] + LINE)
        values["opened"] = 2
        assert found.lost() == 0


def test_a_connection_that_is_nowhere_is_told(tmp_path: Path) -> None:
    """Records would vanish without anybody's knowledge."""
    log = tmp_path / "log"
    log.write_text(LINE)
    with metrics({"opened": 2, "lost": 1, "dropped": 0}) as port, pytest.raises(AssertionError, match=r"1 records.*\(3, 1\)"):
        Records(Place(), log, port).lost(within=0.05)
