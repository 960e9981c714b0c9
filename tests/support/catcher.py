"""Who takes a connection: a catcher where the relay would listen, servers where connections were going, and a client that asks.

Owns: a network with answering machines in it. Each answer is one line that tells who took the connection, where it was going
and who called, so that a test of rules needs no relay: one connection is one verdict.
Never: a rule (rules.py makes them); a wait that does not end.
"""

import contextlib
import ctypes
import errno
import selectors
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from tests.support import rules
from tests.support.netns import Namespace
from tests.support.network import FAMILIES, FAMILY, V4, V6, Network
from tests.support.relay import UID
from tests.support.ways import UNTRACKED

GATEWAY_PORT = 15007
PORTS = {"outbound": rules.OUTBOUND_PORT, "inbound": rules.INBOUND_PORT, "gateway": GATEWAY_PORT}

# What the pod's app listens on, and what everyone else does. 9090 is the last of a list longer than multiport takes.
APP_PORTS = (22, 80, 443, 8080, 8081, 8443, 9000, 9005, 9010, 9011, 9090, 15020, 15021)
SERVER_PORTS = (22, 53, 80, 443, 8080, 9000, 9005, 9010, 9011, 9090)
CLOSED_PORT = 7777  # nobody listens there

CLIENT_MARK = 0x113  # rules.client_mark
SO_ORIGINAL_DST = 80
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75

# How long a client waits for an answer before it calls it a time-out; whoever expects one waits less.
PATIENCE = 5.0
SHORT = 0.4

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def as_user(uid: int, gid: int = 0) -> Iterator[None]:
    """Sockets that this thread makes meanwhile belong to that user and group, as far as rules can see."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


class Answer(NamedTuple):
    """What became of a connection: by whom it was taken, or how it failed."""

    by: str  # outbound | inbound | gateway | app | client | server, or refused | reset | timeout | unreachable
    origin: str = ""  # where it was going, as the one who took it knows
    caller: str = ""  # the address of the client, as the one who took it sees it


class Desk:
    """Accepts on any number of sockets and answers, as one user, in a thread of its own."""

    def __init__(self, uid: int) -> None:
        self._uid = uid
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def listen(
        self, place: Namespace, name: str, family: int, port: int, address: str = "", capture: str = ""
    ) -> socket.socket:
        """One more place to be reached at."""
        with place.entered(), as_user(self._uid, self._uid):
            sock = socket.socket(FAMILY[family])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == V6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
        if capture == UNTRACKED and name != "outbound":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, CLIENT_MARK)
        if plain(capture) == "tproxy":
            level, option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if family == V6 else (socket.SOL_IP, IP_TRANSPARENT)
            sock.setsockopt(level, option, 1)
        sock.bind((address, port))
        sock.listen(128)
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, (name, capture == "redirect"))
        self._waker.send(b"!")
        return sock

    def leave(self, sock: socket.socket) -> None:
        """Listen there no more."""
        self._selector.unregister(sock)
        sock.close()

    def speak(self, word: bytes) -> None:
        """Say something on every connection, unasked."""
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not self._wake and not key.data:
                key.fileobj.sendall(word)  # type: ignore[union-attr]

    def close(self) -> None:
        self._waker.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self.leave(key.fileobj)  # type: ignore[arg-type]

    def _serve(self) -> None:
        _libc.setfsgid(self._uid)
        _libc.setfsuid(self._uid)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    if not self._wake.recv(4096):
                        return
                elif key.data:
                    with contextlib.suppress(OSError):  # the client has gone, or the listener has
                        self._greet(key.fileobj, *key.data)  # type: ignore[arg-type]
                else:
                    self._echo(key.fileobj)  # type: ignore[arg-type]

    def _greet(self, listener: socket.socket, name: str, redirected: bool) -> None:
        sock, caller = listener.accept()
        try:
            origin = original_destination(sock) if redirected else sock.getsockname()
            sock.sendall(f"{name} {_text(origin)} {_plain(caller[0])}\n".encode())
        except OSError:
            sock.close()
            raise
        self._selector.register(sock, selectors.EVENT_READ)

    def _echo(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(4096)
            sock.sendall(data)
        except OSError:
            data = b""
        if not data:
            self.leave(sock)


def original_destination(sock: socket.socket) -> tuple[str, int]:
    """What REDIRECT has changed."""
    if sock.family == socket.AF_INET6 and not sock.getsockname()[0].startswith("::ffff:"):
        raw = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from("!H", raw, 2)[0]
    raw = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack_from("!H", raw, 2)[0]


def plain(capture: str) -> str:
    """As a listener has it."""
    return "tproxy" if capture == UNTRACKED else capture


def _plain(host: str) -> str:
    return host.removeprefix("::ffff:")


def _text(address: Sequence[Any]) -> str:
    return f"{_plain(address[0])},{address[1]}"


def at(addresses: Mapping[int, str], family: int, port: int) -> tuple[str, int]:
    """A destination."""
    return addresses[family], port


def ask(place: Namespace, family: int, to: tuple[str, int], **options: Any) -> Answer:
    """Connect, tell who answered, and leave."""
    held = hold(place, family, to, **options)
    if held.sock:
        held.sock.close()
    return held.answer


class Held(NamedTuple):
    """A connection that was answered and goes on, or the answer of one that failed."""

    sock: socket.socket | None
    answer: Answer

    def lives(self) -> bool:
        """Whether bytes still go there and back, in three seconds; whoever took it echoes."""
        if not self.sock:
            return False
        self.sock.settimeout(3.0)
        try:
            self.sock.sendall(b"still there?")
        except OSError:
            return False
        return self.hears(b"still there?")

    def hears(self, word: bytes) -> bool:
        """Whether these bytes come, in three seconds."""
        if not self.sock:
            return False
        self.sock.settimeout(3.0)
        try:
            return self.sock.recv(100) == word
        except OSError:
            return False


def hold(
    place: Namespace,
    family: int,
    to: tuple[str, int],
    *,
    uid: int = 0,
    gid: int = 0,
    mark: int = 0,
    source: tuple[str, int] | None = None,
    within: float = PATIENCE,
) -> Held:
    """Connect, and hear who answers."""
    with place.entered(), as_user(uid, gid):
        sock = socket.socket(FAMILY[family])
    try:
        sock.settimeout(within)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source:
            sock.bind(source)
        sock.connect(to)
        words = sock.recv(200).decode().split()  # one line, sent at once
    except OSError as error:
        sock.close()
        return Held(None, Answer("timeout" if isinstance(error, TimeoutError) else _FAILURES.get(error.errno or 0, str(error))))
    assert words, f"{to} ended the connection without a word"
    host, _, port = words[1].rpartition(",")
    assert (host, int(port)) == to, f"the origin of {to} came out as {words[1]}"
    return Held(sock, Answer(*words))


_FAILURES = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}


class Scene:
    """client — pod — server, with the catcher and the app in the pod, and a server on every port of SERVER_PORTS outside."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.client, self.pod, self.server = network.client, network.pod, network.server
        self.relay, self.others = Desk(UID), Desk(0)
        self._caught: list[socket.socket] = []
        self.listening: dict[tuple[int, int], socket.socket] = {}  # the app's sockets, by family and port
        for family in FAMILIES:
            for port in APP_PORTS:
                self.listening[family, port] = self.others.listen(self.pod, "app", family, port)
            for port in SERVER_PORTS:
                self.others.listen(self.client, "client", family, port)
                self.others.listen(self.server, "server", family, port)

    @staticmethod
    @contextmanager
    def made() -> Iterator["Scene"]:
        with Network.made() as network, ExitStack() as stack:
            scene = Scene(network)
            stack.callback(scene.relay.close)
            stack.callback(scene.others.close)
            yield scene

    def forward(self, on: bool) -> None:
        """Whether the pod is a router for what is not captured."""
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.pod.sysctl(key, str(int(on)))

    @contextmanager
    def ruled(
        self,
        backend: str,
        captures: Mapping[str, str],
        settings: Mapping[str, Any] = {},
        *,
        listeners: Mapping[str, Any] = {},
        **tables: Any,
    ) -> Iterator[None]:
        """Rules for listeners with these captures by direction, and somebody who listens there. `settings` are of [rules]."""
        self.reapply(backend, captures, settings, listeners=listeners, **tables)
        with self.caught(captures, listeners.get("address", "")):
            yield
        rules.remove(self.pod)

    def reapply(
        self,
        backend: str,
        captures: Mapping[str, str],
        settings: Mapping[str, Any] = {},
        *,
        listeners: Mapping[str, Any] = {},
        **tables: Any,
    ) -> None:
        """Rules, whatever is there already."""
        bound = [
            {"name": name, "direction": name, "port": PORTS[name], "capture": plain(capture), **listeners}
            for name, capture in captures.items()
        ]
        untracked = {"notrack": True} if UNTRACKED in captures.values() else {}
        rules.apply(self.pod, {"rules": {"backend": backend, **untracked, **settings}, "listener": bound, **tables})

    @contextmanager
    def caught(self, captures: Mapping[str, str], address: str = "") -> Iterator[None]:
        """The catcher listens for these directions meanwhile."""
        families = FAMILIES if not address else (V6 if ":" in address else V4,)
        sockets = [
            self.relay.listen(self.pod, name, family, PORTS[name], address, capture)
            for name, capture in captures.items()
            for family in families
        ]
        try:
            yield
        finally:
            for sock in sockets:
                self.relay.leave(sock)
