"""The probe's connections: where each begins, who takes it, and what is made of that.

A trial is captured when its connection arrives where the relay listens and can be told where it was going. If a relay runs, it
has the port: then an answer from an address that nobody has, or the owner of the socket that has taken it, tells the same.

Owns: the verdicts, and the sockets while they are needed. Never here: a process; a choice of what to try (trials).
"""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Final

from sidecar.config import Endpoint
from sidecar.errors import reason
from sidecar.privileges import held_capabilities
from sidecar.rules.arrivals import GONE, OTHER, RELAY, Name, name_of, origin_of, taker
from sidecar.rules.ends import app_listener, as_client, relay_listener, user_client, without_trace
from sidecar.rules.trials import NOBODY, Trial
from sidecar.rules.veth import Neighbour

CAPTURED: Final = "captured"
FAILED: Final = "failed"
NOT_PROBED: Final = "not probed"

NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EINVAL, errno.ENETDOWN)
LOOK_MS = 5.0  # how often the kernel is asked who has accepted: there is no event for that


class Attempt:
    """One trial under way, until it has a verdict."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.door: socket.socket | None = None  # where the relay would listen; None: it does
        self.app: socket.socket | None = None  # inbound: the port itself, unless somebody listens there
        self.client: socket.socket | None = None
        self.closed = ""  # inbound: why nobody may be listening on the port
        self.control: socket.socket | None = None  # inbound: a second client, to see what a firewall does
        self.whose = f"user {trial.uid}"
        self.target: Name = trial.destination, trial.port
        self.name: Name = "", 0  # of the client
        self.connected = False
        self.verdict = ""
        self.detail = ""

    def settle(self, verdict: str, detail: str) -> None:
        """The first verdict counts."""
        if not self.verdict:
            self.verdict, self.detail = verdict, detail

    def judge(self, verdict: str, what: str) -> None:
        """A verdict about its connection."""
        self.settle(verdict, f"{self.whose} to {Endpoint(*self.target)}: {what}")


class Probe:
    """All trials at once. When it is made, so are the sockets; nothing is sent before run()."""

    def __init__(self, trials: Sequence[Trial], relay_uid: int, relay_gid: int) -> None:
        self._relay_uid = relay_uid
        self._relay_gid = relay_gid
        self._attempts = [Attempt(trial) for trial in trials]
        self._doors: dict[tuple[str, int], socket.socket | OSError] = {}
        with contextlib.ExitStack() as undo:
            self._closing = undo
            for attempt in self._attempts:
                if why := _hopeless(attempt.trial):
                    attempt.settle(NOT_PROBED, why)
            for attempt in self._pending():
                self._open_door(attempt)
            self._open_inbound(self._pending("inbound"))
            for attempt in self._pending("outbound"):
                self._open_outbound(attempt)
            self._closing = undo.pop_all()

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def run(self, seconds: float) -> list[tuple[str, str]]:
        """A verdict and its detail for each trial, after so long, or twice that if a firewall has to be told from the rules."""
        for attempt in self._pending():
            if attempt.client:
                _begin(attempt, attempt.client)
        self._watch(seconds)
        self._judge_silence(seconds)
        return [(attempt.verdict, attempt.detail) for attempt in self._attempts]

    def _pending(self, direction: str = "") -> list[Attempt]:
        return [each for each in self._attempts if not each.verdict and direction in ("", each.trial.direction)]

    # Before anything is sent.

    def _open_door(self, attempt: Attempt) -> None:
        """Listen in the relay's place, once for every place."""
        host, port = place = attempt.trial.listen
        if place not in self._doors:
            both = any(other.listen == place and other.family == socket.AF_INET for other in self._trials())
            transparent = attempt.trial.capture == "tproxy"
            try:
                self._doors[place] = self._closing.enter_context(
                    relay_listener(host, port, transparent=transparent, both=both, uid=self._relay_uid, gid=self._relay_gid)
                )
            except OSError as error:
                self._doors[place] = error
        door = self._doors[place]
        if not isinstance(door, OSError):
            attempt.door = door
        elif door.errno != errno.EADDRINUSE:
            why = _lacking("CAP_NET_RAW") if isinstance(door, PermissionError) else reason(door)
            attempt.settle(NOT_PROBED, f"nobody can listen on {Endpoint(host, port)}: {why}")

    def _trials(self) -> Iterable[Trial]:
        return (attempt.trial for attempt in self._attempts)

    def _open_inbound(self, attempts: Sequence[Attempt]) -> None:
        """Clients that come from elsewhere."""
        if not attempts:
            return
        families = [attempt.trial.family for attempt in attempts]
        try:
            neighbour = Neighbour(families * 2)
        except OSError as error:
            lacking = f", {_lacking('CAP_SYS_ADMIN', 'CAP_NET_ADMIN')}" if isinstance(error, PermissionError) else ""
            for attempt in attempts:
                attempt.settle(NOT_PROBED, f"no second network namespace can be had to connect from: {reason(error)}{lacking}")
            return
        self._closing.callback(neighbour.close)
        controls = neighbour.clients[len(attempts) :]
        for attempt, client, control in zip(attempts, neighbour.clients, controls, strict=False):
            pair = neighbour.pairs.get(attempt.trial.family)
            if pair is None:
                attempt.settle(NOT_PROBED, "a second network namespace can have no addresses of this family")
                continue
            attempt.whose, attempt.target = f"from {pair.far}", (pair.near, attempt.trial.port)
            attempt.client, attempt.control = (self._closing.enter_context(as_client(sock)) for sock in (client, control))
            self._open_app(attempt)

    def _open_app(self, attempt: Attempt) -> None:
        try:
            attempt.app = self._closing.enter_context(app_listener(*attempt.target))
        except PermissionError:
            attempt.closed = f"nobody listens on port {attempt.trial.port}: {_lacking('CAP_NET_BIND_SERVICE')}"
        except OSError:  # somebody does, which is as good
            pass

    def _open_outbound(self, attempt: Attempt) -> None:
        trial = attempt.trial
        try:
            attempt.client = self._closing.enter_context(user_client(trial.family, trial.uid, trial.gid))
        except PermissionError:
            attempt.settle(NOT_PROBED, f"nobody can connect as user {trial.uid}: {_lacking('CAP_SETUID', 'CAP_SETGID')}")
        except OSError as error:
            attempt.settle(NOT_PROBED, f"nobody can connect as user {trial.uid}: {reason(error)}")

    # On the way.

    def _watch(self, seconds: float) -> None:
        """Until every attempt has a verdict, or the time is over."""
        end = time.monotonic() + seconds
        while (pending := self._pending()) and (left := end - time.monotonic()) > 0:
            looking = [attempt for attempt in pending if attempt.connected and attempt.door is None]
            poll = select.poll()
            for door in self._doors.values():
                if isinstance(door, socket.socket):
                    poll.register(door, select.POLLIN)
            for attempt in pending:
                if attempt.app:
                    poll.register(attempt.app, select.POLLIN)
                if attempt.client and not attempt.connected:
                    poll.register(attempt.client, select.POLLOUT)
            ready = {descriptor for descriptor, _ in poll.poll(LOOK_MS if looking else left * 1000)}
            for door in self._doors.values():
                if isinstance(door, socket.socket) and door.fileno() in ready:
                    self._answer_door(door)
            for attempt in pending:
                if attempt.app and attempt.app.fileno() in ready:
                    self._answer_app(attempt, attempt.app)
                if attempt.client and not attempt.connected and attempt.client.fileno() in ready:
                    _answer_client(attempt, attempt.client)
            for attempt in looking:
                self._look(attempt)

    def _answer_door(self, door: socket.socket) -> None:
        """Whoever has come where the relay listens."""
        with contextlib.suppress(BlockingIOError, ConnectionError), door.accept()[0] as arrived:
            without_trace(arrived)
            at_door = [attempt for attempt in self._pending() if attempt.door is door]
            peer = name_of(arrived.getpeername())
            for attempt in at_door:
                origin = origin_of(arrived, attempt.trial.capture)
                if origin == attempt.target:
                    attempt.judge(CAPTURED, f"arrived at {Endpoint(*attempt.trial.listen)}")
                elif peer == attempt.name:
                    told = (
                        f"as one to {Endpoint(*origin)}"
                        if origin
                        else "without its destination, of which conntrack knows nothing"
                    )
                    attempt.judge(FAILED, f"arrived at {Endpoint(*attempt.trial.listen)}, but {told}")

    def _answer_app(self, attempt: Attempt, app: socket.socket) -> None:
        """Whoever has come to the port itself: our client, past the rules, or the relay on its behalf."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            arrived = self._closing.enter_context(without_trace(app.accept()[0]))
            if name_of(arrived.getpeername()) == attempt.name:
                attempt.judge(FAILED, "reached the port itself")

    def _look(self, attempt: Attempt) -> None:
        """Who has accepted it, now that the relay may have."""
        at = taker(attempt.name, attempt.trial.listen[1], self._relay_uid)
        if at == RELAY:
            attempt.judge(CAPTURED, "accepted by the relay")
        elif at == OTHER:
            attempt.judge(FAILED, "accepted by whoever listens on the port itself")
        elif at == GONE and attempt.app:
            attempt.judge(CAPTURED, "accepted, and ended, by the relay")
        elif at == GONE:
            attempt.settle(NOT_PROBED, "whoever accepted the connection ended it at once, and may have been the relay or not")

    # When the time is over.

    def _judge_silence(self, seconds: float) -> None:
        silent = [attempt for attempt in self._pending() if not attempt.connected]
        stopped = self._stopped_by_firewall([attempt for attempt in silent if attempt.control], seconds)
        for attempt in self._pending():
            if attempt in stopped:
                port = attempt.trial.listen[1]
                what = f"a firewall drops connections from there, also to port {port}, at which captured ones arrive"
                if attempt.trial.capture == "redirect":
                    what += '; if it drops that port for others too, use capture = "tproxy", which keeps the port'
                attempt.settle(NOT_PROBED, what)
            elif attempt.connected:
                attempt.judge(FAILED, f"answered, but not from {Endpoint(*attempt.trial.listen)}")
            else:
                attempt.judge(FAILED, f"no answer within {seconds:g} s")

    def _stopped_by_firewall(self, attempts: Sequence[Attempt], seconds: float) -> list[Attempt]:
        """Those who cannot reach the relay's port either, which no rule of ours concerns."""
        waiting: dict[int, Attempt] = {}
        for attempt in attempts:
            host, port = attempt.trial.listen
            if attempt.control and host in ("0.0.0.0", "::"):
                attempt.control.connect_ex((attempt.target[0], port))
                waiting[attempt.control.fileno()] = attempt
        end = time.monotonic() + seconds
        while waiting and (left := end - time.monotonic()) > 0:
            poll = select.poll()
            for descriptor in waiting:
                poll.register(descriptor, select.POLLOUT)
            for descriptor, _ in poll.poll(left * 1000):
                del waiting[descriptor]
        return list(waiting.values())


def _begin(attempt: Attempt, client: socket.socket) -> None:
    code = client.connect_ex(attempt.target)
    if code in NO_ROUTE:
        attempt.settle(NOT_PROBED, f"no route to {attempt.target[0]}: {os.strerror(code)}")
    elif code not in (0, errno.EINPROGRESS):
        attempt.judge(FAILED, os.strerror(code))
    else:
        attempt.name = name_of(client.getsockname())


def _answer_client(attempt: Attempt, client: socket.socket) -> None:
    """What the client itself learns."""
    code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code == errno.ECONNREFUSED and attempt.closed:
        attempt.settle(NOT_PROBED, attempt.closed)
    elif code not in (0, errno.ECONNRESET):  # a relay may be so fast that it has reset already
        who = ", as a router or a firewall says" if code in NO_ROUTE else ""
        attempt.judge(FAILED, f"{os.strerror(code)}{who}")
    attempt.connected = True
    if attempt.door is None and attempt.trial.direction == "outbound":
        attempt.judge(CAPTURED, "accepted by the relay")


def _hopeless(trial: Trial) -> str:
    """Why there is nothing to try; "" when there is."""
    if trial.direction == "gateway":
        return "connections that pass through come by interfaces of their own"
    if not trial.port:
        return "the rules select no port that could be tried"
    if trial.direction == "outbound" and not trial.destination:
        return "the rules select no address that is nobody's"
    if trial.direction == "outbound" and trial.uid == NOBODY:
        return "the rules select no user that could be tried"
    return ""


def _lacking(*names: str) -> str:
    missing = [name for name in names if name not in held_capabilities()]
    return f"{' and '.join(missing)} missing" if missing else "not permitted, with every capability that it takes"
