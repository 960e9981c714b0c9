"""What tests in namespaces are given.

Owns: what is made for one test and closed behind it. Never here: a rule of ours; what a single file needs.
"""

from collections.abc import Iterator

import pytest

from tests.support import foreign, rule_commands
from tests.support.catcher import Scene
from tests.support.netns import Namespace
from tests.support.network import Network
from tests.support.rule_commands import Pod


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """With lo, and nothing else."""
    made = Namespace("alone")
    yield made
    made.close()


@pytest.fixture
def network() -> Iterator[Network]:
    """client — pod — server."""
    with Network.made() as made:
        yield made


@pytest.fixture
def scene() -> Iterator[Scene]:
    """The same with answering machines."""
    with Scene.made() as made:
        yield made


@pytest.fixture
def pod() -> Iterator[Pod]:
    """A namespace with a configuration file and the commands."""
    with rule_commands.made() as made:
        yield made


@pytest.fixture
def rules_of_others(pod: Pod) -> None:
    """In the pod, by every program that people use. A file whose tests all want them says so by `pytestmark`."""
    foreign.by_all(pod.namespace)
