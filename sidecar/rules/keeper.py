"""The keeper: a second process, which undoes a change when the first one dies, or when nobody confirms it.

It is forked before anything changes, in a session of its own, so that neither a hang-up nor Ctrl-C reaches it. A pipe joins the
two, and its end tells of a death. Its address is an abstract unix socket, which lives in the network namespace alone: whoever
holds it may change rules, and there it answers `rules confirm`, `rules rollback` and `rules remove`.

Owns: that process, that socket and that pipe. Never here: what a change is (change); a file.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from sidecar.errors import NO_PRIVILEGE, Problem, RelayError
from sidecar.rules import programs

ADDRESS = "\0relay-sidecar/rules"
ANSWER_SECONDS = 5.0  # an undo takes a fraction of a second
LOCK_SECONDS = 30.0  # how long a change waits for others, each of which takes a fraction of a second
LOCK_POLL_SECONDS = 0.02
WORD_BYTES = 256
CREDENTIALS = struct.Struct("3i")  # ucred: pid, uid, gid

_believed = {0}

REFUSED = b"refused: it belongs to another user"
RELEASED = b"r"  # by `rules remove`, which then does it itself

CHANGING, CONFIRMING, GUARDING = "changing", "confirming", "guarding"

Undo = Callable[[], None]


class Holder(NamedTuple):
    """What whoever holds the address is doing."""

    state: str
    seconds_left: int = 0


class Keeper:
    """The first process's end of it. Inside `with`, a change that raises is undone before the error goes on.

    `lock` is take_address()'s, taken before anybody looked at what there was. `undo` brings that back, `clear` leaves
    nothing: that is what ends a guard.
    """

    def __init__(self, lock: socket.socket, undo: Undo, clear: Undo) -> None:
        self._undo = undo
        self._lock = lock
        orders, self._orders = os.pipe()
        self.gone, alive = os.pipe()  # readable when the keeper has died, or left the terminal
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._orders)
            os.close(self.gone)
            _Kept(self._lock, orders, alive, undo, clear).live()
        os.close(orders)
        os.close(alive)
        programs.share(self._orders)  # one that outlives us changes rules: undoing waits for it
        self._told = False

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is not None:
                self._undo()
        finally:
            if not self._told:
                self.dismiss()
            self._lock.close()

    def dismiss(self) -> None:
        """The change is done for good, or undone."""
        self._tell("done")
        self._leave()

    def await_confirmation(self, seconds: float) -> None:
        """Leave the keeper alone: unless `rules confirm` comes in time, it undoes the change."""
        self._tell(f"confirm {seconds}")
        os.read(self.gone, 1)
        self._close()

    def guard(self) -> None:
        """From now on the end of this process, however it comes, undoes the change."""
        self._tell("guard")

    def _tell(self, order: str) -> None:
        self._told = True
        with contextlib.suppress(BrokenPipeError):
            os.write(self._orders, f"{order}\n".encode())

    def _close(self) -> None:
        programs.unshare(self._orders)
        os.close(self._orders)

    def _leave(self) -> None:
        self._close()
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: the kernel reaps it
            os.waitpid(self._pid, 0)


class _Kept:
    """The second process."""

    def __init__(self, lock: socket.socket, orders: int, alive: int, undo: Undo, clear: Undo) -> None:
        self._lock = lock
        self._orders: int | None = orders
        self._alive = alive
        self._undo = undo
        self._clear = clear
        self._state = CHANGING
        self._deadline: float | None = None
        self._twin: int | None = None

    def live(self) -> None:
        """Until there is nothing left to keep; never returns."""
        status = 1
        try:
            os.setsid()
            self._lock.listen()  # again: whoever asks is told that it is we
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it runs programs, and waits for them
            while not self._turn():
                pass
            self._dismiss_twin()
            status = 0
        except RelayError as error:
            sys.stderr.write(f"{error}\n")
        finally:
            os._exit(status)

    def _turn(self) -> bool:
        """Wait for one thing and do it; whether that was the last."""
        poll = select.poll()
        poll.register(self._lock, select.POLLIN)
        if self._orders is not None:
            poll.register(self._orders, select.POLLIN)
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        ready = {descriptor for descriptor, _ in poll.poll(None if left is None else left * 1000)}
        if self._orders in ready:
            return self._obey(os.read(self._orders, WORD_BYTES).decode())
        if self._lock.fileno() in ready:
            return self._answer()
        self._undo()  # nobody confirmed
        return True

    def _obey(self, orders: str) -> bool:
        if not orders:  # the first process is dead
            self._undo()
            return True
        order, *words = orders.split()
        if order == "confirm":
            self._state = CONFIRMING
            self._deadline = time.monotonic() + float(words[0])
            self._detach()
        elif order == "guard":
            self._state, self._undo = GUARDING, self._clear
        return order == "done"

    def _detach(self) -> None:
        """From the terminal, which would wait for us, and from the first process, which may now leave."""
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        self._make_twin()
        os.close(self._alive)
        self._orders = None

    def _make_twin(self) -> None:
        """The first process leaves: another one must undo the change if we are killed."""
        end, self._twin = os.pipe()
        if os.fork() == 0:
            os.setsid()
            os.close(self._twin)
            os.close(self._alive)
            try:
                if not os.read(end, 1):
                    self._undo()
            finally:
                os._exit(0)
        os.close(end)

    def _dismiss_twin(self) -> None:
        if self._twin is not None:
            os.write(self._twin, RELEASED)

    def _answer(self) -> bool:
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            client = closing.enter_context(self._lock.accept()[0])
            client.settimeout(ANSWER_SECONDS)
            _, uid, _ = _credentials(client)
            word = client.recv(WORD_BYTES).decode()
            if uid not in (0, os.geteuid()):
                client.sendall(REFUSED)
                return False
            answer, over = self._do(word)
            client.sendall(answer.encode())
            return over
        return False

    def _do(self, word: str) -> tuple[str, bool]:
        if word == "release" and self._state != CHANGING:
            if self._state == GUARDING:
                os.write(self._alive, RELEASED)
            return "released", True
        if word == "confirm" and self._state == CONFIRMING:
            return "confirmed", True
        if word == "rollback" and self._state == CONFIRMING:
            self._undo()
            return "rolled back", True
        left = 0 if self._deadline is None else max(0, round(self._deadline - time.monotonic()))
        return f"{self._state} {left}", False


def ask(word: str) -> str | None:
    """What the keeper of this network namespace answers; None when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER_SECONDS)
        pid = 0
        try:
            client.connect(ADDRESS)
            pid, uid, _ = _credentials(client)
            if uid not in _believed and uid != os.geteuid():
                found = f"pid {pid} of user {uid}, which holds its address"
                step = "end that process; if it guards rules for a relay, name its file with --config"
                raise RelayError(Problem("keeper", "a keeper of root, of this user or of relay.user", found, step))
            client.sendall(word.encode())
            answer = client.recv(WORD_BYTES)
            if answer == REFUSED:
                step, found = "run it as root", "one that belongs to another user"
                problem = Problem("rules", "a change of root or of this user", found, step)
                raise RelayError(problem, exit_status=NO_PRIVILEGE)
            return answer.decode("ascii", "replace")
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):  # there is none, or it has just ended
            return None
        except BlockingIOError:  # too many are waiting for it already
            return f"{CHANGING} 0"
        except TimeoutError:
            step = f"it may be stopped: `kill -CONT {pid}` lets it go on, `kill -KILL {pid}` undoes its change"
            expected = f"an answer within {ANSWER_SECONDS:g} s"
            raise RelayError(Problem("keeper", expected, f"none from the keeper of a change, pid {pid}", step)) from None
        except OSError as error:
            raise RelayError(Problem("keeper", f"an answer to {word}", str(error))) from None


def believe(uid: int) -> None:
    """From now on also this user's keepers, besides root's and our own: the relay's, whose companion may guard the rules.

    What a stranger's process may do now tells nothing: it can have run su(1) since it took the address.
    """
    _believed.add(uid)


def holder() -> Holder | None:
    """Who keeps a change now."""
    answer = ask("who")
    if not answer:
        return None
    state, _, left = answer.partition(" ")
    if state not in (CHANGING, CONFIRMING, GUARDING) or not left.isdecimal():
        raise RelayError(Problem("keeper", "an answer of this version's", repr(answer), "end what holds its address"))
    return Holder(state, int(left))


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid, gid


def take_address() -> socket.socket:
    """The lock of this network namespace. RelayError when a change that waits or is guarded holds it."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            lock.bind(ADDRESS)
            lock.listen()
            return lock
        except OSError:
            keeping = holder()
        if keeping and keeping.state == CONFIRMING:
            found = f"one that waits {keeping.seconds_left} s for its confirmation"
            step = "`relay-sidecar rules confirm` or `relay-sidecar rules rollback` first"
            raise RelayError(Problem("rules", "no other change under way", found, step))
        if keeping and keeping.state == GUARDING:
            step = "end that process, which removes its rules, or `relay-sidecar rules remove`"
            raise RelayError(Problem("rules", "no other change under way", "rules that another process guards", step))
        if time.monotonic() >= deadline:
            raise RelayError(
                Problem("rules", "no other change under way", f"one that took over {LOCK_SECONDS:g} s", "try again")
            )
        time.sleep(LOCK_POLL_SECONDS)
