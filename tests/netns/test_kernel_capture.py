"""Facts about captured connections that the relay stands on: what the kernel says of them, and whom it lets through."""

import errno
import os
import socket
import struct

import pytest

from tests.support import rules
from tests.support.adversity import Hook, refuse
from tests.support.clock import DEADLINE, eventually
from tests.support.netns import Namespace
from tests.support.network import FAMILIES, FAMILY, FOREIGN, LOOPBACK, POD, SERVER, V4, V6, Network
from tests.support.peers import Endpoint, receive_all

SO_ORIGINAL_DST = 80
MARK = 0x539
LEVEL = {V4: socket.SOL_IP, V6: socket.IPPROTO_IPV6}

# A line is enough for what a fact needs.
INBOUND = {"name": "inbound", "direction": "inbound", "port": 15006, "capture": "tproxy"}
REDIRECT_OUT = ("nat output -100", "tcp dport 80 redirect to :15002")
REDIRECT_IN = ("nat prerouting -100", "tcp dport 80 redirect to :15006")
TRACK = ("filter output 0", "ct state new accept")


def listening(place: Namespace, address: str, port: int, family: int) -> socket.socket:
    with place.entered():
        server = socket.create_server((address, port), family=FAMILY[family], dualstack_ipv6=address == "::")
    server.settimeout(DEADLINE)
    return server


def dialled(place: Namespace, address: str, port: int) -> socket.socket:
    with place.entered():
        return socket.create_connection((address, port), timeout=DEADLINE)


def original_destination(sock: socket.socket, family: int) -> Endpoint | str:
    """What SO_ORIGINAL_DST says at this family's level, or the name of its error."""
    try:
        raw = sock.getsockopt(LEVEL[family], SO_ORIGINAL_DST, 28)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    (port,) = struct.unpack_from("!H", raw, 2)
    return socket.inet_ntop(FAMILY[family], raw[4:8] if family == V4 else raw[8:24]), port


@pytest.mark.parametrize("family", FAMILIES)
def test_the_original_destination_needs_conntrack(network: Network, family: int) -> None:
    """Without conntrack a connection has no known origin: it must be refused, not guessed."""
    with listening(network.pod, LOOPBACK[family], 80, family) as server, dialled(network.pod, LOOPBACK[family], 80):
        accepted, _ = server.accept()
        with accepted:
            assert original_destination(accepted, family) == "ENOENT"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_direct_connection_has_itself_as_original_destination(network: Network, family: int) -> None:
    """SO_ORIGINAL_DST succeeds on what was never redirected: a relay that believes it dials itself for ever."""
    Hook(network.pod, *TRACK)
    with listening(network.pod, LOOPBACK[family], 80, family) as server, dialled(network.pod, LOOPBACK[family], 80):
        accepted, _ = server.accept()
        with accepted:
            assert original_destination(accepted, family) == (LOOPBACK[family], 80) == accepted.getsockname()[:2]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_redirected_connection_has_its_true_destination(network: Network, family: int) -> None:
    """What the client meant is known to the relay, and gone when conntrack is flushed."""
    Hook(network.pod, *REDIRECT_OUT)
    with listening(network.pod, LOOPBACK[family], 15002, family) as server, dialled(network.pod, SERVER[family], 80):
        accepted, _ = server.accept()
        with accepted:
            assert original_destination(accepted, family) == (SERVER[family], 80)
            network.pod.run(["conntrack", "-F"])
            assert original_destination(accepted, family) == "ENOENT"


def test_the_level_follows_the_client_not_the_listener(network: Network) -> None:
    """An IPv4 client of a listener for both families is found at IPv4's level alone."""
    Hook(network.pod, *REDIRECT_OUT)
    with listening(network.pod, "::", 15002, V6) as server, dialled(network.pod, SERVER[V4], 80):
        accepted, _ = server.accept()
        with accepted:
            assert original_destination(accepted, V4) == (SERVER[V4], 80)
            assert original_destination(accepted, V6) == "ENOENT"


@pytest.mark.parametrize("family", FAMILIES)
def test_redirect_without_local_destinations_alone_is_an_open_relay(network: Network, family: int) -> None:
    """Any host on the segment could send anywhere through the pod, though it forwards nothing."""
    Hook(network.pod, *REDIRECT_IN)
    network.pod.sysctl("net.ipv4.ip_forward", "0")
    with listening(network.pod, "::", 15006, V6) as server, dialled(network.client, FOREIGN[family], 80):
        accepted, _ = server.accept()
        with accepted:
            assert original_destination(accepted, family) == (FOREIGN[family], 80)


ERRORS = {
    "tcp-reset": {errno.ECONNREFUSED},
    "port-unreachable": {errno.ECONNREFUSED},
    "host-unreachable": {errno.EHOSTUNREACH},
    "no-route": {errno.ENETUNREACH},
    "admin-prohibited": {errno.EHOSTUNREACH, errno.EACCES},  # IPv4, IPv6
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rejection", ERRORS)
def test_how_a_rejection_reaches_the_one_who_dials(network: Network, rejection: str, family: int) -> None:
    """The reason that is logged (refused, unreachable) is made from these errors."""
    refuse(network.server, 80, rejection)
    with pytest.raises(OSError) as refused:
        dialled(network.pod, SERVER[family], 80)
    assert refused.value.errno in ERRORS[rejection]


def spoofed(network: Network, source: Endpoint, port: int, family: int) -> socket.socket:
    """What preserve_client does: a connection to the pod's own app from the address of a client."""
    with network.pod.entered():
        sock = socket.socket(FAMILY[family])
    sock.settimeout(DEADLINE)
    sock.setsockopt(socket.SOL_IP, 19, 1) if family == V4 else sock.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # *_TRANSPARENT
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    sock.bind(source)
    sock.connect((POD[family], port))
    return sock


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spoofed_port_may_be_a_strangers(network: Network, family: int) -> None:
    """A spoofing relay that takes a port of its client's at will resets another connection of that client."""
    rules.apply(network.pod, {"listener": [{**INBOUND, "preserve_client": True}]})
    with listening(network.pod, POD[family], 22, family) as server, dialled(network.client, POD[family], 22) as stranger:
        accepted, _ = server.accept()
        with accepted, spoofed(network, stranger.getsockname()[:2], 22, family), pytest.raises(ConnectionResetError):
            accepted.settimeout(DEADLINE)
            accepted.recv(1)


QUEUED_BYTES = 3 << 20
EXCLUDED = {"by owner": f"meta skuid {os.geteuid()} return", "by mark": f"meta mark {MARK} return"}


@pytest.mark.parametrize("excluded", EXCLUDED)
def test_an_orphan_is_excluded_by_its_mark_alone(network: Network, excluded: str) -> None:
    """What a closed socket still has to send belongs to nobody: excluded by owner only, the end of a stream would be lost."""
    Hook(
        network.pod,
        "route output mangle",
        "meta l4proto != tcp return",
        EXCLUDED[excluded],
        "ct direction reply return",
        "meta mark set 0x112",
    )
    network.pod.ip("rule add fwmark 0x112 lookup 100", "route add local default dev lo table 100", family=V4)
    with network.pod.entered():
        sender = socket.socket()
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK if excluded == "by mark" else 0)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUED_BYTES)
    with listening(network.server, SERVER[V4], 80, V4) as server:
        sender.connect((SERVER[V4], 80))
        accepted, _ = server.accept()
    sender.sendall(bytes(QUEUED_BYTES))
    sender.close()
    accepted.settimeout(2)
    with accepted:
        if excluded == "by mark":
            assert len(receive_all(accepted)) == QUEUED_BYTES
        else:
            with pytest.raises(OSError):
                receive_all(accepted)


@pytest.mark.parametrize("cookies", ["1", "2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_mark_of_a_listener_is_on_all_that_its_clients_are_sent(network: Network, family: int, cookies: str) -> None:
    """SYN-ACK, data of an orphan, the last words from TIME_WAIT: what lacked it would be tracked by conntrack after all."""
    network.pod.sysctl("net.ipv4.tcp_syncookies", cookies)
    network.pod.sysctl("net.ipv4.tcp_wmem", f"4096 {2 * QUEUED_BYTES} {2 * QUEUED_BYTES}")
    sent = 'oifname "to-client" meta l4proto tcp'
    marked = Hook(network.pod, "filter output 0", f"{sent} meta mark {MARK} counter name seen")
    owned = Hook(network.pod, "filter output 0", f"{sent} meta skuid >= 0 counter name seen")
    every = Hook(network.pod, "filter output 0", f"{sent} counter name seen")
    with network.pod.entered():
        server = socket.socket(FAMILY[family])
    server.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    server.settimeout(DEADLINE)
    with server:
        server.bind((POD[family], 80))
        server.listen()
        client = dialled(network.client, POD[family], 80)
        accepted, _ = server.accept()
        accepted.sendall(bytes(QUEUED_BYTES))
        accepted.close()  # first: the last acknowledgement comes from here
        with client:
            assert len(receive_all(client)) == QUEUED_BYTES
    assert eventually(lambda: in_time_wait(network.pod, 80))
    assert marked.seen() == every.seen() > owned.seen() > 1


def in_time_wait(place: Namespace, port: int) -> bool:
    """Whether a connection to this port has come to its end here."""
    return f":{port} " in place.run(["ss", "-Htn", "state", "time-wait"]).stdout
