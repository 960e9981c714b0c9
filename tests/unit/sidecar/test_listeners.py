"""sidecar.listeners: bound all or none, with what accepted connections inherit."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import listeners
from sidecar.config import Config
from sidecar.errors import Problem, RelayError
from sidecar.inherited import Inherited
from sidecar.listeners import Bound, open_listeners
from tests.unit.sidecar.conftest import Load

ONE = '[relay]\ntarget = "127.0.0.1:9"\n[[listener]]\nname = "one"\ndirection = "inbound"\nport = {port}\ncapture = "none"\n'


@contextlib.contextmanager
def opened(
    config: Config, workers: int = 2, inherited: list[Inherited] | None = None
) -> Iterator[tuple[list[Bound], list[str]]]:
    """The listeners, closed at the end, and the warnings."""
    warnings: list[Problem] = []
    bound = open_listeners(config, lambda _: workers, inherited or [], warnings.append)
    try:
        yield bound, [str(warning) for warning in warnings]
    finally:
        for listener in bound:
            for sock in listener.sockets:
                sock.close()


def refused(config: Config) -> list[str]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(RelayError) as caught:
        open_listeners(config, lambda _: 2, [], lambda _: None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before, "a socket stayed open"
    return str(caught.value).splitlines()


def option(sock: socket.socket, level: int, name: int) -> int:
    return sock.getsockopt(level, name)


def test_both_families_share_one_port_and_each_worker_has_its_sockets(load: Load) -> None:
    """IPv6 clients would find nobody, or a worker would never accept."""
    with opened(load(ONE.format(port=0))) as ((one,), warnings):
        assert warnings == []
        assert one.addresses == [f"0.0.0.0:{one.port}", f"[::]:{one.port}"]
        assert [sock.family for sock in one.sockets] == [socket.AF_INET] * 2 + [socket.AF_INET6] * 2
        assert all(option(sock, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in one.sockets)
        assert all(not sock.getblocking() and not sock.get_inheritable() for sock in one.sockets)
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, one.port)).close()


def test_an_explicit_wildcard_takes_both_families_on_one_socket(load: Load) -> None:
    """`address = "::"` would not take IPv4, or 0.0.0.0 would be asked for twice."""
    with opened(load(ONE.format(port=0) + 'address = "::"\n'), workers=1) as ((one,), _):
        (sock,) = one.sockets
        assert one.addresses == [f"[::]:{one.port}"]
        assert option(sock, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
        socket.create_connection(("127.0.0.1", one.port)).close()


def test_accepted_connections_inherit_what_the_engine_relies_on(load: Load) -> None:
    """Small packets would wait for Nagle, urgent data would be lost."""
    with opened(load(ONE.format(port=0)), workers=1) as ((one,), _):
        with socket.create_connection(("127.0.0.1", one.port)):
            one.sockets[0].setblocking(True)
            accepted, _ = one.sockets[0].accept()
        with accepted:
            assert option(accepted, socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert option(accepted, socket.SOL_SOCKET, socket.SO_OOBINLINE)
            # Two timers of the kernel for each of the connections that are over in a moment.
            assert not option(accepted, socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_port_that_is_taken_is_told_with_its_holder(load: Load) -> None:
    """Seed error 12: the relay would run without one of its listeners, and nobody would know why."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        (line,) = refused(load(ONE.format(port=port)))
        assert line.startswith(f"listener one: expected to listen on 0.0.0.0:{port}, found Address already in use, held by ")
        assert line.endswith(f"(pid {os.getpid()}); stop it, or choose another port")


def test_a_second_relay_of_the_same_user_does_not_join(load: Load) -> None:
    """SO_REUSEPORT would give half of the first relay's connections to the second."""
    with opened(load(ONE.format(port=0))) as ((one,), _):
        assert "Address already in use" in refused(load(ONE.format(port=one.port)))[0]


def test_every_port_that_is_taken_is_told(load: Load) -> None:
    """After the first was mended the second would be found, at the next try."""
    with socket.create_server(("127.0.0.1", 0)) as holder, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [sock.getsockname()[1] for sock in (holder, other)]
        second = '[[listener]]\nname = "two"\ndirection = "inbound"\nport = {port}\n'
        assert len(refused(load(ONE.format(port=ports[0]) + second.format(port=ports[1])))) == 2


def test_a_port_in_time_wait_can_be_had(load: Load) -> None:
    """A relay that was restarted under load could not bind for a minute."""
    config = load(ONE.format(port=0) + 'address = "127.0.0.1"\n')
    with opened(config, workers=1) as ((one,), _), socket.create_connection(("127.0.0.1", one.port)) as client:
        one.sockets[0].setblocking(True)
        accepted, _ = one.sockets[0].accept()
        accepted.close()  # first: the TIME_WAIT is on the listener's port
        assert client.recv(1) == b""
    with opened(load(ONE.format(port=one.port) + 'address = "127.0.0.1"\n')):
        pass


def test_without_ipv6_there_is_a_warning_and_ipv4(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a kernel without IPv6 the relay would not start; or it would say nothing."""
    config = load(ONE.format(port=0))
    monkeypatch.setattr(socket, "AF_INET6", 99)  # a family that no kernel has
    with opened(config) as ((one,), warnings):
        assert one.addresses == [f"0.0.0.0:{one.port}"]
        assert warnings == ["listener: expected IPv4 and IPv6, found a kernel without IPv6; only IPv4 is listened on"]


def test_an_address_that_is_not_here_is_told(load: Load) -> None:
    """A typing error in `address` would be an errno."""
    (line,) = refused(load(ONE.format(port=0) + 'address = "192.0.2.77"\n'))
    assert "Cannot assign requested address; choose an address of this machine" in line


def test_an_unknown_interface_is_told_with_the_known_ones(load: Load) -> None:
    """--interface with a typing error would be an errno."""
    config = load(ONE.format(port=0), interface="eth77")
    (line,) = refused(config)
    assert line.startswith("--interface: expected one of ") and line.endswith(", found eth77; without it: all of them")
    assert "lo" in line


def test_only_inbound_and_gateway_listeners_are_bound_to_the_interface(load: Load) -> None:
    """Captured outbound connections arrive on lo: a bound outbound listener would get nothing."""
    second = '[[listener]]\nname = "out"\ndirection = "outbound"\nport = 0\ncapture = "none"\n'
    with opened(load(ONE.format(port=0) + second, interface="lo"), workers=1) as ((inbound, outbound), _):
        devices = [
            listener.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0")
            for listener in (inbound, outbound)
        ]
        assert devices == [b"lo", b""]


def test_untracked_listeners_have_the_mark_of_clients(load: Load) -> None:
    """Accepted sockets inherit it: without it conntrack would see half of a connection; elsewhere it would mean nothing."""
    marks = {
        (notrack, capture, direction): load(
            f"[rules]\nnotrack = {notrack}\nclient_mark = 7\n"
            f'[[listener]]\nname = "one"\ndirection = "{direction}"\nport = 1\ncapture = "{capture}"\n'
        )
        for notrack in ("true", "false")
        for capture in ("redirect", "tproxy")
        for direction in ("outbound", "inbound", "gateway")
    }
    marked = {choice for choice, config in marks.items() if config.client_mark_of(config.listeners[0]) == 7}
    assert marked == {("true", "tproxy", "inbound"), ("true", "tproxy", "gateway")}
    assert {config.client_mark_of(config.listeners[0]) for config in marks.values()} == {0, 7}


def test_inherited_sockets_are_matched_by_name_else_by_port(load: Load) -> None:
    """A socket that the service manager holds would be bound again, and fail."""
    by_name, by_port, nobodys = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
    port = by_port.getsockname()[1]
    second = f'[[listener]]\nname = "two"\ndirection = "inbound"\nport = {port}\n'
    passed = [Inherited("one", by_name), Inherited("", by_port), Inherited("x", nobodys)]
    with opened(load(ONE.format(port=0) + second), inherited=passed) as ((one, two), warnings):
        assert list(one.sockets) == [by_name]
        assert one.port == by_name.getsockname()[1]
        assert list(two.sockets) == [by_port]
        assert option(by_name, socket.IPPROTO_TCP, socket.TCP_NODELAY)
        (warning,) = warnings
        assert warning.startswith(
            'environment: LISTEN_FDS: expected the name or the port of a listener, found "x" on 127.0.0.1:'
        )
        assert nobodys.fileno() == -1


def test_inherited_sockets_of_two_ports_are_no_listener(load: Load) -> None:
    """Loop protection knows one port per listener: connections to the other would not be recognised."""
    passed = [Inherited("one", socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
    with pytest.raises(RelayError, match="expected one port for listener one"):
        open_listeners(load(ONE.format(port=0)), lambda _: 2, passed, lambda _: None)


def test_free_ports_that_clash_are_tried_again(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """`port = 0` would fail now and then, when IPv6 has the port that IPv4 got."""
    real, calls = listeners._bound_socket, []

    def taken_at_first(*arguments: object, **options: object) -> socket.socket:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("taken")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(listeners, "_bound_socket", taken_at_first)
    with opened(load(ONE.format(port=0))) as ((one,), _):
        assert len(one.addresses) == 2
