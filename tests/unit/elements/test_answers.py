"""Answers that are bytes with a meaning."""

import math

import pytest

from relaycore.element import After


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf, 86401])
def test_a_time_that_cannot_be_is_an_error_where_it_is_made(seconds: float) -> None:
    """The traceback would show the relay's code, or a flow wait for ever."""
    with pytest.raises(ValueError, match="After: expected 0 to 86400 seconds"):
        After(b"x", seconds)


def test_after_is_its_bytes_and_its_time() -> None:
    """It could not be compared with what it stands for."""
    assert (After(b"x", 2), After(b"x", 2).seconds) == (b"x", 2.0)
