"""One machine for pods per process of the tests, and one image for all of them."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.manifests import NAMES, Manifest
from tests.support.pod import Pod
from tests.support.podman import Podman, machine


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """With the image in it: whoever comes first builds it, the others load it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # of this run alone
    archive = shared / "relay-sidecar.tar"
    with machine(tmp_path_factory.mktemp("podman") / "machine") as made:
        with (shared / "relay-sidecar.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if archive.exists():
                made.load(archive)
            else:
                made.build(archive)
        yield made


@pytest.fixture(scope="module", params=NAMES)
def pod(request: pytest.FixtureRequest, podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod that all tests of a file look at."""
    yield from running(podman, Manifest(request.param), tmp_path_factory.mktemp("pod"))


@pytest.fixture(params=NAMES)
def own_pod(request: pytest.FixtureRequest, podman: Podman, tmp_path: Path) -> Iterator[Pod]:
    """One that a test may end. Not in a file with the other: podman publishes the ports of both on the same address."""
    yield from running(podman, Manifest(request.param), tmp_path)


def running(podman: Podman, manifest: Manifest, directory: Path) -> Iterator[Pod]:
    """The pod, which is gone at the end, however that comes."""
    pod = Pod(podman, manifest, directory)
    try:
        pod.start()
        yield pod
    finally:
        pod.close()
