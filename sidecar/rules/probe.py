"""Does the capture work? Connections of our own are sent where the rules select them, and looked for where the relay listens.

All of it happens in a child: it makes sockets as other users, and whatever becomes of it, nothing is left behind. Where no
relay listens yet, the child listens in its place. What leaves this machine when nobody captures it, leaves with a TTL of 1.

Owns: the child, and what its end means. Never here: a connection (attempts); a file; a change to rules.
"""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import AF_INET
from typing import NoReturn

from sidecar.privileges import die_with
from sidecar.rules.attempts import NOT_PROBED, Probe
from sidecar.rules.trials import Outcome, Trial

PATIENCE_SECONDS = 5.0  # for what is not waiting: sockets, a namespace, their end
SYSCTLS = Path("/proc/sys/net/ipv4")
ELSEWHERE = "others' rules or a firewall may stop it: `nft list ruleset`, `iptables-save`; --no-probe applies without trying"


def run_trials(trials: Sequence[Trial], relay_uid: int, relay_gid: int, deadline_seconds: float = 0.5) -> list[Outcome]:
    """What came of each, in their order. All are tried at once: when all works it takes a fraction of the deadline."""
    told = json.loads(_told_by_child(lambda: Probe(trials, relay_uid, relay_gid), deadline_seconds) or '"it ended early"')
    if isinstance(told, str):
        told = [(NOT_PROBED, f"the process that was to try it has failed: {told}")] * len(trials)
    return [Outcome(trial, verdict, detail) for trial, (verdict, detail) in zip(trials, told, strict=True)]


def _told_by_child(make: Callable[[], Probe], seconds: float) -> bytes:
    """What it wrote before its end; nothing if it was killed or took too long."""
    own = os.getpid()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try(make, seconds, writer, own)
    os.close(writer)
    told = b""
    try:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        end = time.monotonic() + 2 * seconds + PATIENCE_SECONDS
        while poll.poll(max(0.0, end - time.monotonic()) * 1000):
            part = os.read(reader, 65536)
            if not part:
                return told
            told += part
        return b""
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: the kernel reaps it
            os.waitpid(pid, 0)


def _try(make: Callable[[], Probe], seconds: float, writer: int, parent: int) -> NoReturn:
    """The child."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the parent's to answer; our end is near anyway
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with(parent)
        with make() as probe:
            die_with(parent)  # the kernel forgets it when a process acts as another user
            told: object = probe.run(seconds)
    except Exception as error:  # too few descriptors, say: the rules are not to blame
        told = repr(error)
    try:
        os.write(writer, json.dumps(told).encode())
    finally:
        os._exit(0)


def hints(trial: Trial) -> str:
    """The likely cause of a failed trial, as far as it can be seen, and what to do about it."""
    if trial.capture == "tproxy":
        guilty = [SYSCTLS / "tcp_fwmark_accept"]
        if trial.family == AF_INET and trial.direction == "inbound":
            guilty += sorted(SYSCTLS.glob("conf/*/src_valid_mark"))
        for path in guilty:
            if _is_on(path):
                key = ".".join(path.relative_to("/proc/sys").parts)
                return f"{key} is 1, with which the kernel's TPROXY does not work: set it to 0"
    return ELSEWHERE


def _is_on(path: Path) -> bool:
    try:
        return path.read_text().strip() == "1"
    except OSError:
        return False
