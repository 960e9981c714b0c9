"""The life of a running relay: its one loop, what wakes it, and how it ends.

Owns: the engine and the main thread. Signals, finished flows, address changes, admin clients and timers arrive here one by one.
Never here: a byte of a flow; anything that blocks (the engine relays on, but a probe would go unanswered).
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from relaycore import Form
from sidecar import __version__
from sidecar.admin import Admin, Arguments, Page
from sidecar.config import Config, Flags, load_config
from sidecar.errors import FAILED, Problem, RelayError
from sidecar.loop import READABLE, Loop
from sidecar.notify import notify, watchdog_seconds
from sidecar.proxy.address_watch import AddressWatch
from sidecar.proxy.facts import Facts
from sidecar.proxy.settings import Changes, compare, engine_settings, with_live_keys
from sidecar.proxy.signals import Signals
from sidecar.proxy.start import Started, limits_of, start_fields
from sidecar.proxy.title import show_title
from sidecar.report import Report, exposition
from sidecar.report.flows import MOST_ROWS, parse_query, select
from sidecar.report.prometheus import CONTENT_TYPE
from sidecar.report.records import MARKS

if TYPE_CHECKING:
    from sidecar.proxy.elements_at_work import ElementsAtWork

RECORDS_AT_ONCE = 2048  # some milliseconds, between which probes and signals are served
RECORDS_PAUSE_SECONDS = 0.02  # so that a wake-up finds a batch of records, not one
TITLE_SECONDS = 1.0
JOIN_SECONDS = 5.0  # workers end within a batch; one that does not is a fault, and is told
LAST_WORDS_SECONDS = 2.0  # how long the end waits for a slow reader of the log


class Relay:
    """One per process: run() returns the exit status."""

    def __init__(self, started: Started, config: Config, flags: Flags, environ: Mapping[str, str], report: Report) -> None:
        self._started = started
        self._engine = started.engine
        self._config = config
        self._flags = flags
        self._environ = environ
        self._report = report
        self._networks = started.own_networks
        self._facts = Facts(started.engine, started.listeners)
        self._access_forms = self._spell_access()
        self._loop = Loop()
        self._elements = self._elements_at_work()
        self._since = time.monotonic()
        self._title = ""
        self._cause = ""  # of the end: a signal's name or "admin"; "" while connections are taken
        self._signals_to_end = 0
        self._cut = 0  # flows that the drain deadline, or a second signal, ended
        self._exit_status = 0
        self._over = False
        self._admin = Admin(
            self._loop,
            started.sockets,
            commands={
                "state": self._answer_state,
                "stats": self._answer_stats,
                "flows": self._answer_flows,
                "reload": self._answer_reload,
                "drain": self._answer_drain,
            },
            metrics={"/metrics": self._metrics_page, "/stats/prometheus": self._metrics_page},
            health={
                "/healthz": lambda: Page("alive\n"),
                "/readyz": self._readiness_page,
                "/healthz/ready": self._readiness_page,
            },
            failed=self._admin_failed,
        )

    def run(self, signals: Signals) -> int:
        """Relay until told to end; then the exit status."""
        self._report.start()
        self._report.record("info", "start", **start_fields(self._config, self._started))
        self._engine.start()
        if self._elements:
            self._elements.start(signals.fileno())
        probes = self._apply_rules()
        self._loop.watch(signals.fileno(), READABLE, lambda: self._on_signals(signals.take()))
        self._watch_engine()
        AddressWatch(self._started.watcher, self._networks, self._loop, self._report, self._on_networks).start()
        self._started.rules.watch(self._loop)
        if self._started.companion:
            self._loop.watch(self._started.companion.fileno(), READABLE, self._on_companion)
        self._report.record(
            "info",
            "ready",
            listeners={shown.listener.name: shown.addresses for shown in self._started.listeners},
            rules=self._started.rules.state,
            probes=probes,
        )
        notify("READY=1")
        self._pat_watchdog()
        self._refresh_title()
        while not self._over:
            self._loop.run_once()
        return self._end()

    # What wakes the loop.

    def _on_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                with contextlib.suppress(RelayError):  # told already; the old configuration goes on
                    self._reload()
            elif number == signal.SIGUSR1:  # an order, as `drain` is: it never counts as the second signal
                self._drain(signal.Signals(number).name)
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._signals_to_end += 1
                if self._signals_to_end == 1:
                    self._drain(signal.Signals(number).name)
                else:
                    self._exit_status = FAILED
                    self._stop()

    def _watch_engine(self) -> None:
        self._loop.watch(self._engine.wakeup_fileno(), READABLE, self._on_engine)

    def _on_engine(self) -> None:
        self._loop.forget(self._engine.wakeup_fileno())
        more = self._record_finished()
        running = self._engine.running
        if not self._cause and running < self._started.workers:
            fault = f"{self._started.workers - running} that ended by itself"
            self._report.refuse("fault", [Problem("engine", f"{self._started.workers} workers", fault)])
            self._exit_status = FAILED
            self._drain("fault")
        self._over = self._over or running == 0
        self._loop.call_later(0 if more else RECORDS_PAUSE_SECONDS, self._watch_engine)

    def _record_finished(self) -> bool:
        """Records of the flows that have finished; whether there may be more."""
        lines = self._engine.lines(self._access_forms, time.time_ns() - time.monotonic_ns(), RECORDS_AT_ONCE)
        self._report.access_lines(lines)
        return len(lines) == RECORDS_AT_ONCE

    def _on_networks(self, networks: tuple[str, ...]) -> None:
        self._networks = networks
        self._configure_engine()

    def _apply_rules(self) -> list[str] | None:
        """Now that connections are taken: what came of the probes, a line each; None when the rules are not ours to apply.

        RelayError when there can be no rules: then the relay has ended.
        """
        if not self._started.companion:
            return None
        try:
            applied = self._started.companion.apply()
        except RelayError as error:
            self._cause, self._exit_status = "rules", error.exit_status
            self._stop()
            self._end()
            raise
        self._started.rules.hear_companion(applied)
        return list(applied["probes"])

    def _on_companion(self) -> None:
        """The rules were changed, or put right again, or their guard is gone."""
        companion = self._started.companion
        for word in companion.take() if companion else []:
            self._started.rules.hear_companion(word)
            if companion and word["event"] == "gone":
                self._loop.forget(companion.fileno())

    def _pat_watchdog(self) -> None:
        seconds = watchdog_seconds()
        if seconds:
            notify("WATCHDOG=1")
            self._loop.call_later(seconds, self._pat_watchdog)

    def _refresh_title(self) -> None:
        ports = ", ".join(f"{shown.listener.name} {shown.port}" for shown in self._started.listeners)
        title = f"relay-sidecar: {ports}, {self._engine.live} flows{', draining' if self._cause else ''}"
        if title != self._title:
            self._title = title
            show_title(title)
        self._loop.call_later(TITLE_SECONDS, self._refresh_title)

    # How it ends.

    def _drain(self, cause: str) -> None:
        """Take no new connections, give the flows their time, then end. Again: nothing."""
        if self._cause:
            return
        self._cause = cause
        seconds = self._config.relay.drain_timeout / 1000
        notify("STOPPING=1")
        self._report.record("info", "drain", cause=cause, live=self._engine.live, deadline_s=seconds)
        self._engine.drain()
        self._loop.call_later(seconds, self._stop)

    def _stop(self) -> None:
        """Reset what is left, and end."""
        if self._engine.running:
            self._cut = max(self._cut, self._engine.live)
            self._engine.stop()
            self._loop.call_later(JOIN_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._over = True

    def _end(self) -> int:
        if not self._engine.join(0 if self._engine.running else JOIN_SECONDS):
            self._report.refuse("fault", [Problem("engine", "all workers to end", f"{self._engine.running} that still run")])
            self._exit_status = FAILED
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while self._record_finished():
            self._report.settle(deadline - time.monotonic())
        if self._elements:
            self._elements.tell()
        self._admin.close()
        if self._started.companion:
            self._started.companion.end()
        self._report.record(
            "info",
            "stop",
            cause=self._cause,
            exit_status=self._exit_status,
            flows=sum(self._engine.opened()),
            flows_cut=self._cut,
            uptime_s=round(time.monotonic() - self._since, 3),
            log_records_dropped=self._report.dropped,
        )
        return self._exit_status

    # What it is asked and told.

    def _reload(self) -> Changes:
        """Read the configuration again and apply what can be; RelayError, told and without effect, when it is not valid."""
        try:
            fresh = load_config(self._flags, self._environ)
            changes = compare(self._config, fresh)
            if self._elements:
                changes.restart.extend(self._elements.reload(fresh))
        except RelayError as error:
            self._report.refuse("reload", error.problems)
            raise
        if self._started.companion:  # the rules are those that it guards, until its relay is started again
            changes = changes._replace(restart=[*changes.restart, *changes.rules], rules=[])
        self._config = with_live_keys(self._config, fresh)
        self._report.configure(self._config.log)
        self._access_forms = self._spell_access()
        self._configure_engine()
        for problem in fresh.warnings:
            self._report.warn(problem)
        self._report.record("warn" if changes.restart or changes.rules else "info", "reload", **changes._asdict())
        if not self._started.companion:
            self._started.rules.expect(fresh)
        return changes

    def _elements_at_work(self) -> "ElementsAtWork | None":
        if not self._started.elements:
            return None
        from sidecar.proxy.elements_at_work import ElementsAtWork

        listeners = [shown.listener for shown in self._started.listeners]
        return ElementsAtWork(self._started.elements, self._engine, listeners, self._report, self._loop)

    def _spell_access(self) -> list[Form]:
        """Access records in the report's format: the engine fills in what it knows of each flow."""
        records = self._facts.access(MARKS.__getitem__)
        return [Form(*self._report.form("info", "access", fields)) for fields in records]

    def _configure_engine(self) -> None:
        capacity, mark = self._started.capacity, self._started.mark
        self._engine.configure(engine_settings(self._config, self._report.access, capacity, mark, self._networks))

    def _answer_state(self, _: Arguments) -> dict[str, object]:
        return {"state": "draining" if self._cause else "ready", "pid": os.getpid(), "version": __version__}

    def _answer_stats(self, arguments: Arguments) -> object:
        return {
            **self._answer_state(arguments),
            "uptime_s": round(time.monotonic() - self._since, 3),
            "limits": limits_of(self._config, self._started)._asdict(),
            **self._started.rules.fields(),
            **self._facts.stats(),
            "elements": self._elements.stats() if self._elements else [],
            "log_records_dropped": self._report.dropped,
        }

    def _answer_flows(self, arguments: Arguments) -> object:
        query = parse_query(arguments)
        try:
            flows = self._engine.flows()
        except TimeoutError as error:
            raise RelayError(Problem("engine", "a list of live flows", str(error), "ask again")) from None
        now_ns = time.monotonic_ns()
        chosen = select([self._facts.live_flow(flow, now_ns) for flow in flows], query)
        rows = chosen[: query.limit or MOST_ROWS]
        return {"live": self._engine.live, "listed": len(flows), "matching": len(chosen), "flows": rows}

    def _answer_reload(self, _: Arguments) -> object:
        return {"file": self._config.file or None, **self._reload()._asdict()}

    def _answer_drain(self, _: Arguments) -> object:
        self._drain("admin")
        return {"live": self._engine.live, "deadline_s": self._config.relay.drain_timeout / 1000}

    def _metrics_page(self) -> Page:
        families = self._facts.families(
            ready=not self._cause,
            limits=limits_of(self._config, self._started),
            log_dropped=self._report.dropped,
            rules_work=self._started.rules.works,
        )
        more = self._elements.families() if self._elements else []
        return Page(exposition([*families, *more]), content_type=CONTENT_TYPE)

    def _readiness_page(self) -> Page:
        return Page("draining\n", 503) if self._cause else Page("ready\n")

    def _admin_failed(self, error: Exception) -> None:
        self._report.record("error", "fault", message=f"admin: {type(error).__name__}: {error}")
