"""Whose word about the rules is taken: the address of their keeper is free for everyone in the network namespace."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sidecar.rules.keeper import ADDRESS
from tests.support.rule_commands import Pod
from tests.support.toml import to_toml

PYTHON = getattr(sys, "_base_executable", sys.executable)  # a stranger may not read the tests' own environment
SQUATTER = f"""
import contextlib, os, socket, sys
lock = socket.socket(socket.AF_UNIX)
lock.bind({ADDRESS!r})
lock.listen()
if len(sys.argv) > 2 and os.fork():
    os.execvp(sys.argv[2], sys.argv[2:])
print("ready", flush=True)
while True:
    client = lock.accept()[0]
    with contextlib.suppress(BrokenPipeError):
        client.recv(256)
        client.sendall(sys.argv[1].encode())
"""
USER = 4242
ALONE = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]


@contextmanager
def squatting(pod: Pod, answer: str, launcher: list[str], then: list[str]) -> Iterator[None]:
    """Somebody's process holds the address, and answers; having taken it, it may become another program."""
    argv = [*launcher, PYTHON, "-c", SQUATTER, answer, *then]
    with (
        pod.namespace.entered(),
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", start_new_session=True) as squatter,
    ):
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == b"ready\n"
            yield
        finally:
            os.killpg(squatter.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("launcher", "then"),
    [
        (ALONE, []),
        ([*ALONE, "unshare", "--user", "--map-root-user"], []),
        # Root for as long as it waits for a password, and so full of capabilities.
        (ALONE, ["su", "-c", "true"]),
    ],
    ids=["user", "user namespace", "su"],
)
def test_a_stranger_is_not_believed(pod: Pod, launcher: list[str], then: list[str]) -> None:
    """Any user could tell root that rules are guarded, or that a change was confirmed."""
    pod.configure()
    with squatting(pod, "guarding 0", launcher, then):
        for command in ("status", "confirm", "rollback", "remove"):
            found = pod.run(command, status=1)
            assert f"of user {USER}, which holds its address" in found.stderr


def test_the_relays_user_is_believed(pod: Pod) -> None:
    """Root could not look at the rules of a relay that was started with CAP_NET_ADMIN and without root."""
    pod.config.write_text(to_toml({"relay": {"user": str(USER), "group": str(USER)}}))
    with squatting(pod, "guarding 0", ALONE, []):
        assert "another process guards them" in pod.run("status", status=1).stdout  # missing, which they are
        assert "found one that is guarding" in pod.run("confirm", "--config", str(pod.config), status=1).stderr


def test_an_answer_that_is_none_is_told(pod: Pod) -> None:
    """Another version, or anything else at that address, would be a traceback."""
    pod.config.write_text(to_toml({"relay": {"user": str(USER), "group": str(USER)}}))
    with squatting(pod, "hello", ALONE, []):
        assert "found 'hello'" in pod.run("status", status=1).stderr
