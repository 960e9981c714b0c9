"""What privileges may do when there are some: other namespaces, other users."""

import os
import socket

import pytest

import relaycore
from sidecar.privileges import Identity, acting_as, become, confine, enter_network, held_capabilities, leave_network
from sidecar.users import Account
from tests.support.child import in_child


def network() -> str:
    """What tells this thread's network namespace from others."""
    return os.readlink("/proc/thread-self/ns/net")


def test_the_namespace_that_was_named_is_entered() -> None:
    """Rules would be applied in the machine's own namespace instead of the container's."""
    own = network()

    def there_and_back() -> str:
        leave_network()
        away = network()
        enter_network(f"/proc/{os.getppid()}/ns/net")
        return f"{away} {network()}"

    away, back = in_child(there_and_back).split()
    assert (away == own, back == own) == (False, True)


def test_held_capabilities_have_names() -> None:
    """A message would tell a user that CAP_NET_ADMIN is missing when it is CAP_SYS_ADMIN."""

    def some() -> str:
        relaycore.set_capabilities(1 << 12 | 1 << 21, 1 << 12 | 1 << 21, 0)
        return " ".join(sorted(held_capabilities()))

    assert in_child(some) == "CAP_NET_ADMIN CAP_SYS_ADMIN"
    assert in_child(lambda: confine("") or str(held_capabilities())) == "frozenset()"


@pytest.mark.parametrize("own", [0, 1337])
@pytest.mark.parametrize("other", [0, 4242])
def test_a_socket_is_made_as_another_user(own: int, other: int) -> None:
    """The probe's connections would not be those of the user whom the rules capture, or all that follows would be powerless."""

    def made() -> str:
        become(Identity(Account(own, ""), Account(own, "")), "")
        before = relaycore.capabilities()
        with acting_as(other, other), socket.socket() as sock:
            owner = os.fstat(sock.fileno())
        return str([owner.st_uid, owner.st_gid, os.geteuid() == own, os.getegid() == own, relaycore.capabilities() == before])

    assert in_child(made) == str([other, other, True, True, True])
