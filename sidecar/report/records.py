"""Records: what happened, one line each, as text for a terminal or as JSON for a machine.

Owns: the shape of a record (time, level, event, then its fields), the level filter and the escaping.
Never here: a payload; a write (writer); a line without an end, whatever a field holds.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sidecar.config.schema import Log
from sidecar.errors import Problem
from sidecar.report.writer import Writer

LEVELS: Final = ("debug", "info", "warn", "error")
MOST_CHARS = 1024  # of one text field: names and messages may come from outside
MOST_MESSAGES = 1024  # on stderr, waiting for a slow reader
EVENT_WIDTH = 7  # so that the fields of most events begin in one column

Fields = Mapping[str, object]

_json = json.JSONEncoder(separators=(",", ":"), default=str).encode


def timestamp(wall_ns: int) -> str:
    """UTC with microseconds, RFC 3339."""
    seconds, nanoseconds = divmod(wall_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}Z"


def json_line(wall_ns: int, level: str, event: str, fields: Fields) -> str:
    """One JSON object on one line."""
    record: dict[str, object] = {"time": timestamp(wall_ns), "level": level, "event": event}
    record.update((name, _capped(value)) for name, value in fields.items())
    return _json(record) + "\n"


def text_line(wall_ns: int, level: str, event: str, fields: Fields) -> str:
    """`2026-11-21T09:21:24.123456Z info  access  flow=1 listener=outbound`; quoted where needed, `-` for null."""
    pairs = " ".join(f"{name}={_plain(value)}" for name, value in fields.items())
    return f"{timestamp(wall_ns)} {level:<5} {event:<{EVENT_WIDTH}} {pairs}".rstrip() + "\n"


def _capped(value: object) -> object:
    if isinstance(value, str) and len(value) > MOST_CHARS:
        return value[: MOST_CHARS - 3] + "..."
    return value


def _plain(value: object) -> str:
    value = _capped(value)
    if value is None:
        return "-"
    if isinstance(value, str):
        bare = value and value.isprintable() and not any(char in ' "=' for char in value)
        return value if bare else _json(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else _json(value)


class Form(NamedTuple):
    """What stands between the values of a record; the time is the first of them."""

    pieces: Sequence[bytes]
    null: bytes
    quote: bytes
    before: bytes  # members of a JSON object that come after all else
    after: bytes


class Spelling(NamedTuple):
    """A format: how a record is spelt whose fields are known, and what those need to know who spell fields themselves."""

    line: Callable[[int, str, str, Fields], str]
    null: bytes
    quote: bytes
    before: bytes
    after: bytes


TEXT: Final = Spelling(text_line, null=b"-", quote=b"", before=b" elements={", after=b"}")
JSON: Final = Spelling(json_line, null=b"null", quote=b'"', before=b", ", after=b"")
# Both formats show them as they are, and the plus sign is in no name of a listener.
MARKS: Final = tuple(float(f"1e+{100 + number}") for number in range(10))


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")


class Report:
    """Records go to stdout, messages (a problem on one line) to stderr; neither can block. For the main thread alone."""

    def __init__(self, log: Log, stdout: int = 1, stderr: int = 2) -> None:
        self._stdout = stdout
        self._records = Writer(stdout, log.queue, self._drops)
        self._messages = Writer(stderr, MOST_MESSAGES, "{} messages could not be written\n".format)
        self.configure(log)

    def configure(self, log: Log) -> None:
        """Take level, format and queue of a configuration, from the next record on."""
        as_text = log.format == "text" or (log.format == "auto" and os.isatty(self._stdout))
        self._spelling = TEXT if as_text else JSON
        self._line = self._spelling.line
        self._lowest = LEVELS.index(log.level)
        self._records.limit = log.queue
        self.access = log.access and self.writes("info")  # whether access records are wanted

    def writes(self, level: str) -> bool:
        """Whether records of this level are written at all."""
        return LEVELS.index(level) >= self._lowest

    def record(self, level: str, event: str, **fields: object) -> None:
        """Something that happened now."""
        if self.writes(level):
            self._records.put([_encoded(self._line(time.time_ns(), level, event, fields))])

    def form(self, level: str, event: str, fields: Fields) -> "Form":
        """How others spell records as this report would; MARKS stand for their values, in their order."""
        line = self._line(0, level, event, fields)
        pieces = []
        for mark in (timestamp(0), *map(str, MARKS)):
            piece, _, line = line.partition(mark)
            pieces.append(piece.encode())
        spelling = self._spelling
        return Form((*pieces, line.encode()), spelling.null, spelling.quote, spelling.before, spelling.after)

    def access_lines(self, lines: Iterable[bytes]) -> None:
        """Access records that were spelt by such a form."""
        if self.access:
            self._records.put(lines)

    def warn(self, problem: Problem, event: str = "warning", fields: Fields | None = None) -> None:
        """Something that is not as it should be, though the relay goes on. The record may have fields of its own."""
        self.record("warn", event, **({"message": str(problem)} if fields is None else fields))
        if self.writes("warn"):
            self._messages.put([_encoded(f"warning: {problem}\n")])

    def refuse(self, event: str, problems: Iterable[Problem]) -> None:
        """Something that was asked for and not done, and why."""
        lines = [str(problem) for problem in problems]
        self.record("error", event, errors=lines)
        self._messages.put(_encoded(f"{line}\n") for line in lines)

    @property
    def dropped(self) -> int:
        """Records that nobody will read."""
        return self._records.dropped

    def start(self) -> None:
        """Begin to write, also what was said before. Starts threads: after privileges.confine()."""
        self._records.start()
        self._messages.start()

    def settle(self, seconds: float) -> None:
        """Wait until the records are written, but no longer than that."""
        self._records.settle(seconds)

    def close(self, seconds: float) -> None:
        """Write what is left, but for no longer than that."""
        deadline = time.monotonic() + seconds
        self._records.close(seconds)
        self._messages.close(max(0.0, deadline - time.monotonic()))

    def _drops(self, count: int) -> str:
        return self._line(time.time_ns(), "warn", "log_dropped", {"records": count})
