"""Facts about users: what uid 1337 may do with which capability, what it may hold, and who may share its listeners."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Namespace
from tests.support.relay import UID
from tests.support.users import nobody_else, script

PROBES = """
import errno, json, socket
def probe(*call):
    with socket.socket() as s:
        try:
            call[0](s, *call[1:])
        except OSError as error:
            return errno.errorcode[error.errno]
    return "yes"
print(json.dumps({
    "IP_TRANSPARENT": probe(socket.socket.setsockopt, socket.SOL_IP, 19, 1),
    "SO_MARK": probe(socket.socket.setsockopt, socket.SOL_SOCKET, socket.SO_MARK, 0x539),
    "IP_BIND_ADDRESS_NO_PORT": probe(socket.socket.setsockopt, socket.SOL_IP, 24, 1),
    "SO_ORIGINAL_DST": probe(socket.socket.getsockopt, socket.SOL_IP, 80, 16),
}))
"""

PIPES = """
import fcntl, json, os
F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032
pipes, sizes = [], []
while len(pipes) < COUNT:
    pipes.append(os.pipe())
    sizes.append(fcntl.fcntl(pipes[-1][0], F_GETPIPE_SZ))
try:
    grown = fcntl.fcntl(pipes[-1][0], F_SETPIPE_SZ, 1 << 18)
except OSError as error:
    grown = type(error).__name__
print(json.dumps([sizes[0], sizes[-2], sizes[-1], grown]))
"""

BIND = """
import json, socket, sys
shared, exclusive = (socket.socket(), socket.socket())
shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
answers = []
for sock in (exclusive, shared):
    try:
        sock.bind(("0.0.0.0", 15002))
        sock.listen()
        answers.append("yes")
    except OSError:
        answers.append("in use")
print(json.dumps(answers))
"""


def answer(place: Namespace, source: str, *capabilities: str, uid: int = UID) -> Any:
    process = place.popen(script(uid, source, *capabilities), stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=60)
    return json.loads(out)


@pytest.mark.parametrize("capability", ["net_raw", "net_admin"])
def test_one_capability_is_enough_to_be_transparent(namespace: Namespace, capability: str) -> None:
    """Uid 1337 needs no more than CAP_NET_RAW, or CAP_NET_ADMIN, for TPROXY, spoofing and marks."""
    assert set(answer(namespace, PROBES, capability).values()) == {"yes", "ENOENT"}


def test_redirect_needs_no_capability(namespace: Namespace) -> None:
    """A sidecar without any capability can ask for the original destination, and nothing that TPROXY needs."""
    assert answer(namespace, PROBES) == {
        "IP_TRANSPARENT": "EPERM",
        "SO_MARK": "EPERM",
        "IP_BIND_ADDRESS_NO_PORT": "yes",
        "SO_ORIGINAL_DST": "ENOENT",  # allowed: there is just no conntrack entry
    }


def test_pipes_are_small_once_the_budget_of_the_user_is_spent(namespace: Namespace) -> None:
    """Other sidecars of the same user share the budget: a relay that counts on large pipes would crawl."""
    pages = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    count = pages // 16 + 1
    whole, last_whole, first_small, grown = answer(namespace, PIPES.replace("COUNT", str(count)), uid=nobody_else())
    assert (whole, last_whole, first_small, grown) == (1 << 16, 1 << 16, 2 << 12, "PermissionError")


@pytest.mark.parametrize(("holder", "joins"), [(UID, "yes"), (0, "in use")])
def test_listeners_are_shared_within_one_user(namespace: Namespace, holder: int, joins: str) -> None:
    """A second relay of the same user would silently take half of the connections; a bind without SO_REUSEPORT notices."""
    hold = BIND.replace("for sock in (exclusive, shared)", "for sock in (shared,)") + "sys.stdout.flush(); sys.stdin.read()"
    process = namespace.popen(script(holder, hold), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == ["yes"]
    assert answer(namespace, BIND) == ["in use", joins]
    process.communicate(timeout=60)
