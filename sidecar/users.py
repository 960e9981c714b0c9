"""Users and groups: names or numbers to ids, ids to names.

Owns: the look-up in passwd and group. A number needs no entry there: containers seldom have one for 1337.
Never here: a change of the process's own user (privileges does that).
"""

import grp
import os
import pwd
from collections.abc import Callable
from typing import NamedTuple

HIGHEST_ID = 2**32 - 2  # 2**32 - 1 is -1, which setuid(2) and chown(2) take as "leave it"


class Account(NamedTuple):
    """A user or a group: its id, and its name where the system has one (else the number)."""

    id: int
    name: str


def find_user(text: str) -> Account | None:
    """The user of this name or number; None when there is no such name, or the number is too great."""
    return _find(text, user_of, lambda name: pwd.getpwnam(name).pw_uid)


def find_group(text: str) -> Account | None:
    """The group of this name or number; None when there is no such name, or the number is too great."""
    return _find(text, group_of, lambda name: grp.getgrnam(name).gr_gid)


def _find(text: str, by_id: Callable[[int], Account], id_of_name: Callable[[str], int]) -> Account | None:
    if text.isascii() and text.isdigit():
        return by_id(int(text)) if len(text) <= len(str(HIGHEST_ID)) and int(text) <= HIGHEST_ID else None
    try:
        return Account(id_of_name(text), text)
    except (KeyError, ValueError):  # ValueError: a NUL or a lone surrogate in the name
        return None


def user_of(uid: int) -> Account:
    """The user with this id, named by the system or by its number."""
    try:
        return Account(uid, pwd.getpwuid(uid).pw_name)
    except KeyError:
        return Account(uid, str(uid))


def group_of(gid: int) -> Account:
    """The group with this id, named by the system or by its number."""
    try:
        return Account(gid, grp.getgrgid(gid).gr_name)
    except KeyError:
        return Account(gid, str(gid))


def is_mapped(uid: int) -> bool:
    """Whether this user namespace knows the number; iptables refuses a rule about one that it does not."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return any(first <= uid < first + count for first, _, count in ranges)


def supplementary_groups(user: Account, group: Account) -> list[int]:
    """The groups that a login of this user would have; none for a user without an entry."""
    try:
        name = pwd.getpwuid(user.id).pw_name
    except KeyError:
        return []
    return sorted(set(os.getgrouplist(name, group.id)) - {group.id})
