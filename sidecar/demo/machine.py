"""Three hosts of the demo's own, client, app and server: network namespaces, joined in a row by two pairs of veth.

They lie in namespaces of networks, mounts and processes that hang on one process. When that ends, however it ends, the kernel
takes away every process, address, rule and file of the demo: there is no clean-up that could be forgotten.

Owns: those namespaces, addresses and mounts. Never here: a change outside of them; traffic.
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sidecar.errors import Problem, RelayError, reason
from sidecar.links import add_address, add_default_route, await_settled, bring_up, index_of, is_running, make_pair
from sidecar.netlink import NETLINK_ROUTE, opened
from sidecar.privileges import enter_network, in_network, leave_machine, leave_network

RUN: Final = Path("/run")
NAMES: Final = RUN / "netns"  # where ip(8) looks for names of namespaces
HOSTS: Final = ("client", "app", "server")
LINKS: Final = (("client", "app"), ("app", "server"))
PREFIX = {socket.AF_INET: 24, socket.AF_INET6: 64}


class Address(NamedTuple):
    """One end of a link, in both families."""

    v4: str
    v6: str

    def of(self, family: int) -> str:
        return self.v6 if family == socket.AF_INET6 else self.v4


# By link and host. The networks exist in here alone, so they may be anybody's.
ADDRESSES: Final = {
    ("client", "app"): {"client": Address("10.1.0.1", "fd00:1::1"), "app": Address("10.1.0.2", "fd00:1::2")},
    ("app", "server"): {"app": Address("10.2.0.1", "fd00:2::1"), "server": Address("10.2.0.2", "fd00:2::2")},
}
INBOUND, OUTBOUND = (ADDRESSES[link] for link in LINKS)
NAMED: Final = {address: host for ends in ADDRESSES.values() for host, both in ends.items() for address in both}


def leave_for_it() -> str:
    """Of the process that will fork the demo's first one: how nsenter(1) comes after it. RelayError when it is not allowed."""
    try:
        # Control groups are the machine's own, and whoever is not root may not even enter those.
        return "-U --preserve-credentials -m -n -p" if leave_machine() else "-m -n -p"
    except OSError as error:
        expected = "namespaces of its own, for root or in a user namespace"
        step = "run it as root" if os.geteuid() else "run it outside of this container, or where user namespaces are allowed"
        raise RelayError(Problem("demo", expected, reason(error), step)) from None


def check_place(path: str) -> None:
    """RelayError for a program that could not be seen any more: the demo has a /run of its own."""
    if Path(path).resolve().is_relative_to(RUN):
        raise RelayError(Problem("demo", f"a program outside of {RUN}", path, "install it elsewhere"))


class Machine:
    """The three hosts. Whoever makes it is on `app` from then on. `families` are the ones that this kernel has."""

    def __init__(self) -> None:
        _mount("--make-rprivate", "/")
        _mount("-t", "proc", "proc", "/proc")
        _mount("-t", "tmpfs", "-o", "mode=755,size=64m", "relay-sidecar", str(RUN))
        NAMES.mkdir()
        for host in HOSTS:
            self._make(host)
        self.families = [socket.AF_INET, *([socket.AF_INET6] if _has_ipv6() else [])]
        for link in LINKS:
            self._join(*link)
        for host, gateway in (("client", INBOUND["app"]), ("app", OUTBOUND["server"])):
            with in_network(_path(host)), opened(NETLINK_ROUTE) as netlink:
                for family in self.families:
                    add_default_route(netlink, gateway.of(family))
        enter_network(_path("app"))

    @contextlib.contextmanager
    def on(self, host: str) -> Iterator[None]:
        """What is opened and started meanwhile is on this host for good."""
        with in_network(_path(host)):
            yield

    def _make(self, host: str) -> None:
        """A named namespace, with lo up; this process is then in it."""
        leave_network()
        (NAMES / host).touch()
        _mount("--bind", "/proc/self/ns/net", _path(host))
        with opened(NETLINK_ROUTE) as netlink:
            bring_up(netlink, index_of(netlink, "lo"))

    def _join(self, host: str, peer: str) -> None:
        """A pair of veth, each end named for where it leads."""
        namespace = os.open(_path(peer), os.O_RDONLY | os.O_CLOEXEC)
        with self.on(host), opened(NETLINK_ROUTE) as near, self.on(peer), opened(NETLINK_ROUTE) as far:
            make_pair(near, f"to-{peer}", f"to-{host}", namespace)
            ends = ((host, near, index_of(near, f"to-{peer}")), (peer, far, index_of(far, f"to-{host}")))
            bring_up(far, ends[1][2])
            await_settled(lambda: all(is_running(netlink, index) for _, netlink, index in ends))
            for each, netlink, index in ends:
                for family in self.families:
                    add_address(netlink, index, ADDRESSES[host, peer][each].of(family), PREFIX[family])
        os.close(namespace)


def _has_ipv6() -> bool:
    """Whether interfaces of a new namespace get it; it may be there and switched off."""
    switches = [Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") for name in ("all", "default")]
    return all(switch.exists() and switch.read_text().strip() == "0" for switch in switches)


def _path(host: str) -> str:
    return str(NAMES / host)


def _mount(*arguments: str) -> None:
    if shutil.which("mount") is None:
        raise RelayError(Problem("mount", "the program in PATH", "none", "apt-get install mount"))
    # Without -n it makes /run/mount for itself, on the machine.
    done = subprocess.run(["mount", "-n", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        step = "run it as root, outside of a container that restricts mounts"
        raise RelayError(Problem("demo", f"mount {' '.join(arguments)}", done.stderr.strip(), step))
