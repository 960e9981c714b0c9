"""sidecar.config.kinds and network_kinds: what a value may be, and how it is refused."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import network_kinds as network
from sidecar.config.kinds import (
    Kind,
    Misfit,
    array,
    boolean,
    choice,
    duration,
    integer,
    microseconds,
    parse_duration,
    parse_size,
    shown,
    size,
    words,
    write_duration,
    write_size,
)
from sidecar.config.network_kinds import Endpoint, PortRange

LEVEL = choice("info", "warn", aliases=[("warning", "warn")], any_case=True)
TARGET = network.endpoint("host:port", names=True, lowest_port=1)
PLACE = network.endpoint("address:port", names=False, lowest_port=0)


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        (boolean(), True, True),
        (integer(1, 3), 3, 3),
        (LEVEL, "WARNING", "warn"),
        (duration("1s", "2h"), "1h30m", 5_400_000),
        (duration("1s", "2h"), "90m", 5_400_000),
        (duration("1s", "2h"), "1s", 1000),
        (duration("1s", "2h"), "2h", 7_200_000),
        (duration("10ms", "2h"), "250ms", 250),
        (duration("1s", "2h", zero="never"), "0s", 0),
        (microseconds("100us", zero="off"), "50us", 50),
        (microseconds("100us", zero="off"), "0s", 0),
        (size("1KiB", "1GiB"), "64MiB", 67_108_864),
        (size("1KiB", "1GiB"), "1KiB", 1024),
        (size("1KiB", "1GiB"), "1GiB", 2**30),
        (array(integer(0, 9), "digits", most=3), [1, 2, 3], (1, 2, 3)),
        (network.listen_address(), "", ""),
        (network.listen_address(), "0:0::1", "::1"),
        (network.listen_address(), "fe80::1%eth0", "fe80::1%eth0"),
        (TARGET, "localhost:8080", Endpoint("localhost", 8080)),
        (TARGET, "[::1]:80", Endpoint("::1", 80)),
        (TARGET, "", None),
        (PLACE, "127.0.0.1:0", Endpoint("127.0.0.1", 0)),
        (network.port_ranges(), [22, "8000-8100"], (PortRange(22, 22), PortRange(8000, 8100))),
        (network.all_or_port_ranges(), "all", None),
        (network.network(), "10.0.0.0/8", "10.0.0.0/8"),
        (network.network(), "10.1.2.3", "10.1.2.3/32"),
        (network.network(), "FE80::/10", "fe80::/10"),
        (network.interface(), "eth0.100", "eth0.100"),
    ],
)
def test_what_fits_is_taken(kind: Kind[Any], value: object, taken: object) -> None:
    """A configuration that the documentation allows would be refused, or mean something else."""
    assert kind.take(value) == taken


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (boolean(), 1),
        (boolean(), "true"),
        (integer(0, 3), True),
        (integer(0, 3), 4),
        (integer(0, 3), 2.0),
        (integer(0, 3), "2"),
        (integer(0, 3, taken=[(2, "somebody")]), 2),
        (LEVEL, "loud"),
        (LEVEL, 1),
        (choice("nft"), "NFT"),
        *(
            (duration("1s", "2h"), text)
            for text in ("", "10", "s", "1d", "-1s", " 1s", "1s ", "1.5s", "3h", "999ms", "0s", "1m1h")
        ),
        (duration("1s", "2h"), 10),
        (duration("1s", "2h", whole_seconds=True), "1500ms"),
        *((microseconds("100us", zero="off"), text) for text in ("", "50", "0us", "101us", "1ms", "-1us", "1us ", "0")),
        (microseconds("100us", zero="off"), 50),
        *((size("1KiB", "1GiB"), text) for text in ("", "64", "64MB", "2GiB", "1B", "-1KiB", "1 KiB")),
        (array(integer(0, 9), "digits", most=3), [1, 2, 3, 4]),
        (array(integer(0, 9), "digits", most=3), 1),
        *((network.listen_address(), text) for text in ("localhost", "1.2.3", "1.2.3.4%lo", "fe80::1%", "::1\0", "[::1]")),
        *(
            (TARGET, text)
            for text in ("localhost", ":80", "a:0", "a:65536", "::1:80", "[1.2.3.4]:80", "a b:80", "a:b:80", "[::1]")
        ),
        *((PLACE, text) for text in ("localhost:80", "1.2.3.4:", "[::]:99999")),
        *((network.port_ranges(), ports) for ports in (["1-2", 2], [0], ["2-1"], ["1-65536"], [True], ["80"], [1, 1], "80")),
        (network.all_or_port_ranges(), "some"),
        *(
            (network.network(), text)
            for text in ("10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "::/129", "fe80::1%lo/10", "x", "1.2.3.4/-1")
        ),
        *((network.interface(), name) for name in ("", "a" * 16, "a b", "a/b", "a:b", ".", "..", "é")),
    ],
)
def test_what_does_not_fit_is_refused(kind: Kind[Any], value: object) -> None:
    """A mistake would be taken for something that nobody meant, at the next start or in the rules."""
    with pytest.raises(Misfit):
        kind.take(value)


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (network.network(), "10.0.0.1/8", 'write "10.0.0.0/8"'),
        (duration("1s", "2h"), 10, 'give it a unit, as in "10s"'),
        (microseconds("100us", zero="off"), 50, 'give it a unit, as in "50us"'),
        (size("1KiB", "1GiB"), 64, 'give it a unit, as in "64B"'),
    ],
)
def test_a_near_miss_is_told_how_to_write_it(kind: Kind[Any], value: object, told: str) -> None:
    """A user would have to look up the spelling."""
    with pytest.raises(Misfit) as caught:
        kind.take(value)
    assert caught.value.next_step == told


def test_a_misfit_in_an_array_names_its_index() -> None:
    """In a list of two hundred ports nobody could find the wrong one."""
    for kind, value in ((array(integer(0, 9), "digits", most=3), [1, 70]), (network.port_ranges(), [1, 70000])):
        with pytest.raises(Misfit) as caught:
            kind.take(value)
        assert caught.value.at == "[1]"


@given(st.integers(0, 10**12))
def test_durations_are_read_as_they_are_written(milliseconds: int) -> None:
    """`check --json` would show another duration than the one that holds."""
    assert parse_duration(write_duration(milliseconds)) == milliseconds


@given(st.integers(1, 10**11))
def test_sizes_are_read_as_they_are_written(number: int) -> None:
    """`check --json` would show another size than the one that holds."""
    assert parse_size(write_size(number)) == number


@pytest.mark.parametrize("parse", [parse_duration, parse_size])
@given(text=st.text("0123456789hmsKMGiB .-", max_size=12))
def test_other_spellings_are_errors_and_nothing_else(parse: Callable[[str], int], text: str) -> None:
    """A value made to confuse would end the relay with a traceback."""
    with contextlib.suppress(ValueError):
        assert parse(text) >= 0


def test_a_shown_value_is_short_and_quoted() -> None:
    """A message would be longer than a terminal, or text could not be told from a number."""
    assert shown("5") == '"5"'
    assert shown(5) == "5"
    assert shown(True) == "true"
    assert shown({}) == "a table"
    assert shown([1, 2]) == "an array of 2"
    assert len(shown("x" * 1000)) == 60


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (TARGET, "[::1]:80"),
        (PLACE, ""),
        (network.all_or_port_ranges(), [22, "8000-8100"]),
        (network.all_or_port_ranges(), "all"),
        (array(duration("1s", "2h"), "times", most=2), ["1h30m"]),
    ],
)
def test_values_are_written_as_they_were_read(kind: Kind[Any], value: object) -> None:
    """`check --json` would show something that a file could not say."""
    assert kind.write(kind.take(value)) == value


def test_options_are_listed_in_words() -> None:
    """Messages would read badly."""
    assert words(["a"]) == '"a"'
    assert words(["a", "b", "c"]) == '"a", "b" or "c"'
