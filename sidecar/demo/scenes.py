"""What happens in the demo, one connection at a time, and what has to come of it.

Owns: the scenes, and the facts of each: what the client saw, what the relay wrote down, which rules counted.
Never here: how it is told (screen).
"""

import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from sidecar.config.kinds import write_size
from sidecar.demo.machine import INBOUND, OUTBOUND, Machine
from sidecar.demo.peers import (
    CLOSED_APP_PORT,
    CLOSED_PORT,
    COUNT_PORT,
    DOWNLOAD_PORT,
    PAGE,
    PAGE_PORT,
    count_after_end,
    count_bytes,
    download,
    give_page,
    read_page,
    serve,
)
from sidecar.demo.relay import SECONDS, Relay
from sidecar.report.tables import human_bytes

CAPTURING: Final = "bound: to "  # so it says in the rules that bring a connection to a listener
UPLOAD_BYTES: Final = 5_000_000
RECORD_SECONDS: Final = 5.0  # the relay writes records a few times a second

# A comment as nft and as iptables write it. One of a single word is that of a jump.
WHY: Final = re.compile(r'comment "([^"]* [^"]*)"')

Moved = Callable[[int, int], None]


class Talk(NamedTuple):
    """One connection that is to be made, and what its client is to know."""

    sock: socket.socket  # bound, not connected
    to: tuple[str, int]
    size: int
    moved: Callable[[int], None]


class Seen(NamedTuple):
    """What its client saw, and whether that is what it should see."""

    text: str
    fine: bool


class Scene(NamedTuple):
    """One connection: from which host, to which port of which other one."""

    title: str
    client: str
    server: str
    port: int
    act: Callable[[Talk], Seen]
    reason: str | None = "finished"  # how the relay has to say that it ended; None: it is not captured
    ipv6: bool = False


class Result(NamedTuple):
    """What came of a scene."""

    scene: Scene
    client: str
    server: str
    seen: Seen
    seconds: float
    record: Mapping[str, Any] | None
    rules: Mapping[str, int]  # which of them saw how many more packets

    @property
    def reason_is_right(self) -> bool:
        """Whether the relay says that it ended as it had to, and of what is not captured says nothing."""
        captured = any(CAPTURING in rule for rule in self.rules)
        return (self.record["reason"] if self.record else None) == self.scene.reason and captured == bool(self.scene.reason)

    @property
    def fine(self) -> bool:
        """Whether all is as it should be."""
        return self.seen.fine and self.reason_is_right


def _page(talk: Talk) -> Seen:
    talk.sock.connect(talk.to)
    answer = read_page(talk.sock)
    status = answer.split(b"\r", 1)[0].decode()
    return Seen(f"{status}, {len(answer)} bytes", answer.endswith(PAGE))


def _download(talk: Talk) -> Seen:
    talk.sock.connect(talk.to)
    count = download(talk.sock, talk.size, talk.moved)
    return Seen(f"{human_bytes(count)}, each byte as it was sent", count == talk.size)


def _half_close(talk: Talk) -> Seen:
    talk.sock.connect(talk.to)
    counted = count_after_end(talk.sock, UPLOAD_BYTES)
    text = f"sent {UPLOAD_BYTES} bytes and its end; after that the server answered {str(counted)!r}"
    return Seen(text, counted == UPLOAD_BYTES)


def _refused(talk: Talk) -> Seen:
    """The relay takes the connection before it dials, so that the refusal may come as a reset after connect()."""
    try:
        talk.sock.connect(talk.to)
        answer = talk.sock.recv(1)
    except (ConnectionRefusedError, ConnectionResetError) as error:
        return Seen(str(error.strerror).lower(), fine=True)
    return Seen(f"a connection, and {answer!r}", fine=False)


SCENES: Final = (
    Scene("A client fetches a page from the app", "client", "app", PAGE_PORT, _page),
    Scene("The app downloads {size} from the server", "app", "server", DOWNLOAD_PORT, _download),
    Scene("The app ends its half, and the server answers after that", "app", "server", COUNT_PORT, _half_close, ipv6=True),
    Scene("The app tries a port of the server on which nobody listens", "app", "server", CLOSED_PORT, _refused, "refused"),
    Scene("A client tries a closed port of the app: it is not captured", "client", "app", CLOSED_APP_PORT, _refused, None),
)


class Stage:
    """The hosts with their servers, and the relay beside the app."""

    def __init__(self, machine: Machine, relay: Relay, size: int) -> None:
        self._machine = machine
        self._relay = relay
        self._size = size
        family = machine.families[-1]
        for host, port, answer in (
            ("app", PAGE_PORT, give_page),
            ("server", DOWNLOAD_PORT, give_page),
            ("server", COUNT_PORT, count_bytes),
        ):
            with machine.on(host):
                serve(port, family, answer)

    def scenes(self) -> list[Scene]:
        """With the size that was asked for."""
        return [scene._replace(title=scene.title.format(size=write_size(self._size))) for scene in SCENES]

    def play(self, scene: Scene, moved: Moved) -> Result:
        """Let it happen. `moved` is told bytes and nanoseconds from time to time."""
        before = self.counted()
        with self._talk(scene, moved) as talk:
            client = _name(*talk.sock.getsockname()[:2])
            begun = time.monotonic()
            try:
                seen = scene.act(talk)
            except (OSError, ValueError) as error:
                seen = Seen(str(error), fine=False)
            seconds = time.monotonic() - begun
        counted = self.counted() - before
        record = self._relay.record_of(client, RECORD_SECONDS if scene.reason else 0)
        return Result(scene, client, _name(*talk.to), seen, seconds, record, counted)

    @contextlib.contextmanager
    def _talk(self, scene: Scene, moved: Moved) -> Iterator[Talk]:
        family = self._machine.families[-1] if scene.ipv6 else socket.AF_INET
        ends = OUTBOUND if scene.server == "server" else INBOUND
        with self._machine.on(scene.client):
            sock = socket.socket(family, socket.SOCK_STREAM)
        with sock:
            sock.settimeout(SECONDS)
            sock.bind((ends[scene.client].of(family), 0))
            begun = time.monotonic()
            to = (ends[scene.server].of(family), scene.port)
            yield Talk(sock, to, self._size, lambda count: moved(count, round((time.monotonic() - begun) * 1e9)))

    def counted(self) -> Counter[str]:
        """Packets, by what the rules say they are for; iptables also has jumps, and lines that say nothing."""
        counted: Counter[str] = Counter()
        for rule in self._relay.counters():
            if found := WHY.search(rule["rule"]):
                counted[found[1]] += rule["packets"]
        return counted


def _name(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
