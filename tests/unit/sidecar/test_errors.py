"""sidecar.errors: the shape of every message."""

import errno

from sidecar.errors import BAD_CONFIG, Problem, RelayError, reason


def test_a_problem_is_where_expected_found_next_step() -> None:
    """A user could not tell which place a message is about, or what to do."""
    assert str(Problem("f: a.b", "1 to 3", "7")) == "f: a.b: expected 1 to 3, found 7"
    assert str(Problem("f: a.b", "1 to 3", "7", "write 2")) == "f: a.b: expected 1 to 3, found 7; write 2"


def test_a_problem_is_one_line_whatever_it_holds() -> None:
    """A value with a newline or an escape sequence could forge a line of its own, or drive the terminal."""
    line = str(Problem("file\n\x1b[31m", "a", "b\u2028c\udc80"))
    assert line == r"file\n\x1b[31m: expected a, found b\u2028c\udc80"


def test_an_error_tells_all_its_problems() -> None:
    """Of several mistakes only one would be told at a time."""
    error = RelayError(Problem("a", "x", "y"), Problem("b", "x", "y"), exit_status=BAD_CONFIG)
    assert str(error).splitlines() == ["a: expected x, found y", "b: expected x, found y"]
    assert error.exit_status == 78


def test_a_reason_is_the_kernels_words() -> None:
    """Messages would repeat Python's number and file name."""
    assert reason(OSError(errno.EADDRINUSE, "something longer")) == "Address already in use"
    assert reason(TimeoutError("timed out")) == "timed out"
