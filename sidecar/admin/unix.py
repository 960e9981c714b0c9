"""Questions and orders over a unix socket: one line of JSON each way.

    {"command": "flows", "sort": "bytes", "limit": 10}
    {"ok": true, "result": {...}}
    {"ok": false, "exit_status": 78, "problems": [["relay.toml: relay.user", "…", "…", ""]]}

Owns: this dialect, both ends of it, and the socket's file and directory. Only root and the relay's own user are answered.
Never here: what a command does (proxy); a link or a directory that somebody else could have put there.
"""

import contextlib
import errno
import json
import os
import socket
import stat
import struct
from collections.abc import Callable, Mapping

from sidecar.admin.service import MOST_CLIENTS
from sidecar.config.kinds import write_duration
from sidecar.config.schema import Admin
from sidecar.errors import FAILED, Problem, RelayError, reason
from sidecar.users import user_of

Arguments = Mapping[str, object]
Commands = Mapping[str, Callable[[Arguments], object]]

OWN_DIRECTORY = os.path.dirname(str(Admin.keys["socket"].default))
DEAD = "the socket of a relay that is dead"
PEER_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class Unix:
    """The dialect of a Service that takes commands."""

    def __init__(self, commands: Commands, failed: Callable[[Exception], None]) -> None:
        """`failed` is told of a command that raised: a fault of ours, which must not end the relay."""
        self._commands = commands
        self._failed = failed

    def welcomes(self, client: socket.socket) -> bool:
        """Root and the relay's own user; the socket's mode says the same, but modes can be changed."""
        return _peer_uid(client) in (0, os.geteuid())

    def is_whole(self, request: bytes) -> bool:
        """A line has ended."""
        return b"\n" in request

    def too_long(self) -> bytes:
        """A refusal."""
        return _refusal(RelayError(Problem("request", "one short line", "more")))

    def answer(self, request: bytes) -> bytes:
        """The command's result, or its problems."""
        try:
            arguments = _arguments(request)
            command = self._commands.get(str(arguments.pop("command", "")))
            if not command:
                raise RelayError(Problem("request: command", ", ".join(self._commands), "another"))
            return _line({"ok": True, "result": command(arguments)})
        except RelayError as error:
            return _refusal(error)
        except Exception as error:  # whatever it is, the client learns of it and the relay goes on
            self._failed(error)
            return _refusal(RelayError(Problem("relay", "an answer", f"a fault: {error}", "see the relay's log")))


def _arguments(request: bytes) -> dict[str, object]:
    try:
        arguments = json.loads(request.split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise RelayError(Problem("request", "one JSON object on one line", "something else"))
    return arguments


def _line(answer: Mapping[str, object]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def _refusal(error: RelayError) -> bytes:
    return _line({"ok": False, "exit_status": error.exit_status, "problems": error.problems})


def _peer_uid(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
    return int(PEER_CREDENTIALS.unpack(credentials)[1])


def ask(path: str, command: str, arguments: Arguments, seconds: float) -> dict[str, object]:
    """Put a command to the relay that listens at this path; its result. RelayError tells why there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(seconds)
            sock.connect(path)
            sock.sendall(_line({"command": command, **arguments}))
            with sock.makefile("rb") as answer:
                told = json.loads(answer.readline() or b"{}")
    except TimeoutError:
        found = f"connected, but no answer within {write_duration(round(seconds * 1000))}"
        raise RelayError(Problem(path, "a relay that answers", found)) from None
    except OSError as error:
        step = (
            "is it running? --socket names another one" if error.errno != errno.EACCES else "ask as root or as the relay's user"
        )
        raise RelayError(Problem(path, "a relay that answers", reason(error), step)) from None
    except ValueError:
        raise RelayError(Problem(path, "a relay that answers", "something else")) from None
    if told.get("ok"):
        result: dict[str, object] = told["result"]
        return result
    problems = [Problem(*problem) for problem in told.get("problems", [])]
    raise RelayError(
        *problems or [Problem(path, "an answer", "the relay closed the connection")],
        exit_status=told.get("exit_status", FAILED),
    )


def prepare_directory(path: str, uid: int, gid: int) -> None:
    """Make the directory of the socket, for the relay's user, while it can still be made. An existing one stays as it is,
    but for the default one: what another user's relay has left there is taken over."""
    directory = os.path.dirname(path)
    with contextlib.suppress(OSError):  # open_socket() will say what is missing
        try:
            os.mkdir(directory, 0o755)
            os.chown(directory, uid, gid, follow_symlinks=False)
        except FileExistsError:
            if directory == OWN_DIRECTORY and os.geteuid() == 0:
                _take_over(directory, os.path.basename(path), uid, gid)


def _take_over(directory: str, name: str, uid: int, gid: int) -> None:
    """Give the directory to the relay's user, if it holds nothing but a dead socket of this name."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        entries = os.listdir(descriptor)
        unused = not entries or (entries == [name] and _holder(os.path.join(directory, name)) == DEAD)
        if unused and os.fstat(descriptor).st_uid != uid:
            for entry in entries:
                os.unlink(entry, dir_fd=descriptor)  # the relay's user could not ask whether it is dead
            os.fchown(descriptor, uid, gid)
    finally:
        os.close(descriptor)


def open_socket(where: str, path: str) -> socket.socket:
    """Listen at the path, mode 0600. The file of a dead relay is replaced; that of a live one is a RelayError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _check_directory(where, os.path.dirname(path))
        os.fchmod(sock.fileno(), 0o600)  # before bind(): then the file never has another mode
        _remove_stale(where, path)
        sock.bind(path)
        sock.listen(MOST_CLIENTS)
    except OSError as error:
        sock.close()
        step = "choose another path"
        if isinstance(error, FileNotFoundError | PermissionError):
            step = f"make it for the user first: install -d -o {os.geteuid()} -g {os.getegid()} {os.path.dirname(path)}"
        raise RelayError(Problem(where, f"to listen on {path}", reason(error), step)) from None
    except RelayError:
        sock.close()
        raise
    return sock


def inode_of(path: str) -> int:
    """Which file it is; 0 when it cannot be seen, as in a directory that the relay's user may not enter."""
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0


def remove_socket(path: str, inode: int) -> None:
    """Remove the file at the end, if it is still the one that was made."""
    if inode and inode_of(path) == inode:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _check_directory(where: str, directory: str) -> None:
    """Whoever can rename in the directory can put a socket of his own there, and hear what is asked."""
    status = os.lstat(directory)
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    strange = status.st_uid not in (0, os.geteuid())
    if not stat.S_ISDIR(status.st_mode) or strange or writable:
        found = f"user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
        step = "remove it, or " + (f"chown it to {user_of(os.geteuid()).name}" if strange else "chmod go-w")
        expected = f"{directory} to be a directory that only root and the relay's user may change"
        raise RelayError(Problem(where, expected, found, step))


def _remove_stale(where: str, path: str) -> None:
    holder = _holder(path)
    if holder == DEAD:
        os.unlink(path)
    elif holder:
        raise RelayError(Problem(where, f"to listen on {path}", holder, "choose another path"))


def _holder(path: str) -> str:
    """What stands at the path: "" for nothing."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return ""
    if not is_socket:
        return "another file"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        answer = probe.connect_ex(path)
    dead_or_hidden = {errno.ECONNREFUSED: DEAD, errno.EACCES: "another user's socket"}
    return dead_or_hidden.get(answer, "a relay that is alive there")
