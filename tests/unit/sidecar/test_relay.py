"""sidecar.proxy.relay with an engine of the test: faults and floods that the real one does not show on demand."""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relaycore import Form
from sidecar.admin import Sockets
from sidecar.config import Flags, load_config
from sidecar.privileges import Identity
from sidecar.proxy import address_watch
from sidecar.proxy import relay as module
from sidecar.proxy.facts import Shown
from sidecar.proxy.relay import RECORDS_AT_ONCE, Relay
from sidecar.proxy.rules_state import NONE, RulesState
from sidecar.proxy.start import Started
from sidecar.report import Report
from sidecar.users import Account

LINE = b'{"event":"access"}\n'


class Engine:
    """Two workers that do what a test says."""

    def __init__(self) -> None:
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.running = 2
        self.live = 0
        self.finished: list[bytes] = []
        self.calls: list[str] = []
        self.ends_on = {"drain", "stop"}
        self.asked_for_records = 0
        self.settings: list[Any] = []

    def ring(self) -> None:
        os.eventfd_write(self.bell, 1)

    def wakeup_fileno(self) -> int:
        return self.bell

    def lines(self, forms: list[Form], to_wall_ns: int, limit: int) -> list[bytes]:
        assert {form.quote for form in forms} == {b'"'}  # of JSON
        self.asked_for_records += 1
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bell)
        taken, self.finished = self.finished[:limit], self.finished[limit:]
        if self.finished:
            self.ring()
        return taken

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.ends_on:
            self.running = 0
            self.ring()

    def start(self) -> None:
        self._called("start")

    def drain(self) -> None:
        self._called("drain")

    def stop(self) -> None:
        self._called("stop")

    def join(self, timeout: float) -> bool:
        return self.running == 0

    def configure(self, settings: Any) -> None:
        self.settings.append(settings)

    def opened(self) -> list[int]:
        return [5, 0]


class Signals:
    """Signals that a test puts in."""

    def __init__(self, *numbers: int) -> None:
        self._reader, self._writer = socket.socketpair()
        self.numbers = list(numbers)
        if numbers:
            self._writer.send(b"x")

    def send(self, *numbers: int) -> None:
        self.numbers += numbers
        self._writer.send(b"x")

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> list[int]:
        self._reader.recv(10)
        taken, self.numbers = self.numbers, []
        return taken


class Run:
    """One life of a relay: its exit status and what it recorded."""

    def __init__(self, tmp_path: Path) -> None:
        self.engine = Engine()
        self.watched, self.watcher = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.watcher.setblocking(False)
        self.log = tmp_path / "log"
        self.messages = tmp_path / "messages"

    def __call__(self, signals: Signals) -> int:
        config = load_config(Flags(), {})
        account = Account(1337, "1337")
        shown = [Shown(listener, listener.port, []) for listener in config.listeners]
        with self.log.open("wb") as log, self.messages.open("wb") as messages:
            report = Report(config.log, log.fileno(), messages.fileno())
            started = Started(
                identity=Identity(account, account),
                capability="",
                mark=0,
                target=None,
                workers=2,
                listeners=shown,
                sockets=Sockets(None, None, None),
                rules=RulesState(report, NONE),
                watcher=self.watcher,
                own_networks=(),
                open_files=1000,
                capacity=300,
                engine=self.engine,  # type: ignore[arg-type]
                elements=None,
                companion=None,
            )
            status = Relay(started, config, Flags(), {}, report).run(signals)  # type: ignore[arg-type]
            report.close(5)
        return status

    def records(self, event: str) -> list[dict[str, Any]]:
        return [record for record in map(json.loads, self.log.read_text().splitlines()) if record["event"] == event]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(module, "show_title", lambda _: None)
    run = Run(tmp_path)
    yield run
    os.close(run.engine.bell)


def test_a_worker_that_ends_by_itself_ends_the_relay_as_failed(run: Run) -> None:
    """Half of the connections would hang for ever, and probes would say that all is well."""
    run.engine.running = 1
    run.engine.ring()
    assert run(Signals()) == 1
    assert run.engine.calls == ["start", "drain"]
    assert run.messages.read_text() == "engine: expected 2 workers, found 1 that ended by itself\n"
    assert run.records("stop")[0]["cause"] == "fault"


def test_workers_that_do_not_end_are_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two signals the relay would still be there, and only SIGKILL would help."""
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.01)
    run.engine.ends_on = set()
    run.engine.live = 7
    assert run(Signals(signal.SIGTERM, signal.SIGTERM)) == 1
    assert run.engine.calls == ["start", "drain", "stop"]
    assert run.messages.read_text() == "engine: expected all workers to end, found 2 that still run\n"
    assert run.records("stop")[0]["flows_cut"] == 7


def test_a_flood_of_records_is_written_in_turns(run: Run) -> None:
    """While ten thousand flows end, no probe would be answered; or some would be left out at the end."""
    run.engine.finished = [LINE] * (RECORDS_AT_ONCE * 3 + 5)
    run.engine.ring()
    assert run(Signals(signal.SIGTERM)) == 0
    assert len(run.records("access")) == RECORDS_AT_ONCE * 3 + 5
    assert run.engine.asked_for_records >= 4


def test_a_wake_up_per_flow_is_a_wake_up_per_batch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 50,000 connections a second would wake Python, and the engine would wait for its CPU."""
    signals = Signals()
    calls = []

    def record(loop: object, seconds: float, callback: Any) -> None:
        calls.append((seconds, callback.__name__))
        if callback.__name__ == "_watch_engine":
            assert run.engine.bell not in loop._selector.get_map()  # type: ignore[attr-defined]
            signals.send(signal.SIGTERM)

    monkeypatch.setattr(module.Loop, "call_later", record)
    run.engine.finished = [LINE]
    run.engine.ring()
    run.engine.ends_on = set()
    monkeypatch.setattr(Relay, "_drain", lambda self, _: self._give_up())
    assert run(signals) == 1
    assert (module.RECORDS_PAUSE_SECONDS, "_watch_engine") in calls


def test_changed_addresses_reach_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new address of the pod would be refused as foreign until the next start."""
    signals = Signals()
    dumps = iter([OSError(105, "No buffer space available"), ("10.0.0.1/32",)])

    def dump() -> tuple[str, ...]:
        answer = next(dumps)
        if isinstance(answer, OSError):
            run.watched.send(b"change")
            raise answer
        signals.send(signal.SIGTERM)
        return answer

    monkeypatch.setattr(address_watch, "own_networks", dump)
    monkeypatch.setattr(address_watch, "PAUSE_SECONDS", 0.001)
    run.watched.send(b"change")
    assert run(signals) == 0
    assert [settings.own_networks for settings in run.engine.settings] == [("10.0.0.1/32",)]
    assert (
        "rtnetlink: expected the addresses of this network namespace, found No buffer space available"
        in run.messages.read_text()
    )


def test_the_stop_record_counts(run: Run) -> None:
    """After the end nobody could say what the relay did."""
    assert run(Signals(signal.SIGINT)) == 0
    (stop,) = run.records("stop")
    assert (stop["cause"], stop["flows"], stop["flows_cut"], stop["log_records_dropped"]) == ("SIGINT", 5, 0, 0)
    assert 0 <= stop["uptime_s"] < 60
