"""The manifests as pods: what goes through the relay, what does not, and with what privilege it runs."""

from collections.abc import Sequence

import pytest

from tests.pod.app import stream
from tests.support.manifests import APP, SIDECAR, added_capabilities
from tests.support.peers import Endpoint, local, receive, receive_all, text_of
from tests.support.pod import HOST, PORT, UNCAPTURED, Pod

pytestmark = pytest.mark.long

MIB = 1 << 20


def is_transparent(pod: Pod) -> bool:
    return any(listener.capture == "tproxy" for listener in pod.manifest.config().listeners)


def assert_unrecorded(pod: Pod, listener: str, origins: Sequence[Endpoint]) -> None:
    """Nothing went to these by that listener: records come in the order of their ends, and a later one is there."""
    with pod.connect() as client:
        client.sendall(b"peer\n")
        receive_all(client)
        name = local(client)
    pod.await_record(event="access", client=name)
    for origin in origins:
        assert pod.records(event="access", listener=listener, origin=text_of(origin)) == []


def test_what_comes_in_is_relayed_and_recorded(pod: Pod) -> None:
    """The app would be reached past the relay, or not at all, or nobody could see who came."""
    with pod.connect() as client, client.makefile("rb") as answer:
        client.sendall(b"peer\n")
        seen, name = answer.read().decode(), local(client)
    record = pod.await_record(event="access", client=name)
    assert (record["listener"], record["origin"], record["reason"]) == ("inbound", text_of((pod.address, PORT)), "finished")
    assert (record["bytes_sent"], record["bytes_received"]) == (len(b"peer\n"), len(seen))
    assert seen == (HOST if is_transparent(pod) else pod.address)


def test_what_goes_out_is_relayed_and_recorded(pod: Pod) -> None:
    """The app's connections would leave past the relay, or not at all, or nobody could see where they went."""
    with pod.listen() as server, pod.connect() as client:
        origin = server.getsockname()
        client.sendall(f"ask {HOST} {origin[1]}\n".encode())
        arrived, (host, _) = server.accept()
        with arrived:
            assert receive(arrived, len(b"peer\n")) == b"peer\n"
            arrived.sendall(host.encode())
        assert receive_all(client).decode() == pod.address
    record = pod.await_record(event="access", origin=text_of(origin))
    assert (record["listener"], record["reason"]) == ("outbound", "finished")
    assert (record["bytes_sent"], record["bytes_received"]) == (len(b"peer\n"), len(pod.address))


def test_a_refusal_is_passed_on_and_recorded(pod: Pod) -> None:
    """An app would wait for a server that is not there."""
    with pod.listen() as server:
        origin = server.getsockname()
    assert pod.ask(f"ask {HOST} {origin[1]}", check=False) == ""
    assert pod.await_record(event="access", origin=text_of(origin))["reason"] == "refused"


def test_localhost_is_left_alone(pod: Pod) -> None:
    """An app that talks to itself, or to a database beside it, would do so through the relay, as another user."""
    own = [(host, port) for host in ("127.0.0.1", pod.address) for port in (PORT, UNCAPTURED)]
    for host, port in own:
        assert pod.ask(f"ask {host} {port}", port=UNCAPTURED) == host
    assert_unrecorded(pod, listener="outbound", origins=own)


def test_replies_from_ports_that_are_not_listed_are_untouched(pod: Pod) -> None:
    """A connection that was not captured on its way in would break on its way out."""
    with pod.connect(UNCAPTURED) as client, client.makefile("rb") as answer:
        client.sendall(b"peer\n")
        assert answer.read().decode() == HOST
    with pod.connect(UNCAPTURED) as client:
        client.sendall(f"send {8 * MIB}\n".encode())
        assert receive_all(client) == b"".join(stream(8 * MIB))
    assert_unrecorded(pod, listener="inbound", origins=[(pod.address, UNCAPTURED)])


def test_a_closed_port_stays_closed(pod: Pod) -> None:
    """A health check of somebody else's would take a dead app for a living one."""
    with pytest.raises(ConnectionRefusedError):
        pod.connect(7777)


def test_much_goes_through_unchanged(pod: Pod) -> None:
    """A page would arrive, and a download would not."""
    with pod.connect() as client:
        client.sendall(f"send {64 * MIB}\n".encode())
        assert receive_all(client) == b"".join(stream(64 * MIB))


def test_the_relay_has_no_more_privilege_than_it_needs(pod: Pod) -> None:
    """A fault of the relay would be a fault of root's."""
    status = pod.status(SIDECAR)
    assert status["Uid"].split() == ["1337"] * 4
    assert status["Gid"].split() == ["1337"] * 4
    assert status["Groups"] in ("", "1337")  # a runtime may list runAsGroup among them
    kept = 1 << 13 if is_transparent(pod) else 0  # CAP_NET_RAW
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")] == [kept, kept, 0, 0, 0]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_podman_gives_what_kubernetes_would(pod: Pod) -> None:
    """The pod would run here by capabilities that Kubernetes does not give it."""
    for name in (SIDECAR, APP):
        container = pod.manifest.container(name)
        told = pod.podman.run("podman", "inspect", "--format", "{{range .EffectiveCaps}}{{.}} {{end}}", pod.called(name))
        if "securityContext" in container:
            added = added_capabilities(container) if container["securityContext"]["runAsUser"] == 0 else []
            assert sorted(told.split()) == [f"CAP_{each}" for each in added]


@pytest.mark.parametrize("path", ["/here", "/etc/relay-sidecar/here", "/var/here", "/opt/relay-sidecar/here"])
def test_the_root_is_read_only(pod: Pod, path: str) -> None:
    """Whoever takes the relay over could change its program or its configuration."""
    done = pod.podman.finished(["podman", "exec", "--user", "0", pod.called(SIDECAR), "touch", path])
    assert "Read-only file system" in done.stderr


def test_the_relay_says_nothing_that_needs_attention(pod: Pod) -> None:
    """Each start would begin with a warning that users learn to overlook. (The limit on open files is this machine's.)"""
    assert [each for each in pod.records(level="warn") if "max_flows" not in each["message"]] == []
    assert pod.records(event="start")[0]["admin"]["socket"] == "/run/relay-sidecar/admin.sock"


@pytest.mark.parametrize("probe", ["livenessProbe", "readinessProbe"])
def test_probes_are_answered(pod: Pod, probe: str) -> None:
    """The kubelet would kill a healthy relay, or the pod would never be ready."""
    assert pod.probe(probe) == 200


def test_the_image_has_no_compiler(pod: Pod) -> None:
    """The image would be larger than it need be, and handier for who breaks in."""
    done = pod.podman.finished(["podman", "exec", pod.called(SIDECAR), "sh", "-c", "command -v gcc cc pip pip3"])
    assert done.stdout == ""
