"""The end of a pod, as a kubelet brings it about: hooks, SIGTERM, and a time after which it would kill."""

import socket

import pytest

from tests.pod.app import stream
from tests.support.clock import Stopwatch
from tests.support.manifests import APP, SIDECAR
from tests.support.peers import receive, receive_all
from tests.support.pod import HOST, Pod

pytestmark = pytest.mark.long

MIB = 1 << 20


def test_a_pod_ends_within_its_grace_and_loses_no_byte(own_pod: Pod) -> None:
    """Each roll-out would cut the transfers that are under way."""
    pod, size = own_pod, 32 * MIB
    grace = pod.manifest.spec["terminationGracePeriodSeconds"]
    expected = b"".join(stream(size))
    with pod.listen() as server, pod.connect() as download, pod.connect() as order:
        download.sendall(f"send {size}\n".encode())
        order.sendall(f"push {HOST} {server.getsockname()[1]} {size}\n".encode())
        upload, _ = server.accept()
        with upload:
            for sock in (download, order, upload):
                sock.settimeout(grace)
            begun = [receive(sock, MIB) for sock in (download, upload)]
            ending = Stopwatch()
            hooks = pod.pre_stop()
            assert pod.ask("peer")  # not every node has heard of it yet
            assert [hook.wait(grace) for hook in hooks] == [0] * len(hooks)
            pod.terminate(*([APP] if pod.manifest.is_native else [SIDECAR, APP]))
            if not pod.manifest.is_native:
                pod.await_record(event="drain", cause="SIGTERM")
                assert pod.ask("peer", check=False) == ""
            assert begun[0] + receive_all(download) == expected
            assert begun[1] + receive_all(upload) == expected
            upload.sendall(b"all of it")
            upload.shutdown(socket.SHUT_WR)
            assert receive_all(order) == b"all of it"
    if pod.manifest.is_native:
        assert pod.exit_statuses(APP, within=grace) == [0]
        pod.terminate(SIDECAR)
        assert pod.exit_statuses(SIDECAR, within=grace) == [0]
    else:
        assert pod.exit_statuses(SIDECAR, APP, within=grace) == [0, 0]
    assert ending.seconds < grace
    reasons = [each["reason"] for each in pod.records(event="access")]
    assert set(reasons) == {"finished"}
    assert len(reasons) >= 4
