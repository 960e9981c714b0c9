"""sidecar.admin.unix: who is answered, and what the socket's file may be."""

import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.admin import open_sockets
from sidecar.admin import unix as module
from sidecar.admin.unix import Unix, ask, open_socket, prepare_directory, remove_socket
from sidecar.errors import BAD_CONFIG, Problem, RelayError
from tests.unit.sidecar.conftest import Load

FAULTS: list[Exception] = []


def refuse(_: object) -> object:
    raise RelayError(Problem("f: a", "b", "c", "d"), exit_status=BAD_CONFIG)


def fail(_: object) -> object:
    raise ZeroDivisionError("oh")


UNIX = Unix({"echo": lambda arguments: arguments, "refuse": refuse, "fail": fail}, FAULTS.append)


def answer(request: bytes) -> dict[str, object]:
    line = UNIX.answer(request)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    told: dict[str, object] = json.loads(line)
    return told


def test_a_command_gets_its_arguments_and_its_result_back() -> None:
    """No command of the relay could be given from outside."""
    assert answer(b'{"command": "echo", "a": "\xc3\xa9\\n"}\n') == {"ok": True, "result": {"a": "é\n"}}


def test_a_refusal_carries_its_problems_and_its_exit_status() -> None:
    """`relay-sidecar reload` with a bad file would exit 1, and not say why."""
    assert answer(b'{"command": "refuse"}\n') == {"ok": False, "exit_status": 78, "problems": [["f: a", "b", "c", "d"]]}


def test_a_fault_of_ours_is_told_to_both_sides() -> None:
    """A mistake in one command would end the relay."""
    FAULTS.clear()
    assert answer(b'{"command": "fail"}\n')["ok"] is False
    assert [type(fault) for fault in FAULTS] == [ZeroDivisionError]


@pytest.mark.parametrize(
    "request_", [b"\n", b"{\n", b"[]\n", b'{"command": "no"}\n', b"{}\n", b"\xff\n", b"[" * 8000 + b"\n", b'{"command": []}\n']
)
def test_nonsense_is_refused(request_: bytes) -> None:
    """A client with a mistake would end the relay."""
    assert answer(request_)["ok"] is False


def test_only_root_and_the_own_user_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can reach the socket, by a mode that somebody changed, could end the relay."""
    one, other = socket.socketpair()
    with one, other:
        own = os.geteuid()
        assert UNIX.welcomes(one)
        monkeypatch.setattr(module, "_peer_uid", lambda _: 0)
        assert UNIX.welcomes(one)
        monkeypatch.setattr(module, "_peer_uid", lambda _: own + 1)
        assert not UNIX.welcomes(one)


def test_the_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Between bind() and chmod() anybody could connect."""
    path = str(tmp_path / "admin.sock")
    with open_socket("admin.socket", path):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_the_socket_of_a_dead_relay_is_replaced(tmp_path: Path) -> None:
    """After a crash the relay could not be asked any more."""
    path = str(tmp_path / "admin.sock")
    open_socket("admin.socket", path).close()
    with open_socket("admin.socket", path):
        pass


def test_the_socket_of_a_live_relay_is_not(tmp_path: Path) -> None:
    """A second relay would silently take the first one's socket."""
    path = str(tmp_path / "admin.sock")
    with (
        open_socket("admin.socket", path),
        pytest.raises(RelayError, match=f"admin.socket: expected to listen on {path}, found a relay that is alive there"),
    ):
        open_socket("admin.socket", path)


def test_another_file_is_never_removed(tmp_path: Path) -> None:
    """A wrong path in the configuration would delete what stands there."""
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(RelayError, match="found another file"):
        open_socket("admin.socket", str(path))
    assert path.read_text() == "x"


@pytest.mark.parametrize(("mode", "good"), [(0o755, True), (0o700, True), (0o1777, True), (0o777, False), (0o775, False)])
def test_the_directory_must_be_ours(tmp_path: Path, mode: int, good: bool) -> None:
    """Somebody else could put a socket of his own there, and `relay-sidecar` would talk to that."""
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    if good:
        open_socket("admin.socket", str(directory / "admin.sock")).close()
    else:
        with pytest.raises(RelayError, match=f"found user {os.geteuid()}, mode 0{mode:o}"):
            open_socket("admin.socket", str(directory / "admin.sock"))


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """The same, through a link that somebody else can change."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RelayError):
        open_socket("admin.socket", str(tmp_path / "link" / "admin.sock"))


def test_the_directory_is_made_for_the_relays_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As uid 1337 the relay could not bind in a directory that root made; or one that exists would change hands."""
    given: list[object] = []
    monkeypatch.setattr(os, "chown", lambda path, *rest, **options: given.append((path, *rest, options)))
    prepare_directory(str(tmp_path / "run" / "admin.sock"), 1337, 1338)
    assert given == [(str(tmp_path / "run"), 1337, 1338, {"follow_symlinks": False})]
    prepare_directory(str(tmp_path / "run" / "admin.sock"), 1337, 1338)
    assert len(given) == 1


@pytest.mark.parametrize(
    ("left", "taken"), [("nothing", True), ("a dead socket", True), ("a live socket", False), ("a file", False)]
)
def test_what_another_users_relay_left_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, taken: bool
) -> None:
    """After a change of relay.user the relay could not be asked; or the directory of a live one would change hands."""
    path = str(tmp_path / "admin.sock")
    live = open_socket("admin.socket", path) if "socket" in left else None
    if left == "a dead socket" and live:
        live.close()
    if left == "a file":
        Path(tmp_path / "precious").touch()
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, *ids: given.append(ids))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    prepare_directory(path, tmp_path.stat().st_uid + 1, 1338)
    assert given == []
    monkeypatch.setattr(module, "OWN_DIRECTORY", str(tmp_path))
    prepare_directory(path, tmp_path.stat().st_uid, 1338)
    assert given == []
    prepare_directory(path, tmp_path.stat().st_uid + 1, 1338)
    assert given == ([(tmp_path.stat().st_uid + 1, 1338)] if taken else [])
    assert Path(path).exists() == (left == "a live socket")
    if live:
        live.close()


def test_a_directory_that_is_missing_comes_with_the_command_that_makes_it(tmp_path: Path) -> None:
    """A user would read "choose another path", and every command would need --socket from then on."""
    with pytest.raises(RelayError) as caught:
        open_socket("admin.socket", str(tmp_path / "run" / "admin.sock"))
    make = f"install -d -o {os.geteuid()} -g {os.getegid()} {tmp_path}/run"
    assert str(caught.value).endswith(f"; make it for the user first: {make}")


def test_the_file_is_removed_at_the_end_if_it_is_ours(tmp_path: Path) -> None:
    """A relay that ends late would remove the socket of its successor."""
    path = str(tmp_path / "admin.sock")
    with open_socket("admin.socket", path):
        remove_socket(path, Path(path).stat().st_ino + 1)
        assert Path(path).exists()
        remove_socket(path, Path(path).stat().st_ino)
        assert not Path(path).exists()


def test_a_default_that_cannot_be_had_is_a_warning_and_a_wish_a_failure(load: Load, tmp_path: Path) -> None:
    """A developer could not run a second relay; or a relay would run without the metrics that were asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f'[admin]\nsocket = ""\nhealth = ""\nmetrics = "127.0.0.1:{taken.getsockname()[1]}"\n'
        config = load(text)
        with pytest.raises(RelayError):
            open_sockets(config, lambda _: None)
        vars(config.admin)["given"] = frozenset()
        warnings: list[Problem] = []
        assert open_sockets(config, warnings.append) == (None, None, None)
        assert len(warnings) == 1
        assert "admin.metrics: expected to listen on" in str(warnings[0])


def served(path: str, reply: Callable[[socket.socket], None]) -> threading.Thread:
    """One client is answered by `reply`."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()

    def serve() -> None:
        client, _ = server.accept()
        with server, client:
            client.recv(1000)
            reply(client)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (b'{"ok": true, "result": {"a": 1}}\n', None),
        (b"", "expected an answer, found the relay closed the connection"),
        (b"HTTP/1.1 400\r\n", "expected a relay that answers, found something else"),
        (b'{"ok": false, "exit_status": 78, "problems": [["w", "x", "y", ""]]}\n', "w: expected x, found y"),
    ],
)
def test_an_answer_is_understood_or_told(tmp_path: Path, reply: bytes, told: str | None) -> None:
    """`relay-sidecar stats` would end in a traceback."""
    path = str(tmp_path / "s")
    thread = served(path, lambda client: client.sendall(reply))
    if told is None:
        assert ask(path, "x", {}, 5) == {"a": 1}
    else:
        with pytest.raises(RelayError) as caught:
            ask(path, "x", {}, 5)
        assert told in str(caught.value)
    thread.join()


def test_nobody_there_is_told_with_a_next_step(tmp_path: Path) -> None:
    """A user would read a traceback, and not that the relay does not run."""
    path = str(tmp_path / "none")
    with pytest.raises(RelayError) as caught:
        ask(path, "x", {}, 5)
    assert str(caught.value) == (
        f"{path}: expected a relay that answers, found No such file or directory; is it running? --socket names another one"
    )


def test_a_relay_that_is_stuck_is_told(tmp_path: Path) -> None:
    """`relay-sidecar stats` would hang."""
    path = str(tmp_path / "s")
    over = threading.Event()
    thread = served(path, lambda _: over.wait(10))  # type: ignore[arg-type,return-value]
    with pytest.raises(RelayError, match=r"found connected, but no answer within 10ms$"):
        ask(path, "x", {}, 0.01)
    over.set()
    thread.join()
