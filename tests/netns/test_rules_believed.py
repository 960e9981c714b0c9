"""Whose word about the rules is taken: the address of their keeper is free for everyone in the network namespace."""

import subprocess
import sys

import pytest

from sidecar.rules.keeper import ADDRESS
from tests.support.rule_commands import Pod, made

PYTHON = getattr(sys, "_base_executable", sys.executable)  # a stranger may not read the tests' own environment
SQUATTER = f"""
import socket
lock = socket.socket(socket.AF_UNIX)
lock.bind({ADDRESS!r})
lock.listen()
print("ready", flush=True)
while True:
    client = lock.accept()[0]
    client.recv(256)
    client.sendall(b"guarding 0")
"""
ALONE = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
WITH = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin"]


def asked(pod: Pod, launcher: list[str], status: int) -> "subprocess.CompletedProcess[str]":
    """What `rules status` says while a process that was started like this holds the address."""
    with (
        pod.namespace.entered(),
        subprocess.Popen([*launcher, PYTHON, "-c", SQUATTER], stdout=subprocess.PIPE, cwd="/") as squatter,
    ):
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == b"ready\n"
            return pod.run("status", status=status)
        finally:
            squatter.kill()


@pytest.mark.parametrize("launcher", [ALONE, [*ALONE, "unshare", "--user", "--map-root-user"]], ids=["user", "user namespace"])
def test_a_stranger_is_not_believed(launcher: list[str]) -> None:
    """Any user could tell root that rules are guarded, or that a change was confirmed."""
    with made() as pod:
        pod.configure()
        found = asked(pod, launcher, status=1)
        assert "of user 4242, which holds its address" in found.stderr


def test_who_may_change_rules_is_believed() -> None:
    """Root could not look at the rules of a relay that was started with CAP_NET_ADMIN and without root."""
    with made() as pod:
        pod.configure()
        found = asked(pod, [*ALONE, *WITH], status=1)  # missing, which it is
        assert "another process guards them" in found.stdout
