"""Flows recorded by a relay that runs, replayed against servers: one that says the same, and others."""

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relaycore.elements.replay import main
from tests.support.peers import receive, receive_all
from tests.support.world import looped

RECORDED = [{"name": "record", "use": "relaycore.elements.record:Record", "options": {"file": "flows.rec"}}]
Script = Callable[[socket.socket], None]


def ask_twice(client: socket.socket) -> None:
    """The client's part. The second question needs the first answer."""
    assert receive(client, 6) == b"hello\n"
    client.sendall(b"one?")
    assert receive(client, 4) == b"one!"
    client.sendall(b"two?")
    client.shutdown(socket.SHUT_WR)
    assert receive_all(client) == b"two!" * 50_000


def answer(peer: socket.socket, first: bytes = b"one!", last: bytes = b"two!" * 50_000) -> None:
    """The server's part: it ends when the client has."""
    peer.sendall(b"hello\n")
    if receive(peer, 4) == b"one?":
        peer.sendall(first)
        if receive_all(peer) == b"two?":
            peer.sendall(last)


@pytest.fixture
def recording(tmp_path: Path) -> str:
    """Two flows."""
    with looped(elements=RECORDED) as world:
        world.path.listen()
        for _ in range(2):
            client, origin, name = world.path.pair()
            server = threading.Thread(target=lambda sock: (answer(sock), sock.close()), args=[origin])
            server.start()
            ask_twice(client)
            server.join()
            client.close()
            assert world.ended(name) == "finished"
        path = tmp_path / "flows.rec"
        path.write_bytes((Path(world.relay.directory) / "flows.rec").read_bytes())
    return str(path)


@contextmanager
def serving(*scripts: Script) -> Iterator[str]:
    """A server with a script for each connection; its address."""

    def serve() -> None:
        for script in scripts:
            peer, _ = listener.accept()
            peer.settimeout(10)
            with peer:
                try:
                    script(peer)
                except (OSError, AssertionError):  # a replay that has seen enough leaves
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        server = threading.Thread(target=serve)
        server.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.join()


def test_the_same_server_says_the_same(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A request before its time, or an end that is not sent, would make a difference where there is none."""
    with serving(answer, answer) as address:
        assert main([recording, "--to", address]) == 0
    assert capsys.readouterr().out == "2 flows, the same\n"
    with serving(answer) as address:
        assert main([recording, "--to", address, "--flow", "2", "--speed", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        **{"same": True, "flows": 1, "flows_same": 1, "flows_partial": 0},
        **{"state": "whole", "difference": None},
    }


@pytest.mark.parametrize(
    ("script", "offset", "what"),
    [
        (lambda peer: answer(peer, first=b"onE!"), 8, "another byte than was recorded"),
        (lambda peer: answer(peer, last=b"two!" * 49_999 + b"twO!"), 200_008, "another byte than was recorded"),
        (lambda peer: answer(peer, last=b"two!" * 50_001), 200_010, "the server says more than was recorded"),
        (lambda peer: answer(peer, last=b"two!" * 49_999), 200_006, "the server ends, expected 4 more bytes"),
        (lambda peer: answer(peer, first=b"one"), 9, "the server has sent nothing for 0.2 s"),
    ],
)
def test_the_first_difference_is_told(
    script: Script, offset: int, what: str, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that answers otherwise, too much, too little, or not at all would pass for the same."""
    with serving(answer, script) as address:
        assert main([recording, "--to", address, "--json", "--timeout", "0.2s" if "0.2" in what else "5s"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["difference"] == {"flow": 2, "offset": offset, "what": what}
    assert (result["same"], result["flows_same"]) == (False, 1)


def test_no_server(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that was compared would be nothing that differs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert main([recording, "--to", f"127.0.0.1:{taken.getsockname()[1]}"]) == 1
    assert capsys.readouterr().out == "flow 1 differs at byte 0 of its responses: no connection: Connection refused\n"


def test_a_torn_recording_is_replayed_as_far_as_it_goes(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a crash has left could not be replayed; or nobody would be told that it is not all."""
    whole = Path(recording).read_bytes()
    Path(recording).write_bytes(whole[:-1])
    with serving(answer, answer) as address:
        assert main([recording, "--to", address]) == 0
    out, err = capsys.readouterr()
    assert out == "2 flows, the same; 1 not recorded to the end\n"
    assert "torn at byte" in err


@pytest.mark.parametrize("words", [["--flow", "9"], ["--to", "nowhere"], ["--speed", "0"]])
def test_usage(words: list[str], recording: str) -> None:
    """A script could not tell a wrong command from a difference."""
    try:
        status: object = main([recording, "--to", "127.0.0.1:1", *words])
    except SystemExit as end:
        status = end.code
    assert status == 2


def test_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing or another file would pass for a difference, or for none."""
    assert main([str(tmp_path / "none"), "--to", "127.0.0.1:1"]) == 2
    (tmp_path / "text").write_text("hello")
    assert main([str(tmp_path / "text"), "--to", "127.0.0.1:1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def patient_answer(peer: socket.socket) -> None:
    """As answer(), of a server that takes a second question before its first answer for a mistake."""
    peer.sendall(b"hello\n")
    assert receive(peer, 4) == b"one?"
    if select.select([peer], [], [], 0.3)[0]:
        peer.sendall(b"too early")
        return
    peer.sendall(b"one!")
    assert receive_all(peer) == b"two?"
    peer.sendall(b"two!" * 50_000)


def test_a_question_waits_for_the_answer_that_came_before_it(recording: str) -> None:
    """Servers would be asked out of turn, and said to answer otherwise than they did."""
    with serving(patient_answer, patient_answer) as address:
        assert main([recording, "--to", address]) == 0
