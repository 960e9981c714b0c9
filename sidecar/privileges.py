"""Who the process is and what it may do: the change of user, the capability that is kept, the limit on open files, its network.

Owns: what the start does to credentials. The order, which proxy keeps: become() the user, find the capability that suffices,
bind, confine(). Capabilities are per thread in the kernel: all of it happens before any thread is started.
Never here: a way back. After confine() nothing can be gained again, not even by running another program.
"""

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Iterator
from typing import Final, NamedTuple

import relaycore
from sidecar.config import Config
from sidecar.errors import NO_PRIVILEGE, Problem, RelayError, reason
from sidecar.users import Account, group_of, supplementary_groups, user_of

# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 8, 23, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
# linux/in.h, asm-generic/socket.h
IP_TRANSPARENT, SO_MARK = 19, 36

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000  # linux/sched.h

CAPABILITY_BITS = 64
UNLIMITED_FILES = 1 << 20  # fs.nr_open: what "unlimited" comes to
CAPABILITIES: Final = {"CAP_NET_RAW": 1 << 13, "CAP_NET_ADMIN": 1 << 12}  # either will do: the weaker one is tried first
# linux/capability.h: the ones that a message can be about
NAMED_CAPABILITIES: Final = {
    **{"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_NET_BIND_SERVICE": 10},
    **{"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21},
}
HOW_TO_GRANT = "start it as root (it keeps this capability alone), or give it to the program with setcap"


class Identity(NamedTuple):
    """Who the relay will be."""

    user: Account
    group: Account
    note: str = ""  # when it is not who the configuration says


class Needs(NamedTuple):
    """What the sockets need a capability for."""

    transparent: str  # the key that needs IP_TRANSPARENT or another's source address; "": none
    mark: int  # SO_MARK of dialled connections; 0: none
    dial: bool  # the capability is needed while the relay runs, not only to bind


def choose_identity(config: Config) -> Identity:
    """Root becomes the configured user and group; anyone else stays, and may not ask for somebody else (exit status 77)."""
    relay = config.relay
    if os.geteuid() == 0:
        return Identity(relay.user, relay.group)
    user, group = user_of(os.geteuid()), group_of(os.getegid())
    problems = [
        Problem(
            config.where(f"relay.{key}"),
            f"to run as {key} {wanted.name}",
            f"{key} {own.name}",
            "start it as root" if wanted.id == 0 else f"start it as root, or as {wanted.name}",
        )
        for key, wanted, own in (("user", relay.user, user), ("group", relay.group, group))
        if key in relay.given and wanted.id != own.id
    ]
    if problems:
        raise RelayError(*problems, exit_status=NO_PRIVILEGE)
    differs = (user.id, group.id) != (relay.user.id, relay.group.id)
    return Identity(user, group, f"only root can become user {relay.user.name}" if differs else "")


def become(identity: Identity, where: str) -> None:
    """Change user, group and groups, and keep every capability for now: confine() takes them away. `where` names relay.user."""
    user, group = identity.user, identity.group
    if (user.id, group.id) != (os.geteuid(), os.getegid()):
        try:
            relaycore.prctl(PR_SET_KEEPCAPS, 1)
            os.setgroups(supplementary_groups(user, group))
            os.setresgid(group.id, group.id, group.id)
            os.setresuid(user.id, user.id, user.id)
        except OSError as error:  # EPERM: root without CAP_SETUID; EINVAL: a user namespace that does not map the number
            found = f"{reason(error)} for user {user.id}, group {group.id}"
            step = 'set relay.user and relay.group to "0" in a container that has root alone'
            raise RelayError(Problem(where, "to become the relay's user", found, step), exit_status=NO_PRIVILEGE) from None
    _, permitted, _ = relaycore.capabilities()
    relaycore.set_capabilities(permitted, permitted, 0)


def what_sockets_need(config: Config) -> Needs:
    """What the configuration asks of capabilities."""
    keys = [
        f"listener[{index}].{'preserve_client' if listener.preserve_client else 'capture'}"
        for index, listener in enumerate(config.listeners)
        if listener.capture == "tproxy"
    ]
    spoofs = any(listener.preserve_client for listener in config.listeners)
    return Needs(keys[0] if keys else "", config.rules.mark, dial=spoofs or config.rules.mark != 0)


def sufficient_capability(needs: Needs) -> str | None:
    """The name of the weakest capability that was tried and suffices, "" when none is needed, None when none does."""
    if not needs.transparent and not needs.mark:
        return ""
    effective, permitted, _ = relaycore.capabilities()
    try:
        for name, bit in CAPABILITIES.items():
            if permitted & bit:
                relaycore.set_capabilities(bit, permitted, 0)
                if _suffices(needs):
                    return name
    finally:
        relaycore.set_capabilities(effective, permitted, 0)
    return None


def _suffices(needs: Needs) -> bool:
    """Ask the kernel: SO_MARK wants CAP_NET_ADMIN before Linux 5.17, and a user namespace's capability may be worth nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            if needs.transparent:
                probe.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            if needs.mark:
                probe.setsockopt(socket.SOL_SOCKET, SO_MARK, needs.mark)
        except PermissionError:
            return False
    return True


def missing_capability(config: Config, key: str) -> RelayError:
    """Exit status 77: the key that cannot do without a capability, which one, and how to grant it."""
    problem = Problem(config.where(key), " or ".join(CAPABILITIES), "neither", f'{HOW_TO_GRANT}, or use capture = "redirect"')
    return RelayError(problem, exit_status=NO_PRIVILEGE)


def missing_mark(config: Config) -> Problem:
    """The warning for a mark that cannot be set: the rules then exempt the relay by its user alone."""
    return Problem(
        config.where("rules.mark"),
        " or ".join(CAPABILITIES),
        "neither",
        "connections are dialled without it; 0 silences this",
    )


def enter_network(path: str) -> None:
    """Enter the network namespace that a path names, for good."""
    where, step = f"--netns {path}", "name one as /proc/PID/ns/net or /run/netns/NAME"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise RelayError(
            Problem(where, "a network namespace that we may enter", reason(error), "run it as root"), exit_status=NO_PRIVILEGE
        ) from None
    except OSError as error:
        raise RelayError(Problem(where, "a network namespace", reason(error), step)) from None
    try:
        relaycore.setns(descriptor, CLONE_NEWNET)
    except PermissionError as error:
        raise RelayError(
            Problem(where, "CAP_SYS_ADMIN, here and there", reason(error), "run it as root"), exit_status=NO_PRIVILEGE
        ) from None
    except OSError as error:
        raise RelayError(Problem(where, "a network namespace", reason(error), step)) from None
    finally:
        os.close(descriptor)


def leave_network() -> None:
    """Enter a network namespace of our own, with nothing in it, for good.

    Without CAP_SYS_ADMIN it lies in a user namespace of our own; OSError where that is not allowed either.
    """
    try:
        relaycore.unshare(CLONE_NEWNET)
    except PermissionError:
        relaycore.unshare(CLONE_NEWUSER | CLONE_NEWNET)


@contextlib.contextmanager
def in_network(path: str) -> Iterator[None]:
    """What this thread opens and starts meanwhile belongs to the network namespace that a path names."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_network(path)
        yield
    finally:
        relaycore.setns(before, CLONE_NEWNET)
        os.close(before)


def leave_machine() -> bool:
    """Enter namespaces of our own for networks, mounts, and processes that are forked from now on, for good.

    Without CAP_SYS_ADMIN we become root of a user namespace, which knows our own user alone; whether that was so. OSError where
    it is not allowed.
    """
    kinds = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID
    uid, gid = os.geteuid(), os.getegid()
    try:
        relaycore.unshare(kinds)
        return False
    except PermissionError:
        relaycore.unshare(CLONE_NEWUSER | kinds)
    # Who may not change groups may not drop one that denies him something; the kernel asks for that promise first.
    for name, text in {"setgroups": "deny", "uid_map": f"0 {uid} 1", "gid_map": f"0 {gid} 1"}.items():
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    return True


def held_capabilities() -> frozenset[str]:
    """The names of those in effect, of the ones that a message can be about."""
    effective, _, _ = relaycore.capabilities()
    return frozenset(name for name, bit in NAMED_CAPABILITIES.items() if effective >> bit & 1)


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Sockets that are made meanwhile belong to this user and group. OSError without CAP_SETUID or CAP_SETGID.

    Afterwards all is as before but the signal at a parent's death, which the kernel forgets: die_with() sets it again.
    """
    own = os.geteuid(), os.getegid()
    effective, permitted, inheritable = relaycore.capabilities()
    relaycore.prctl(PR_SET_KEEPCAPS, 1)  # for one who is not root, was root meanwhile, and comes back
    try:
        os.setegid(gid)  # the group first: a user that is not root may not change it
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(own[0])
        relaycore.set_capabilities(effective, permitted, inheritable)  # a change from root to another user takes them
        os.setegid(own[1])
        relaycore.prctl(PR_SET_KEEPCAPS, 0)


def die_with(parent: int) -> None:
    """A forked child's promise not to outlive its parent, which is 0 when it lives outside of our namespace of processes."""
    relaycore.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the promise
        os._exit(1)


def outlive_parent() -> None:
    """Take that promise back."""
    relaycore.prctl(PR_SET_PDEATHSIG, 0)


def confine(keep: str) -> None:
    """Give up everything but one capability ("": all), for good: in this thread and the ones it starts."""
    relaycore.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(CAPABILITY_BITS):
        try:
            if relaycore.prctl(PR_CAPBSET_READ, capability):
                relaycore.prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # EINVAL: past the last one; EPERM: no CAP_SETPCAP, and no_new_privs serves alone
            break
    kept = CAPABILITIES.get(keep, 0)
    relaycore.set_capabilities(kept, kept, 0)
    relaycore.prctl(PR_SET_NO_NEW_PRIVS, 1)


def raise_open_files() -> int:
    """Raise the soft limit on open files to the hard one, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else UNLIMITED_FILES
