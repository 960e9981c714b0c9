"""sidecar.report.records: what a line of the log looks like."""

import json
import os
import pty

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Flags, load_config
from sidecar.errors import Problem
from sidecar.report import Report
from sidecar.report.records import MARKS, MOST_CHARS, json_line, text_line, timestamp
from tests.unit.sidecar.conftest import Load

WHEN = 1_700_000_000_123_456_789


def read(descriptor: int) -> list[str]:
    """Everything that was written, once the writer has closed."""
    with os.fdopen(descriptor) as file:
        return file.read().splitlines()


def reported(load: Load, text: str, say: object) -> tuple[list[str], list[str]]:
    """What a report with this configuration writes: records and messages."""
    (out, stdout), (err, stderr) = os.pipe(), os.pipe()
    report = Report(load(text).log, stdout, stderr)
    say(report)  # type: ignore[operator]
    report.close(5)
    os.close(stdout)
    os.close(stderr)
    return read(out), read(err)


def test_a_record_has_time_level_event_and_fields() -> None:
    """Whatever reads the log would not find them."""
    line = json_line(WHEN, "info", "access", {"flow": 1, "client": "[::1]:80", "connect_ms": None})
    assert list(json.loads(line).items()) == [
        ("time", "2023-11-14T22:13:20.123456Z"),
        ("level", "info"),
        ("event", "access"),
        ("flow", 1),
        ("client", "[::1]:80"),
        ("connect_ms", None),
    ]


def test_text_is_for_eyes() -> None:
    """A developer at a terminal would read JSON."""
    fields = {"flow": 1, "origin": None, "message": "two words", "ok": True, "ms": 0.5, "empty": "", "list": ["a"]}
    assert text_line(WHEN, "warn", "access", fields) == (
        '2023-11-14T22:13:20.123456Z warn  access  flow=1 origin=- message="two words" ok=true ms=0.5 empty="" list=["a"]\n'
    )


TEXT = st.text('a \n\r\x1b\x7f"=\\{é\u2028\u202e\U0001f600\udc80')


@given(st.dictionaries(st.sampled_from(["a", "b"]), TEXT | st.lists(TEXT)))
def test_a_record_is_one_line_whatever_it_holds(fields: dict[str, object]) -> None:
    """A name with a newline would forge a record; an escape sequence would drive the terminal."""
    for line in (json_line(WHEN, "info", "x", fields), text_line(WHEN, "info", "x", fields)):
        assert line.endswith("\n")
        assert all(char.isprintable() for char in line[:-1])


def test_long_text_is_cut() -> None:
    """One record could fill the disk."""
    record = json.loads(json_line(WHEN, "info", "x", {"a": "x" * 10**6}))
    assert len(record["a"]) == MOST_CHARS


def test_microseconds_keep_their_zeros() -> None:
    """Records would sort wrongly as text."""
    assert timestamp(1_000_000_001_000_000_000 + 1000) == "2001-09-09T01:46:41.000001Z"


def test_levels_below_the_configured_one_are_not_written(load: Load) -> None:
    """LOG_LEVEL=warn would still print every connection."""

    def say(report: Report) -> None:
        for level in ("debug", "info", "warn", "error"):
            report.record(level, level)

    for level, count in (("debug", 4), ("info", 3), ("warn", 2), ("error", 1)):
        lines, _ = reported(load, f'[log]\nlevel = "{level}"\nformat = "json"\n', say)
        assert len(lines) == count


def test_access_records_can_be_off(load: Load) -> None:
    """The engine would make records that nobody writes."""
    for text, wanted in (("", True), ("access = false", False), ('level = "warn"', False)):
        report = Report(load(f"[log]\n{text}\n").log)
        assert report.access is wanted


def test_automatic_format_looks_at_stdout() -> None:
    """A terminal would show JSON, or a log collector would get text."""
    controller, terminal = pty.openpty()
    report = Report(load_config(Flags(), {}).log, terminal)
    report.record("info", "start", a=1)
    report.close(5)
    assert os.read(controller, 1000).endswith(b"Z info  start   a=1\r\n")
    os.close(controller)
    os.close(terminal)


def test_a_warning_is_a_record_and_a_message(load: Load) -> None:
    """Whoever reads only stdout, or only stderr, would not learn of it."""
    problem = Problem("here", "this", "that")
    records, messages = reported(load, "", lambda report: report.warn(problem))
    assert messages == ["warning: here: expected this, found that"]
    (record,) = map(json.loads, records)
    assert (record["level"], record["event"], record["message"]) == ("warn", "warning", "here: expected this, found that")
    assert reported(load, '[log]\nlevel = "error"\n', lambda report: report.warn(problem)) == ([], [])


def test_a_refusal_is_told_line_by_line(load: Load) -> None:
    """Of a bad file's problems, a reload would tell one."""
    problems = [Problem("a", "b", "c"), Problem("d", "e", "f")]
    records, messages = reported(load, "", lambda report: report.refuse("reload", problems))
    assert messages == list(map(str, problems))
    (record,) = map(json.loads, records)
    assert (record["level"], record["event"], record["errors"]) == ("error", "reload", list(map(str, problems)))


@pytest.mark.parametrize("count", [0, 1, 20])
def test_dropped_records_are_told(load: Load, count: int) -> None:
    """Nobody would know that the log has a gap."""

    def say(report: Report) -> None:
        report.access_lines([b'{"event":"access"}\n'] * (16 + count))

    records, _ = reported(load, "[log]\nqueue = 16\n", say)
    assert [json.loads(line)["records"] for line in records[16:]] == ([count] if count else [])


def test_a_form_is_a_record_without_its_values(load: Load) -> None:
    """What the engine spells would look otherwise than what Python does."""
    fields = {"flow": MARKS[0], "listener": "in-1", "client": MARKS[1], **{f"f{n}": MARKS[n] for n in range(2, 10)}}
    found = {}
    for name in ("json", "text"):
        report = Report(load(f'[log]\nformat = "{name}"\n').log)
        found[name] = report.form("info", "access", fields)
    assert found["json"].pieces[:3] == (
        b'{"time":"',
        b'","level":"info","event":"access","flow":',
        b',"listener":"in-1","client":',
    )
    assert (found["json"].pieces[-1], found["json"].null, found["json"].quote) == (b"}\n", b"null", b'"')
    assert found["text"].pieces[:3] == (b"", b" info  access  flow=", b" listener=in-1 client=")
    assert (found["text"].pieces[-1], found["text"].null, found["text"].quote) == (b"\n", b"-", b"")


def test_access_lines_are_not_written_when_they_are_not_wanted(load: Load) -> None:
    """After a reload with `access = false`, what the engine had counted before would still come."""
    for text, wanted in (("", 1), ("access = false", 0), ('level = "warn"', 0)):
        lines, _ = reported(load, f"[log]\n{text}\n", lambda report: report.access_lines([b"{}\n"]))
        assert len(lines) == wanted
