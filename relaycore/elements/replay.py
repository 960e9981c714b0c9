"""Replay what was recorded against a server, and compare what it answers: python -m relaycore.elements.replay --help.

Owns: the order in which a recorded client speaks, and the comparison. Never here: the format (recording.py).
"""

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from relaycore.elements.recording import CUT, Kind, NotARecording, Reader, Record, State

PIECE = 256 << 10
SAME, DIFFERENT, USAGE = 0, 1, 2

ABOUT = """\
Replay the requests of recorded flows against a server, one flow after the other, and compare its responses byte for byte.

A request is sent once as many response bytes have come as were recorded before it; the client's end is sent where it was
recorded. The first difference ends the replay. The requests are sent as they were recorded, with what they cause: replay
against a server that may be changed. The recording is held in memory.
"""
STATUSES = (
    "exit status: 0 all responses are the same, 1 one is different or the server cannot be reached, 2 usage, or no such file"
)


class Difference(NamedTuple):
    """The first one: in which flow, at which byte of its responses, and what it is."""

    flow: int
    offset: int
    what: str


class Differs(Exception):
    """Found while a flow is replayed."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what


class Dialogue:
    """One flow against the server: what it has said so far is what was recorded."""

    def __init__(self, sock: socket.socket, records: Sequence[Record], timeout: float, speed: float) -> None:
        self._sock = sock
        self._records = records
        self._timeout = timeout
        self._speed = speed
        self._expected = b"".join(each.payload for each in records if each.kind is Kind.BYTES and each.half == 1)
        self._ends = any(each.kind is Kind.END and each.half == 1 for each in records)
        self._came = 0
        self._ended = False

    def replay(self) -> None:
        """Differs."""
        self._sock.setblocking(False)
        began = time.monotonic()
        due = 0
        for record in self._records:
            if record.half == 1:
                due += len(record.payload) if record.kind is Kind.BYTES else 0
                continue
            if record.kind not in (Kind.BYTES, Kind.END):
                continue
            self._pump(b"", due)
            if self._speed:
                time.sleep(max(0.0, began + record.at / 1e6 / self._speed - time.monotonic()))
            if record.kind is Kind.BYTES:
                self._pump(record.payload, due)
            else:
                self._end()
        self._pump(b"", len(self._expected))
        while self._ends and not self._ended:
            self._wait(False)
            self._receive()

    def _pump(self, data: bytes, due: int) -> None:
        """Send all of this, and receive until so many bytes have come."""
        left = memoryview(data)
        while left or self._came < due:
            if self._ended and self._came < due:
                raise Differs(self._came, f"the server ends, expected {len(self._expected) - self._came} more bytes")
            readable, writable = self._wait(bool(left))
            if readable:
                self._receive()
            if writable:
                left = left[self._send(left) :]

    def _wait(self, sends: bool) -> tuple[bool, bool]:
        poll = select.poll()
        poll.register(self._sock, (0 if self._ended else select.POLLIN) | (select.POLLOUT if sends else 0))
        found = poll.poll(self._timeout * 1000)
        if not found:
            waited = "taken nothing" if sends else "sent nothing"
            raise Differs(self._came, f"the server has {waited} for {self._timeout:g} s")
        return not self._ended and bool(found[0][1] & ~select.POLLOUT), sends and bool(found[0][1] & ~select.POLLIN)

    def _send(self, left: memoryview) -> int:
        try:
            return self._sock.send(left[:PIECE], socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Differs(self._came, f"the server takes no more: {error.strerror}") from None

    def _end(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Differs(self._came, f"the server is gone: {error.strerror}") from None

    def _receive(self) -> None:
        try:
            data = self._sock.recv(PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            raise Differs(self._came, f"the server is gone: {error.strerror}") from None
        if not data:
            self._ended = True
            return
        expected = self._expected[self._came : self._came + len(data)]
        if data[: len(expected)] != expected:
            self._came += next(n for n, (one, other) in enumerate(zip(data, expected, strict=False)) if one != other)
            raise Differs(self._came, "another byte than was recorded")
        self._came += len(expected)
        if len(data) > len(expected) and self._ends:
            raise Differs(self._came, "the server says more than was recorded")


def flows_of(path: str) -> tuple[dict[int, list[Record]], State, int]:
    """The records of each flow; how the recording ends, and where."""
    flows: dict[int, list[Record]] = {}
    with Reader(path) as reader:
        for record in reader:
            if record.kind is Kind.OPEN:
                flows[record.flow] = []
            elif record.flow in flows:
                flows[record.flow].append(record)
        return flows, reader.state, reader.end


def replayed(
    flow: int, records: Sequence[Record], to: tuple[str, int], timeout: float = 5.0, speed: float = 0.0
) -> Difference | None:
    """Replay a flow; how it differs."""
    try:
        with socket.create_connection(to, timeout) as sock:
            Dialogue(sock, records, timeout, speed).replay()
    except Differs as found:
        return Difference(flow, found.offset, found.what)
    except OSError as error:
        return Difference(flow, 0, f"no connection: {error.strerror or error}")
    return None


def is_whole(records: Sequence[Record]) -> bool:
    """Whether the flow was recorded to its end."""
    return bool(records) and records[-1].kind is Kind.CLOSE and records[-1].payload != CUT


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, found {text}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _number(text: str) -> float:
    try:
        number = float(text.removesuffix("s"))
    except ValueError:
        number = -1.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return number


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    made = argparse.ArgumentParser(
        "python -m relaycore.elements.replay", description=ABOUT, epilog=STATUSES, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("file", metavar="FILE", help="a recording, written by the element Record")
    made.add_argument("--to", metavar="HOST:PORT", required=True, type=_endpoint, help="the server; [ADDRESS]:PORT for IPv6")
    made.add_argument("--flow", metavar="N", type=int, help="only this flow (default: all, in the order they began)")
    made.add_argument(
        "--speed",
        metavar="X",
        type=_number,
        default=0.0,
        help="keep the recorded pauses, X times faster: 1 takes as long as the recorded flow did\n(default: no pauses)",
    )
    made.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_number,
        default=5.0,
        help="how long the server may say nothing where it was recorded to answer, before that is\na difference (default: 5s)",
    )
    made.add_argument("--json", action="store_true", help="say the result as one JSON object (default: a line of text)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    asked = parser().parse_args(arguments)
    try:
        flows, state, end = flows_of(asked.file)
    except (OSError, NotARecording) as error:
        return _refused(f"{asked.file}: {getattr(error, 'strerror', None) or error}")
    if state is not State.WHOLE:
        _say(sys.stderr, f"{asked.file}: {state.value} at byte {end}, what was recorded before is replayed")
    if asked.flow is not None:
        flows = {number: records for number, records in flows.items() if number == asked.flow}
    if not flows:
        return _refused(f"{asked.file}: no flow" + (f" {asked.flow}" if asked.flow is not None else ""))
    found = None
    done = 0
    for number, records in flows.items():
        found = replayed(number, records, asked.to, asked.timeout, asked.speed)
        if found:
            break
        done += 1
    partial = sum(not is_whole(records) for records in flows.values())
    if asked.json:
        result = {"same": found is None, "flows": len(flows), "flows_same": done, "flows_partial": partial}
        text = json.dumps({**result, "state": state.value, "difference": found and found._asdict()})
    elif found:
        text = f"flow {found.flow} differs at byte {found.offset} of its responses: {found.what}"
    else:
        text = f"{done} flows, the same" + (f"; {partial} not recorded to the end" if partial else "")
    _say(sys.stdout, text)
    return DIFFERENT if found else SAME


def _refused(text: str) -> int:
    _say(sys.stderr, text)
    return USAGE


def _say(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
