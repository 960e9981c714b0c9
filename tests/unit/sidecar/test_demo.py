"""sidecar.demo: what it calls right, and what it would not let pass."""

import contextlib
import json
import socket
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.demo import show
from sidecar.demo.machine import RUN, check_place
from sidecar.demo.peers import BLOCK, HEAD, PAGE, count_after_end, count_bytes, download, give_page
from sidecar.demo.scenes import SCENES, Result, Seen, Talk
from sidecar.demo.screen import Json, Text
from sidecar.errors import RelayError

SIZE = 2 * len(BLOCK) + 1000
PAGE_SCENE, BULK, HALF, REFUSED, UNCAPTURED = SCENES


def result(**changed: Any) -> Result:
    """A download that went well, with what a test changes."""
    record = {
        **{"flow": 1, "direction": "outbound", "bytes_sent": 9, "bytes_received": SIZE, "duration_ms": 2.0},
        **{"lane": "splice", "reason": "finished"},
    }
    good = Result(BULK, "10.2.0.1:4000", "10.2.0.2:80", Seen("all", fine=True), 0.002, record, {"outbound: to outbound": 1})
    return good._replace(**changed)


@pytest.mark.parametrize(
    ("changed", "fine"),
    [
        ({}, True),
        ({"seen": Seen("a wrong byte", fine=False)}, False),
        ({"record": None}, False),
        ({"record": {**(result().record or {}), "reason": "idle"}}, False),
        ({"rules": {}}, False),
        ({"scene": REFUSED}, False),
        ({"scene": UNCAPTURED}, False),
        ({"scene": UNCAPTURED, "record": None}, False),
        ({"scene": UNCAPTURED, "rules": {}}, False),
        ({"scene": UNCAPTURED, "record": None, "rules": {"connections of the relay": 1}}, True),
    ],
)
def test_only_what_is_all_right_is_called_so(changed: dict[str, Any], fine: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer would be shown a failure and told that all is well."""
    made = result(**changed)
    assert made.fine is fine
    Text().result(made)
    assert ("NOT AS IT SHOULD BE" not in capsys.readouterr().out) is fine
    Text().end([result(), made], 1.0, kept=False)
    assert ("All as it should be" in capsys.readouterr().out) is fine
    Json().result(made)
    assert json.loads(capsys.readouterr().out)["fine"] is fine
    Json().end([result(), made], 1.0, kept=False)
    assert json.loads(capsys.readouterr().out)["fine"] is fine


@contextmanager
def peer(act: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """The other end of a connection does this, and closes."""
    here, there = socket.socketpair()

    def run() -> None:
        with there, contextlib.suppress(BrokenPipeError):  # a client that has seen enough
            act(there)

    thread = threading.Thread(target=run)
    thread.start()
    with here:
        here.settimeout(10)
        yield here
    thread.join()


def with_wrong_byte(at: int) -> bytes:
    data = bytearray((BLOCK * 3)[:SIZE])
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize("at", [0, len(BLOCK) + 5, SIZE - 1], ids=["first block", "second block", "tail"])
def test_a_wrong_byte_of_a_download_is_noticed(at: int) -> None:
    """The first promise would be shown with a show."""

    def lie(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(HEAD % SIZE + with_wrong_byte(at))

    with peer(lie) as sock, pytest.raises(ValueError, match="is not the one that was sent"):
        download(sock, SIZE, lambda _: None)


def test_an_honest_download_is_counted() -> None:
    """The check would refuse what is right."""
    told: list[int] = []
    with peer(give_page) as sock:
        assert download(sock, SIZE, told.append) == SIZE
    assert told == [len(BLOCK), 2 * len(BLOCK)]


@pytest.mark.parametrize(("scene", "answer", "fine"), [(BULK, SIZE - 1, False), (BULK, SIZE + 1, False), (BULK, SIZE, True)])
def test_a_download_of_another_length_is_noticed(scene: Any, answer: int, fine: bool) -> None:
    """Bytes lost at the end, or invented there, would pass."""

    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(HEAD % SIZE + (BLOCK * 3)[:answer])

    assert acted(scene, serve).fine is fine


@pytest.mark.parametrize(("wrong", "fine"), [(b"", True), (b"!", False)])
def test_another_page_is_noticed(wrong: bytes, fine: bool) -> None:
    """Any answer would pass for the page."""

    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(HEAD % len(PAGE) + PAGE + wrong)

    assert acted(PAGE_SCENE, serve).fine is fine


def test_an_upload_is_looked_at() -> None:
    """Zeros of the right number would pass for what was sent."""
    with peer(count_bytes) as sock:
        assert count_after_end(sock, SIZE) == SIZE
    here, there = socket.socketpair()
    with here, there:
        here.sendall(bytes(1000))
        here.shutdown(socket.SHUT_WR)
        with pytest.raises(ValueError, match="is not the one that was sent"):
            count_bytes(there)


@pytest.mark.parametrize(("count", "fine"), [(5_000_000, True), (4_999_999, False)])
def test_another_count_of_an_upload_is_noticed(count: int, fine: bool) -> None:
    """The server's answer would be shown and not read."""

    def serve(sock: socket.socket) -> None:
        while sock.recv(1 << 20):
            pass
        sock.sendall(b"%d" % count)

    assert acted(HALF, serve).fine is fine


def test_an_accepted_connection_is_not_a_refused_one() -> None:
    """An open port would pass for a closed one."""
    assert not acted(REFUSED, lambda sock: None).fine
    assert not acted(REFUSED, lambda sock: sock.sendall(b"hello")).fine


def acted(scene: Any, serve: Callable[[socket.socket], None]) -> Seen:
    """What a scene's client makes of this server."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        sock.settimeout(10)

        def run() -> None:
            client, _ = server.accept()
            with client:
                serve(client)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            seen: Seen = scene.act(Talk(sock, server.getsockname(), SIZE, lambda _: None))
        finally:
            sock.close()
            thread.join()
        return seen


class Played:
    """In the place of machine, relay and stage: what they are asked, without a kernel."""

    as_root = True
    families = (socket.AF_INET,)
    drained = 0
    results: tuple[Result, ...] = ()

    def __init__(self, *_: Any) -> None:
        self._left = list(self.results)

    def wait(self) -> str:
        return "ready"

    apply_rules = wait

    def stop(self) -> int:
        return self.drained

    def stats(self) -> dict[str, Any]:
        return {"listeners": []}

    def counted(self) -> dict[str, int]:
        return {}

    def scenes(self) -> list[Any]:
        return [each.scene for each in self._left]

    def play(self, *_: Any) -> Result:
        return self._left.pop(0)


@pytest.mark.parametrize(
    ("results", "drained", "keep", "status"),
    [
        ((result(), result()), 0, False, 0),
        ((result(record=None), result()), 0, False, 1),
        ((result(), result(record=None)), 0, True, 1),
        ((result(),), 1, False, 1),
        ((result(),), 1, True, 0),
    ],
)
def test_the_exit_status_is_that_of_all(
    monkeypatch: pytest.MonkeyPatch, results: tuple[Result, ...], drained: int, keep: bool, status: int
) -> None:
    """CI, which looks at nothing else, would take a broken relay for a good one."""
    played = type("Now", (Played,), {"results": results, "drained": drained})
    for name in ("Machine", "Relay", "Stage"):
        monkeypatch.setattr(show, name, played)
    arguments = Namespace(capture="redirect", backend="auto", size=SIZE, keep=keep)
    assert show._perform(arguments, Json()) == status


def test_a_program_that_the_demo_would_hide_is_told() -> None:
    """With an environment below /run each command of the demo would fail, and nothing would say why."""
    with pytest.raises(RelayError, match="a program outside of /run"):
        check_place(str(RUN / "venv" / "bin" / "python3"))
    check_place("/usr/bin/python3")
