"""Network namespaces, held by a descriptor and by nothing else.

Owns: every namespace of the tests. They have no name in /run/netns, so the kernel removes them with the last descriptor and
the last process inside, whatever happens to the tests; parallel runs cannot meet. To look into one that lives:
`nsenter --net=PATH`, with the path that its repr shows.
Never: a rule, an address or a sysctl outside of a namespace that was made here.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.requirements import needs_program, needs_root

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)

# The machine's default congestion control may be BBR, which paces; ICMP errors are rate-limited by default, and a refusal that
# the kernel did not send is a time-out; duplicate address detection would make every IPv6 address wait for a second.
_SYSCTLS = {
    "net.ipv4.tcp_congestion_control": "reno",
    "net.ipv4.icmp_ratelimit": "0",
    "net.ipv4.icmp_msgs_per_sec": "1000000",
    "net.ipv6.icmp.ratelimit": "0",
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.default.router_solicitations": "0",
}


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Place:
    """Where sockets and programs of a test live. This one is the namespace of the tests themselves: loopback traffic only."""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What the calling thread opens and starts meanwhile belongs to this place for good."""
        yield

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program here; whoever calls ends it."""
        needs_program(argv[0])
        with self.entered():
            return subprocess.Popen(argv, **options)


class Namespace(Place):
    """A network namespace of our own, with `lo` up."""

    def __init__(self, name: str, sysctls: Mapping[str, str] = {}) -> None:
        needs_root()
        self.name = name
        home = _own_namespace()
        try:
            _checked(_libc.unshare(CLONE_NEWNET))
            self._descriptor = _own_namespace()
        finally:
            _checked(_libc.setns(home, CLONE_NEWNET))
            os.close(home)
        for key, value in {**_SYSCTLS, **sysctls}.items():
            self.sysctl(key, value)
        self.ip("link set lo up")

    def __repr__(self) -> str:
        return f"<{self.name} {self.path}>"

    @property
    def path(self) -> str:
        """What `ip link … netns` and `nsenter --net=` take, as long as the tests run."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        os.close(self._descriptor)

    @contextmanager
    def entered(self) -> Iterator[None]:
        # A namespace belongs to a thread, so this changes nothing for the others.
        before = _own_namespace()
        _checked(_libc.setns(self._descriptor, CLONE_NEWNET))
        try:
            yield
        finally:
            _checked(_libc.setns(before, CLONE_NEWNET))
            os.close(before)

    def run(self, argv: Sequence[str], stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end; what it complained of is in the error."""
        needs_program(argv[0])
        with self.entered():
            done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(argv)}: {done.stderr.strip()}"
        return done

    def ip(self, *commands: str, family: int = 0) -> None:
        """Commands of ip(8), in one process; a family where they name no address that tells it."""
        self.run(["ip", *([f"-{family}"] if family else []), "-batch", "-"], stdin="\n".join(commands) + "\n")

    def nft(self, ruleset: str) -> str:
        """Load a ruleset, in one transaction; what it printed."""
        return self.run(["nft", "-f", "-"], stdin=ruleset).stdout

    def sysctl(self, key: str, value: str) -> None:
        """Set one sysctl of this namespace; older kernels lack some, which is as good."""
        path = Path("/proc/sys", key.replace(".", "/"))
        with self.entered():
            if path.exists():
                path.write_text(value)
