"""sidecar.proxy.rules_state: what is said of the rules, when, and on whose word."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.loop import Loop
from sidecar.proxy import rules_state as module
from sidecar.proxy.rules_state import NONE, NOT_OBSERVABLE, OK, RulesState, begin
from sidecar.report import Report
from sidecar.report.stats import _rules
from sidecar.rules.view import Verdict
from tests.unit.sidecar.conftest import Load

GONE = Verdict("missing", "nft (pid 7)", "no rules of ours are there")


class Observation:
    """Sockets of which one is readable, and a verdict that a test sets."""

    def __init__(self, verdict: Verdict) -> None:
        self.told = verdict
        self.reader, self.writer = os.pipe()
        self.expected: list[Any] = []
        self.failure: OSError | None = None

    def filenos(self) -> list[int]:
        return [self.reader]

    def verdict(self) -> Verdict:
        return self.told

    def expect(self, config: Any) -> None:
        self.expected.append(config)

    def hear(self) -> None:
        os.read(self.reader, 100)
        if self.failure:
            raise self.failure


class Run:
    """A state with what it has said."""

    def __init__(self, folder: Path, load: Load, verdict: Verdict | None) -> None:
        self.observation = Observation(verdict) if verdict else None
        self.log, self.messages = folder / "log", folder / "messages"
        self._files = self.log.open("wb"), self.messages.open("wb")
        self._report = Report(load().log, *(file.fileno() for file in self._files))
        self.state = RulesState(self._report, NOT_OBSERVABLE, "", self.observation)  # type: ignore[arg-type]
        self.loop = Loop()

    def change(self, verdict: Verdict) -> None:
        """The kernel tells of it."""
        assert self.observation
        self.observation.told = verdict
        os.write(self.observation.writer, b"x")
        self.loop.run_once()
        self.loop.run_once()

    def said(self) -> tuple[list[dict[str, Any]], str]:
        """Records and messages."""
        self._report.close(5)
        records = [json.loads(line) for line in self.log.read_text().splitlines()]
        for record in records:
            del record["time"]
        return records, self.messages.read_text()


@pytest.fixture
def run(tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.001)
    run = Run(tmp_path, load, Verdict(OK))
    run.state.watch(run.loop)
    yield run


def test_a_change_is_told_once_and_so_is_its_end(run: Run) -> None:
    """Nobody would learn that connections pass the relay by; or each look would say so again."""
    run.change(GONE)
    run.change(GONE._replace(by="iptables (pid 8)"))
    assert (run.state.state, run.state.works) == ("missing", False)
    run.change(Verdict(OK, "nft (pid 9)"))
    assert run.state.works
    records, messages = run.said()
    assert records == [
        {"level": "warn", "event": "rules", "state": "missing", "by": GONE.by, "detail": GONE.detail},
        {"level": "info", "event": "rules", "state": "ok", "by": "nft (pid 9)", "detail": None},
    ]
    assert messages.startswith(
        f"warning: rules: expected those of this configuration, found missing by {GONE.by} ({GONE.detail}); "
    )
    assert messages.count("\n") == 1


def test_what_others_do_leaves_a_companions_word_alone(run: Run) -> None:
    """Under iptables-legacy, which tells nobody, each foreign rule would make `ok` into `not observable`."""
    run.change(Verdict(NOT_OBSERVABLE))
    run.state.hear_companion({"event": "applied", "backend": "iptables-legacy"})
    run.change(Verdict(NOT_OBSERVABLE))
    assert run.state.fields() == {"rules": "ok", "rules_by": "the companion", "rules_detail": None}


def test_a_companion_is_believed(run: Run) -> None:
    """With `run --with-rules` a repair would go unmentioned, and the end of the guard too."""
    differences = {"differences": 5, "first": ["- rule 1", "+ rule 2"]}
    run.state.hear_companion({"event": "repaired", **differences})
    assert run.state.state == OK
    run.state.hear_companion({"event": "heartbeat"})
    run.state.hear_companion({"event": "changed", **differences})
    run.state.hear_companion({"event": "unknown", "because": "nft: it is raining"})
    run.state.hear_companion({"event": "as planned again", "differences": 0, "first": []})
    run.state.hear_companion({"event": "removed", "because": "the keeper was killed"})
    run.state.hear_companion({"event": "gone"})
    records, messages = run.said()
    assert [(record["what"], record["level"], record["state"], record["detail"]) for record in records] == [
        ("repaired", "warn", "ok", "- rule 1; + rule 2"),
        ("changed", "warn", "changed", "- rule 1; + rule 2"),
        ("unknown", "warn", "unknown", "nft: it is raining"),
        ("as planned again", "info", "ok", None),
        ("removed", "warn", "missing", "the keeper was killed"),
        ("gone", "warn", "missing", None),
    ]
    assert records[0]["differences"] == 5
    assert messages.count("\n") == 3


def test_before_the_relay_runs_the_start_record_tells(tmp_path: Path, load: Load) -> None:
    """A relay with a companion would begin its life with a warning about rules that are just being applied."""
    run = Run(tmp_path, load, GONE)
    assert run.state.fields() == {"rules": "missing", "rules_by": GONE.by, "rules_detail": GONE.detail}
    run.state.hear_companion({"event": "applied", "backend": "nft"})
    assert run.state.works
    assert run.said() == ([], "")


def test_what_can_no_longer_be_heard_is_not_known(run: Run) -> None:
    """The relay would say ok for the rest of its life, or spin on a broken socket."""
    assert run.observation
    run.observation.failure = OSError(errno.ENOMEM, "no memory")
    run.change(Verdict(OK))
    assert (run.state.state, run.state.detail) == ("unknown", "netlink: Cannot allocate memory")
    assert run.loop._selector.get_map() == {}
    run.state.expect(None)  # type: ignore[arg-type]
    assert run.observation.expected == []


def test_a_reload_is_another_expectation(run: Run, load: Load) -> None:
    """After a reload the relay would go on to judge by the old file."""
    assert run.observation
    run.observation.told = Verdict("changed", "", "rules of another configuration")
    run.state.expect(load())
    assert run.state.state == "changed"
    assert len(run.observation.expected) == 1


def test_a_relay_that_needs_no_rules_looks_for_none(tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway to a fixed target would be blamed for rules that it never wanted."""
    monkeypatch.setattr(module, "held_capabilities", lambda: pytest.fail("nothing to look for"))
    config = load(
        '[[listener]]\nname = "a"\ndirection = "outbound"\nport = 0\ncapture = "none"\n[relay]\ntarget = "192.0.2.1:1"'
    )
    report = Run(tmp_path, load, None)._report
    state = begin(config, report)
    assert (state.state, state.works) == (NONE, None)


def test_without_the_capability_it_never_says_ok(tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that cannot know would be believed."""
    monkeypatch.setattr(module, "held_capabilities", lambda: frozenset({"CAP_NET_RAW"}))
    state = begin(load(), Run(tmp_path, load, None)._report)
    assert (state.state, state.works) == (NOT_OBSERVABLE, None)
    assert "CAP_NET_ADMIN" in state.detail


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        (Verdict(OK, "nft (pid 9)"), "rules: ok"),
        (GONE, "rules: missing by nft (pid 7): no rules of ours are there"),
        (Verdict(NOT_OBSERVABLE), "rules: not observable"),
    ],
)
def test_the_page_says_it_in_one_line(verdict: Verdict, line: str) -> None:
    """`relay-sidecar stats` would show that connections come, and not why they do not."""
    state, by, detail = verdict
    assert _rules({"rules": state, "rules_by": by or None, "rules_detail": detail or None}) == line
