"""sidecar.users: names and numbers."""

import os

import pytest

from sidecar.users import HIGHEST_ID, Account, find_group, find_user, is_mapped, supplementary_groups


def test_a_number_needs_no_entry_in_passwd() -> None:
    """A container without an entry for 1337 could not run the relay."""
    assert find_user("1337") == Account(1337, "1337")
    assert find_group("1337") == Account(1337, "1337")
    assert find_user(str(HIGHEST_ID)) == Account(HIGHEST_ID, str(HIGHEST_ID))


def test_a_name_is_looked_up() -> None:
    """`user = "root"` would be refused, or taken for a number."""
    assert find_user("root") == Account(0, "root")
    assert find_user("0") == Account(0, "root")
    assert find_group("root") == Account(0, "root")


@pytest.mark.parametrize("text", ["", "nobody-here", "-1", "+1", "1 ", "\u0661", str(HIGHEST_ID + 1), "9" * 5000, "a\0b"])
def test_what_is_no_user_is_none(text: str) -> None:
    """4294967295 is -1 to setuid(2), which then changes nothing: the relay would stay root."""
    assert find_user(text) is None
    assert find_group(text) is None


def test_a_user_without_an_entry_has_no_other_groups() -> None:
    """The relay would keep groups of whoever started it."""
    assert supplementary_groups(Account(1337, "1337"), Account(1337, "1337")) == []


def test_groups_do_not_repeat_the_primary_one() -> None:
    """A kernel limit on groups would be used up by duplicates."""
    assert 0 not in supplementary_groups(Account(0, "root"), Account(0, "root"))


def test_users_of_this_namespace_are_known() -> None:
    """Advice about a user that is known would send people the wrong way."""
    assert is_mapped(os.geteuid())
    assert is_mapped(2**32 - 1) is False
