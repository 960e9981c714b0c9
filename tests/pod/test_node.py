"""Rules from outside: what an agent on the node does for pods that may have no privilege at all."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pod.conftest import running
from tests.support.manifests import APP, DEPLOY, SIDECAR, Manifest
from tests.support.peers import local, receive_all, text_of
from tests.support.pod import PORT, Pod
from tests.support.podman import Podman

pytestmark = pytest.mark.long


@pytest.fixture
def bare_pod(podman: Podman, tmp_path: Path) -> Iterator[Pod]:
    """pod.yaml without the init container, and so without any privilege."""
    yield from running(podman, Manifest("pod.yaml").changed("Pod/spec/initContainers", []), tmp_path)


def asked(pod: Pod) -> str:
    """A client's name, when it has asked and been answered."""
    with pod.connect() as client:
        client.sendall(b"peer\n")
        assert receive_all(client)
        return local(client)


def test_rules_can_come_from_the_node(bare_pod: Pod, tmp_path: Path) -> None:
    """Namespaces with Pod Security's level restricted could not have the relay at all."""
    pod = bare_pod
    before = asked(pod)
    pid = json.loads(pod.podman.run("podman", "inspect", "--format", "{{.State.Pid}}", pod.called(APP)))
    file = tmp_path / "relay.toml"
    file.write_text(pod.manifest.toml)
    program = f"import sys; sys.path.insert(0, {str(DEPLOY.parent)!r}); from sidecar.cli import main; sys.exit(main())"
    rules = [sys.executable, "-c", program, "rules"]
    where = ["--config", str(file), "--netns", f"/proc/{pid}/ns/net"]
    pod.podman.run(*rules, "apply", *where)
    after = asked(pod)
    assert pod.await_record(event="access", client=after)["origin"] == text_of((pod.address, PORT))
    pod.podman.run(*rules, "remove", *where[2:])
    gone = asked(pod)
    # Records come in the order of their ends; at the relay's, all are there.
    pod.terminate(SIDECAR)
    pod.await_record(event="stop")
    assert [pod.records(event="access", client=name) for name in (before, gone)] == [[], []]
