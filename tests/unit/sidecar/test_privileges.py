"""sidecar.privileges: who the relay becomes, and what it keeps."""

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import relaycore
from sidecar import privileges
from sidecar.errors import RelayError
from sidecar.privileges import (
    CAPABILITIES,
    Identity,
    Needs,
    acting_as,
    become,
    choose_identity,
    confine,
    die_with,
    enter_network,
    missing_capability,
    missing_mark,
    raise_open_files,
    sufficient_capability,
    what_sockets_need,
)
from sidecar.users import Account
from tests.support.child import in_child
from tests.unit.sidecar.conftest import Load

NET_RAW, NET_ADMIN = CAPABILITIES["CAP_NET_RAW"], CAPABILITIES["CAP_NET_ADMIN"]
TPROXY = '[[listener]]\nname = "in"\ndirection = "inbound"\nport = 1\ncapture = "tproxy"\n'


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretend to be somebody."""

    def pretend(uid: int) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(os, "getegid", lambda: uid)

    return pretend


def test_root_becomes_the_configured_user(load: Load, as_user: Callable[[int], None]) -> None:
    """The relay would stay root, or the rules would exempt somebody else."""
    config = load('[relay]\nuser = "1234"\ngroup = "4321"\n')
    as_user(0)
    assert choose_identity(config) == Identity(Account(1234, "1234"), Account(4321, "4321"))


def test_a_developer_runs_it_as_himself(load: Load, as_user: Callable[[int], None]) -> None:
    """Trying the relay out would need root."""
    config = load("")
    as_user(54321)
    assert choose_identity(config) == Identity(
        Account(54321, "54321"), Account(54321, "54321"), "only root can become user 1337"
    )
    as_user(1337)
    assert choose_identity(config).note == ""


def test_another_user_than_the_configured_one_is_refused(load: Load, as_user: Callable[[int], None]) -> None:
    """The rules exempt relay.user: run as another one, the relay would capture its own connections."""
    config = load('[relay]\nuser = "1234"\ngroup = "1234"\n')
    as_user(54321)
    with pytest.raises(RelayError) as caught:
        choose_identity(config)
    assert caught.value.exit_status == 77
    assert [line.partition("relay.toml: ")[2] for line in str(caught.value).splitlines()] == [
        "relay.user: expected to run as user 1234, found user 54321; start it as root, or as 1234",
        "relay.group: expected to run as group 1234, found group 54321; start it as root, or as 1234",
    ]
    as_user(1234)
    assert choose_identity(config).user.id == 1234


def test_the_change_of_user_keeps_capabilities_and_order(
    monkeypatch: pytest.MonkeyPatch, as_user: Callable[[int], None]
) -> None:
    """After setuid() nothing else could be changed, and without KEEPCAPS no capability would be left to bind with."""
    calls: list[tuple[Any, ...]] = []
    as_user(0)
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, lambda *arguments, name=name: calls.append((name, *arguments)))
    monkeypatch.setattr(relaycore, "prctl", lambda *arguments: calls.append(("prctl", *arguments)))
    monkeypatch.setattr(relaycore, "capabilities", lambda: (0, NET_RAW | NET_ADMIN, 0))
    monkeypatch.setattr(relaycore, "set_capabilities", lambda *arguments: calls.append(("set", *arguments)))
    become(Identity(Account(1337, "1337"), Account(1337, "1337")), "f: relay.user")
    assert calls == [
        ("prctl", privileges.PR_SET_KEEPCAPS, 1),
        ("setgroups", []),
        ("setresgid", 1337, 1337, 1337),
        ("setresuid", 1337, 1337, 1337),
        ("set", NET_RAW | NET_ADMIN, NET_RAW | NET_ADMIN, 0),
    ]


def test_a_user_that_cannot_be_become_is_told(monkeypatch: pytest.MonkeyPatch, as_user: Callable[[int], None]) -> None:
    """In a user namespace that maps root alone, the start would end in a traceback."""
    as_user(0)
    monkeypatch.setattr(relaycore, "prctl", lambda *_: 0)

    def refuse(_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "setgroups", refuse)
    with pytest.raises(RelayError, match=r"f: relay\.user: .* found Invalid argument for user 1337, group 1337") as caught:
        become(Identity(Account(1337, "1337"), Account(1337, "1337")), "f: relay.user")
    assert caught.value.exit_status == 77


def test_needs_follow_the_configuration(load: Load) -> None:
    """REDIRECT without a mark would ask for a capability, or TPROXY would not."""
    assert what_sockets_need(load("")) == Needs("", 0x539, dial=True)
    assert what_sockets_need(load("[rules]\nmark = 0\n")) == Needs("", 0, dial=False)
    assert what_sockets_need(load(f"{TPROXY}[rules]\nmark = 0\n")) == Needs("listener[0].capture", 0, dial=False)
    spoofing = f"{TPROXY}preserve_client = true\n[rules]\nmark = 0\n"
    assert what_sockets_need(load(spoofing)) == Needs("listener[0].preserve_client", 0, dial=True)


@pytest.mark.parametrize(
    ("permitted", "sufficient", "chosen"),
    [
        (NET_RAW | NET_ADMIN, {NET_RAW, NET_ADMIN}, "CAP_NET_RAW"),
        (NET_RAW | NET_ADMIN, {NET_ADMIN}, "CAP_NET_ADMIN"),  # SO_MARK before Linux 5.17
        (NET_ADMIN, {NET_RAW, NET_ADMIN}, "CAP_NET_ADMIN"),
        (NET_RAW, set(), None),  # held, but in a user namespace that does not own the network
        (0, {NET_RAW, NET_ADMIN}, None),
    ],
)
def test_the_weakest_capability_that_works_is_kept(
    monkeypatch: pytest.MonkeyPatch, permitted: int, sufficient: set[int], chosen: str | None
) -> None:
    """The relay would keep more power than it needs, or believe in a capability that is worth nothing."""
    effective = [permitted]
    monkeypatch.setattr(relaycore, "capabilities", lambda: (effective[-1], permitted, 0))
    monkeypatch.setattr(relaycore, "set_capabilities", lambda e, p, i: effective.append(e))
    monkeypatch.setattr(privileges, "_suffices", lambda _: effective[-1] in sufficient)
    assert sufficient_capability(Needs("x", 1, dial=True)) == chosen
    assert effective[-1] == permitted, "what was held before the trial is not held after it"


@pytest.mark.parametrize("needs", [Needs("listener[0].capture", 0, dial=False), Needs("", 1, dial=True)])
def test_the_kernel_is_asked_what_a_capability_is_worth(needs: Needs) -> None:
    """The relay would start, and every dial, or every TPROXY connection, would fail."""

    def without_capabilities() -> str:
        confine("")
        return str(privileges._suffices(needs))

    assert in_child(without_capabilities) == "False"


def test_nothing_is_kept_where_nothing_is_needed() -> None:
    """A relay with REDIRECT and without a mark would hold a capability."""
    assert sufficient_capability(Needs("", 0, dial=False)) == ""


@pytest.mark.parametrize("needs", [Needs("listener[0].capture", 0, dial=False), Needs("", 1, dial=True)])
def test_without_capabilities_none_suffices(needs: Needs) -> None:
    """The relay would start without what its configuration asks for."""

    def without_capabilities() -> str:
        confine("")
        return str(sufficient_capability(needs))

    assert in_child(without_capabilities) == "None"


def test_a_missing_capability_is_told_with_its_key(load: Load) -> None:
    """A user would read EPERM, and not which key asks for what, or how to grant it."""
    config = load(TPROXY)
    error = missing_capability(config, "listener[0].capture")
    assert error.exit_status == 77
    assert str(error).endswith(
        "relay.toml: listener[0].capture: expected CAP_NET_RAW or CAP_NET_ADMIN, found neither; start it as root (it keeps "
        'this capability alone), or give it to the program with setcap, or use capture = "redirect"'
    )
    assert "rules.mark: expected CAP_NET_RAW or CAP_NET_ADMIN, found neither" in str(missing_mark(config))


def test_confined_means_for_good() -> None:
    """A fault in the relay could use capabilities that it no longer needs, or gain them by running a setuid program."""

    def confined() -> str:
        confine("")
        return Path("/proc/thread-self/status").read_text()

    status = dict(line.split(":\t") for line in in_child(confined).splitlines() if line.startswith(("Cap", "NoNewPrivs")))
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
    )
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert int(status["CapBnd"], 16) == 0


def test_open_files_are_raised_to_the_hard_limit() -> None:
    """The relay would shed connections at 1024 descriptors where it may have 20,000."""

    def raised() -> str:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        return f"{raise_open_files()} {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} {hard}"

    returned, soft, hard = in_child(raised).split()
    assert returned == soft == hard


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/nowhere", r"--netns /nowhere: expected a network namespace, found No such file or directory; name one as /proc/PID"),
        ("/dev/null", r"--netns /dev/null: expected a network namespace, found Invalid argument; name one as /proc/PID"),
        ("/proc/self/ns/ipc", r"--netns /proc/self/ns/ipc: expected a network namespace, found Invalid argument"),
    ],
)
def test_what_is_no_network_namespace_is_refused(path: str, found: str) -> None:
    """A typing error would end in a traceback, or change the rules of this namespace."""
    with pytest.raises(RelayError, match=found) as caught:
        enter_network(path)
    assert caught.value.exit_status == 1


def test_a_namespace_may_not_be_entered_without_privilege() -> None:
    """An operator would not learn that it takes CAP_SYS_ADMIN."""

    def without_capabilities() -> str:
        confine("")
        try:
            enter_network("/proc/self/ns/net")
        except RelayError as error:
            return f"{error.exit_status} {error}"
        return ""

    assert in_child(without_capabilities).startswith("77 --netns /proc/self/ns/net: expected CAP_SYS_ADMIN")


def test_who_may_not_act_for_others_says_so() -> None:
    """The probe would connect as root, be exempt from the rules, and blame them."""

    def confined() -> str:
        confine("")
        with contextlib.suppress(PermissionError), acting_as(4242, 4242):
            return "changed"
        return f"refused {os.geteuid()} {os.getegid()}"

    assert in_child(confined) == f"refused {os.geteuid()} {os.getegid()}"


def test_a_child_does_not_outlive_its_parent() -> None:
    """A probe that is killed would leave a process behind, and with it its interface."""
    reader, writer = os.pipe()

    def parent() -> str:
        started, ready = os.pipe()
        own = os.getpid()
        if os.fork() == 0:
            die_with(own)
            os.write(ready, b"!")
            signal.pause()
        os.read(started, 1)
        return ""

    in_child(parent)
    os.close(writer)
    assert os.read(reader, 1) == b"", "the child is dead: nobody holds the pipe"
    os.close(reader)
