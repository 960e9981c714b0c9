"""The demo as text for a terminal, or as JSON lines.

Owns: every word that the demo prints. Never here: what happens (scenes).
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from sidecar import __version__
from sidecar.commands import say
from sidecar.demo.machine import INBOUND, NAMED, OUTBOUND
from sidecar.demo.relay import CONFIG, LOG, PORTS, RELAY_USER
from sidecar.demo.scenes import Result
from sidecar.report.tables import human_bytes

BOLD, DIM, GREEN, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
CLEAR: Final = "\r\x1b[K"
BAR_CELLS: Final = 40
BESIDE_BAR: Final = 7  # spaces, brackets, and the cell in which a terminal's cursor stands
NO_RECORD: Final = "not captured, so no record"
DECIDING: Final = ("inbound: ", "outbound: ", "connections of the relay")  # under TPROXY others see packets too
STEP_NS: Final = 100_000_000  # between two looks of a bar


class Screen(Protocol):
    """How the demo is told."""

    def hosts(self, *, as_root: bool) -> None:
        """What there is."""

    def command(self, words: str, printed: str) -> None:
        """A command was run."""

    def moving(self, count: int, of: int, nanoseconds: int) -> None:
        """So much has come."""

    def scene(self, number: int, title: str) -> None:
        """It begins."""

    def result(self, result: Result) -> None:
        """It has ended."""

    def counters(self, counted: Mapping[str, int], stats: Mapping[str, Any]) -> None:
        """What the rules and the relay have counted."""

    def end(self, results: Iterable[Result], seconds: float, *, kept: bool) -> None:
        """All is over."""

    def kept(self, pid: int, enter: str) -> None:
        """How to play with it."""


class Text:
    """Colours and a moving bar on a terminal alone."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._live and "NO_COLOR" not in os.environ
        self._next_ns = 0

    def hosts(self, *, as_root: bool) -> None:
        who = f"as user {RELAY_USER}" if as_root else "as you, without root: the rules know it by its mark"
        say(f"relay-sidecar {__version__}: three hosts in namespaces of their own, and one relay, {who}\n")
        link = f"{INBOUND['client'].v4} ---- {INBOUND['app'].v4}", f"{OUTBOUND['app'].v4} ---- {OUTBOUND['server'].v4}"
        say(f"  client {link[0]} app {link[1]} server")
        say(f"                  in :{PORTS['inbound']} relay :{PORTS['outbound']} out\n")

    def command(self, words: str, printed: str) -> None:
        say(self._in(BOLD, f"$ relay-sidecar {words}"))
        for line in printed.splitlines():
            say(f"  {line}")

    def scene(self, number: int, title: str) -> None:
        say(self._in(BOLD, f"\n{number}. {title}"))
        self._next_ns = 0

    def moving(self, count: int, of: int, nanoseconds: int) -> None:
        if self._live and nanoseconds >= self._next_ns:
            self._next_ns = nanoseconds + STEP_NS
            figures = f"{human_bytes(count)}, {_speed(count, nanoseconds / 1e9)}"
            cells = max(0, min(BAR_CELLS, shutil.get_terminal_size().columns - len(figures) - BESIDE_BAR))
            done = "#" * (cells * count // of)
            sys.stdout.write(f"{CLEAR}   [{done:<{cells}}] {figures}")
            sys.stdout.flush()

    def result(self, result: Result) -> None:
        clear = CLEAR if self._live else ""
        client, server = (f"{NAMED[_host(name)]} {name}" for name in (result.client, result.server))
        record = result.record
        if record:
            say(f"{clear}   way     {client} -> relay :{PORTS[record['direction']]} -> {server}")
        else:
            say(f"{clear}   way     {client} -> {server}")
        say(f"   client  {result.seen.text if result.seen.fine else self._in(RED, f'NOT AS IT SHOULD BE: {result.seen.text}')}")
        counted = [f"{rule!r} saw {_packets(count)}" for rule, count in result.rules.items() if rule.startswith(DECIDING)]
        say("\n           ".join([f"   rules   {counted[0] if counted else 'none that captures saw a packet'}", *counted[1:]]))
        if record:
            moved = record["bytes_sent"] + record["bytes_received"]
            speed = f", {_speed(moved, record['duration_ms'] / 1000)}" if moved > 1 << 20 else ""
            figures = f"sent {human_bytes(record['bytes_sent'])}, received {human_bytes(record['bytes_received'])}"
            say(f"   record  flow {record['flow']}: {figures}, {record['duration_ms']:.1f} ms{speed}, lane {record['lane']}")
        reason = record["reason"] if record else NO_RECORD
        expected = f"NOT AS IT SHOULD BE, expected {result.scene.reason or NO_RECORD}"
        word = self._in(GREEN, "as it should be") if result.reason_is_right else self._in(RED, expected)
        say(f"   reason  {reason}: {word}")

    def counters(self, counted: Mapping[str, int], stats: Mapping[str, Any]) -> None:
        say(self._in(BOLD, "\n$ relay-sidecar rules status") + self._in(DIM, "   the lines that counted packets"))
        for rule, packets in counted.items():
            say(f"  {packets:>8}  {rule}")
        say(
            self._in(BOLD, "\n$ relay-sidecar stats")
            + self._in(DIM, "   its listeners; the connections that ended otherwise are the probes of `rules apply`")
        )
        for listener in stats["listeners"]:
            moved = f"{human_bytes(listener['bytes_sent'])} sent, {human_bytes(listener['bytes_received'])} received"
            closed = ", ".join(f"{reason} {count}" for reason, count in listener["closed"].items())
            say(f"  {listener['name']:<8}  {listener['opened']} flows, {moved}: {closed}")

    def end(self, results: Iterable[Result], seconds: float, *, kept: bool) -> None:
        wrong = [result.scene.title for result in results if not result.fine]
        if wrong:
            say(self._in(RED, f"\nnot as it should be: {'; '.join(wrong)}"))
        else:
            more = "" if kept else f" Nothing is left of it; `{_program()} demo --keep` leaves it for playing."
            say(f"\nAll as it should be, in {seconds:.1f} s.{more}")

    def kept(self, pid: int, enter: str) -> None:
        program = _program()
        say(f"Kept: the hosts, the relay, its rules. Process {pid} holds them all. A shell on the host app:")
        say(f"  {enter}")
        say("and in it, for instance (/1000000 is a million bytes; port 81 of the server is closed):")
        say(f"  curl -s --noproxy '*' http://{OUTBOUND['server'].v4}/")
        say(f"  ip netns exec client curl -s --noproxy '*' http://{INBOUND['app'].v4}:8080/")
        say(f"  tail -f {LOG}")
        say(f"  {program} stats")
        say(f"  {program} rules status --config {CONFIG}")
        say("This takes everything away:")
        say(f"  kill {pid}")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._colours else text


class Json:
    """One object a line."""

    def hosts(self, *, as_root: bool) -> None:
        _tell("hosts", addresses=dict(NAMED), relay_user=RELAY_USER if as_root else 0)

    def command(self, words: str, printed: str) -> None:
        _tell("command", command=f"relay-sidecar {words}", printed=printed.splitlines())

    def scene(self, number: int, title: str) -> None:
        pass

    def moving(self, count: int, of: int, nanoseconds: int) -> None:
        pass

    def result(self, result: Result) -> None:
        facts = {"title": result.scene.title, "client": result.client, "server": result.server, "seen": result.seen.text}
        _tell("scene", **facts, seconds=result.seconds, record=result.record, rules=result.rules, fine=result.fine)

    def counters(self, counted: Mapping[str, int], stats: Mapping[str, Any]) -> None:
        _tell("counters", rules=counted, stats=stats)

    def end(self, results: Iterable[Result], seconds: float, *, kept: bool) -> None:
        _tell("end", fine=all(result.fine for result in results), seconds=round(seconds, 3))

    def kept(self, pid: int, enter: str) -> None:
        _tell("kept", pid=pid, enter=enter)


def _tell(event: str, **facts: object) -> None:
    say(json.dumps({"event": event, **facts}))


def _program() -> str:
    """How this very program is called from anywhere."""
    if shutil.which("relay-sidecar"):
        return "relay-sidecar"
    path = os.path.abspath(sys.argv[0])
    return path if os.path.basename(path) == "relay-sidecar" else f"{sys.executable} -m sidecar"


def _host(name: str) -> str:
    return name.rpartition(":")[0].strip("[]")


def _packets(count: int) -> str:
    return "1 packet" if count == 1 else f"{count} packets"


def _speed(count: int, seconds: float) -> str:
    return f"{human_bytes(round(count / max(seconds, 1e-9)))}/s"
