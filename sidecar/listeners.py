"""The listening sockets: bound all or none, as the relay's user, one per worker and address.

Owns: the sockets until the engine takes them (take_descriptors), and every message about a port that cannot be had.
Never here: accept(), a privilege (privileges raised what binding needs), a mark but for notrack (it goes on to the clients).
"""

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sidecar.config import Config, Endpoint, Listener
from sidecar.config.network_kinds import family_of
from sidecar.errors import BAD_CONFIG, FAILED, Problem, RelayError
from sidecar.holders import explained
from sidecar.inherited import Inherited

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
FREE_PORT_TRIES = 16  # a port that is free for IPv4 may be taken for IPv6

Warn = Callable[[Problem], None]


class Place(NamedTuple):
    """Where sockets of a listener are bound, but for the port."""

    family: socket.AddressFamily
    host: str
    v6_only: bool = False


BOTH_FAMILIES = (Place(socket.AF_INET, "0.0.0.0"), Place(socket.AF_INET6, "::", v6_only=True))


class Bound(NamedTuple):
    """A listener with its sockets: those of the first address, one per worker, then those of the next."""

    listener: Listener
    port: int
    sockets: Sequence[socket.socket]

    @property
    def addresses(self) -> list[str]:
        """What is listened on, once each: "0.0.0.0:15002", "[::]:15002"."""
        return list(dict.fromkeys(_address_of(sock) for sock in self.sockets))

    def take_descriptors(self) -> list[int]:
        """The descriptors; from now on they are the caller's to close."""
        return [sock.detach() for sock in self.sockets]


def open_listeners(
    config: Config, workers: Callable[[Listener], int], inherited: Sequence[Inherited], warn: Warn
) -> list[Bound]:
    """Bind every listener, then listen on all. RelayError tells every problem; then nothing stays open."""
    check_interface(config.interface)
    families = _families(config, warn)
    problems: list[Problem] = []
    status = FAILED
    with contextlib.ExitStack() as undo:
        adopted = _match(config.listeners, inherited, undo, warn)
        bound = []
        for listener in config.listeners:
            places = [_place(listener)] if listener.address else families
            try:
                if listener.name in adopted:
                    bound.append(_adopt(config, listener, adopted[listener.name]))
                else:
                    bound.append(_bind(config, listener, places, workers(listener), undo))
            except RelayError as error:
                problems += error.problems
                status = max(status, error.exit_status)
        if problems:
            raise RelayError(*problems, exit_status=status)
        for listener, port, sockets in bound:
            for sock in sockets:
                with explained(f"listener {listener.name}", _address_of(sock), port):
                    sock.listen(config.relay.backlog)
        undo.pop_all()
    return bound


def check_interface(name: str) -> None:
    """RelayError (78) when --interface names none of this machine; "" is none."""
    known = [known for _, known in socket.if_nameindex()]
    if name and name not in known:
        raise RelayError(
            Problem("--interface", f"one of {', '.join(known)}", name, "without it: all of them"), exit_status=BAD_CONFIG
        )


def _families(config: Config, warn: Warn) -> Sequence[Place]:
    """Where listeners without an address are bound."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        if not all(listener.address for listener in config.listeners):
            warn(Problem("listener", "IPv4 and IPv6", "a kernel without IPv6", "only IPv4 is listened on"))
        return BOTH_FAMILIES[:1]
    return BOTH_FAMILIES


def _place(listener: Listener) -> Place:
    """An explicit address; an explicit "::" is dual-stack."""
    return Place(family_of(listener.address) or socket.AF_INET, listener.address)


def _bind(config: Config, listener: Listener, places: Sequence[Place], workers: int, undo: contextlib.ExitStack) -> Bound:
    """One socket per place and worker, which share their port by SO_REUSEPORT."""
    port = listener.port or _free_port(config, listener, places)
    sockets = []
    for place in places:
        with explained(f"listener {listener.name}", str(Endpoint(place.host, port)), port):
            # Alone first: a second relay of the same user would join the first one's group, and share its connections.
            _bound_socket(config, listener, place, port, shared=False).close()
            for _ in range(workers):
                sock = _bound_socket(config, listener, place, port, shared=True)
                undo.callback(sock.close)
                sockets.append(sock)
    return Bound(listener, port, sockets)


def _bound_socket(config: Config, listener: Listener, place: Place, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(place.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        if place.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, place.v6_only)
        _set_options(sock, config, listener)
        sock.bind((place.host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _set_options(sock: socket.socket, config: Config, listener: Listener) -> None:
    """What every accepted connection inherits (the engine relies on it), and what capture and --interface ask for.

    No keepalive: the engine sets it once a connection has lived for a while.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if listener.capture == "tproxy":
        option = (socket.SOL_IP, IP_TRANSPARENT) if sock.family == socket.AF_INET else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
        sock.setsockopt(*option, 1)
    mark = config.client_mark_of(listener)
    if mark:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if config.interface and listener.direction != "outbound":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, config.interface.encode())


def _free_port(config: Config, listener: Listener, places: Sequence[Place]) -> int:
    """A port that is free in every place, for port 0."""
    for _ in range(FREE_PORT_TRIES):
        port = 0
        try:
            for place in places:
                with _bound_socket(config, listener, place, port, shared=False) as sock:
                    port = sock.getsockname()[1]
        except OSError:  # taken there: another one; anything else will come up again, and be told, when it is bound
            continue
        return port
    return port


def _match(
    listeners: Sequence[Listener], inherited: Sequence[Inherited], undo: contextlib.ExitStack, warn: Warn
) -> dict[str, list[socket.socket]]:
    """The inherited sockets by listener: matched by name, else by port. What no listener wants is closed."""
    names = {listener.name: listener.name for listener in listeners}
    ports = {listener.port: listener.name for listener in listeners}
    adopted: dict[str, list[socket.socket]] = {}
    for name, sock in inherited:
        owner = names.get(name) or ports.get(sock.getsockname()[1])
        if owner:
            undo.callback(sock.close)
            adopted.setdefault(owner, []).append(sock)
        else:
            found = f'"{name}" on {_address_of(sock)}'
            warn(Problem("environment: LISTEN_FDS", "the name or the port of a listener", found, "it was closed"))
            sock.close()
    return adopted


def _adopt(config: Config, listener: Listener, sockets: list[socket.socket]) -> Bound:
    """Inherited sockets, with what a listener's own would have."""
    ports = sorted({sock.getsockname()[1] for sock in sockets})
    if len(ports) > 1:
        found = f"ports {', '.join(map(str, ports))}"
        raise RelayError(Problem("environment: LISTEN_FDS", f"one port for listener {listener.name}", found))
    for sock in sockets:
        with explained(f"listener {listener.name}", _address_of(sock), ports[0]):
            _set_options(sock, config, listener)
    return Bound(listener, ports[0], sockets)


def _address_of(sock: socket.socket) -> str:
    return str(Endpoint(*sock.getsockname()[:2]))
