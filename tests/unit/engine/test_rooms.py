"""Addresses, networks, the slab, the pipe pool, the record ring and the histograms, through the real code."""

import errno
import ipaddress
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore import REASONS, _probe

ports = st.integers(0, 65535)
hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None)).map(str)


@given(hosts, ports)
def test_an_address_survives_the_kernels_forms(host: str, port: int) -> None:
    """A flow would be dialled to another address than the client meant."""
    shown, same_port = _probe.address(host, port)
    assert ipaddress.ip_address(shown) == ipaddress.ip_address(host)
    assert same_port == port


def test_a_mapped_address_is_the_ipv4_address() -> None:
    """A loop would go unseen because the own address came spelt as ::ffff:a.b.c.d."""
    assert _probe.address("::ffff:10.1.2.3", 80) == ("10.1.2.3", 80)
    assert _probe.holds(["10.1.2.3/32"], "::ffff:10.1.2.3")


def test_a_link_local_address_keeps_its_interface() -> None:
    """Link-local origins could not be dialled."""
    assert _probe.address("fe80::1%3", 80) == ("fe80::1%3", 80)


networks = st.lists(
    st.one_of(st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))).map(
        lambda pair: ipaddress.ip_network(f"{pair[0]}/{pair[1]}", strict=False)
    ),
    max_size=12,
)


@given(networks, hosts)
def test_own_networks_hold_what_ipaddress_says(own: list[ipaddress.IPv4Network | ipaddress.IPv6Network], host: str) -> None:
    """A foreign address would pass as our own, or our own as foreign."""
    address = ipaddress.ip_address(host)
    # Here IPv4 addresses are the mapped part of IPv6: a network that meets ::ffff:0:0/96 holds them too.
    own = [n for n in own if not (n.version == 6 and n.overlaps(ipaddress.IPv6Network("::ffff:0:0/96")))]
    expected = any(address.version == network.version and address in network for network in own)
    assert _probe.holds([str(network) for network in own], host) == expected


@given(st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=200))
def test_many_single_addresses_are_all_found(own: list[str]) -> None:
    """On a node with many addresses some would pass as foreign."""
    assert all(_probe.holds([f"{host}/32" for host in own], host) for host in own)


def test_slots_come_back_with_another_generation() -> None:
    """An event of a flow that has ended would be taken for its successor's."""
    table = _probe.TableProbe(2)
    first, second = table.take(), table.take()
    assert table.take() is None
    table.bury(first)
    assert not table.lives(first)
    assert table.lives(second)
    assert table.take() is None, "a slot was free before the batch had ended"
    table.reap()
    third = table.take()
    assert table.lives(third)
    assert not table.lives(first)
    assert third != first
    assert table.used == 2


def test_the_pipe_pool_reuses_and_ends_at_its_limit() -> None:
    """Pipes would leak, or a sidecar would eat the pipe budget that it shares with the others of its user."""
    before = set(os.listdir("/proc/self/fd"))
    pool = _probe.PipesProbe(2, 65536)
    first, second = pool.take(0), pool.take(0)
    assert pool.take(0) is None
    assert pool.counts() == (1, 0)
    ends = pool.ends(first)
    pool.give(first)
    assert pool.take(0) == first
    assert pool.ends(first) == ends
    pool.drop(second)
    assert pool.take(0) is not None
    del pool
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_pipe_that_the_kernel_denies_is_asked_for_again_later() -> None:
    """Without pipe budget each turn would try again, or splice would never come back."""
    second = 10**9
    pool = _probe.PipesProbe(2, 1 << 30)  # more than pipe-max-size and than any user may have
    assert pool.take(5 * second) is None
    assert pool.counts() == (0, 1)
    assert pool.take(5 * second + 1) is None
    assert pool.counts() == (0, 1)
    assert pool.take(6 * second) is None
    assert pool.counts() == (0, 2)


def test_the_ring_keeps_order_and_refuses_when_full() -> None:
    """Access records would be mixed up, or the data path would wait for the log."""
    ring = _probe.RingProbe()
    for turn in range(3):
        pushed = [n for n in range(_probe.RING + 5) if ring.push(turn * 100_000 + n)]
        assert pushed == list(range(_probe.RING))
        taken = [ring.take() for _ in range(_probe.RING)]
        assert taken == [turn * 100_000 + n for n in pushed]
        assert ring.take() is None


@given(st.integers(0, 2**64 - 1))
def test_a_value_falls_into_the_first_bucket_that_holds_it(value: int) -> None:
    """Histograms would tell wrong latencies."""
    bucket = _probe.bucket(value)
    assert bucket == min((k for k in range(24) if value <= 4**k), default=23)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errno.ECONNREFUSED, "refused"),
        (errno.ETIMEDOUT, "connect_timeout"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.EACCES, "unreachable"),
        (errno.EMFILE, "limit"),
        (errno.EADDRNOTAVAIL, "limit"),
        (errno.ENOMEM, "limit"),
        (errno.EINVAL, "error"),
    ],
)
def test_a_failed_dial_is_called_what_users_call_it(error: int, reason: str) -> None:
    """The access log would blame the wrong thing."""
    assert REASONS[_probe.reason_of_dial(error)] == reason
