"""sidecar.rules.selection: the meaning of the selecting keys, where packets are not needed to see it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.network_kinds import PortRange
from sidecar.rules.model import BOTH, V4, V6, Match
from sidecar.rules.selection import each_family, family_of_match, merged, own_ports, skipped_ports
from tests.unit.sidecar.conftest import Load

RANGES = st.lists(
    st.tuples(st.integers(1, 400), st.integers(0, 30)).map(lambda pair: PortRange(pair[0], sum(pair))), max_size=30
)


def ports(ranges: tuple[PortRange, ...] | list[PortRange]) -> set[int]:
    return {port for one in ranges for port in range(one.low, one.high + 1)}


@given(ranges=RANGES)
def test_merged_ranges_are_the_same_ports_in_as_few_ranges_as_can_be(ranges: list[PortRange]) -> None:
    """A set of the kernel refuses what it has already, and one port more or less would be captured."""
    united = merged(ranges)
    assert ports(united) == ports(ranges)
    assert all(one.high + 1 < other.low for one, other in pairwise(united))


def spelt(ranges: tuple[PortRange, ...]) -> str:
    return " ".join(map(str, ranges))


def test_own_ports_are_those_of_the_listeners_of_metrics_of_health_and_ssh(load: Load) -> None:
    """The relay's own ports would be captured, or a port that is not its own would not."""
    assert spelt(own_ports(load(""))) == "22 15002 15006 15020-15021"
    assert spelt(own_ports(load('[admin]\nmetrics = ""\nhealth = ""\n'))) == "22 15002 15006"
    assert spelt(own_ports(load('[admin]\nmetrics = "127.0.0.1:0"\nhealth = "[::]:23"\n'))) == "22-23 15002 15006"


def test_ssh_is_an_own_port_unless_it_is_listed(load: Load) -> None:
    """Whoever repairs a relay could not get in; or a list that names 22 would be without effect."""
    off = '[admin]\nmetrics = ""\nhealth = ""\n[rules]\n'
    for text, expected in {
        "": "22 15002 15006",
        "inbound_ports = [22, 80]": "15002 15006",
        'inbound_ports = ["20-30"]': "15002 15006",
        'inbound_ports = ["20-30"]\ninbound_exclude_ports = [22]': "22 15002 15006",
        "inbound_ports = [80]": "22 15002 15006",
        "inbound_ports = []": "22 15002 15006",
        "inbound_exclude_ports = []": "22 15002 15006",
        'inbound_exclude_ports = ["20-21", 15003]': "20-22 15002-15003 15006",
    }.items():
        assert spelt(skipped_ports(load(off + text))) == expected, text


def test_networks_make_an_entry_for_each_family_that_has_some_in_every_list(load: Load) -> None:
    """A condition on IPv4 networks would stand in a rule for IPv6, or a family without any would lose its condition."""
    config, narrow = load(""), load("[rules]\nipv6 = false\n")
    v4, v6 = ("10.0.0.0/8", "192.0.2.1/32"), ("fd00::/8",)
    of_v4, of_v6 = Match("dst_nets", v4), Match("dst_nets", v6)
    assert each_family(config, BOTH, ("dst_nets", None)) == [(BOTH, ())]
    assert each_family(config, V6, ("dst_nets", None)) == [(V6, ())]
    assert each_family(config, BOTH, ("dst_nets", ())) == []
    assert each_family(config, BOTH, ("dst_nets", (*v4, *v6))) == [(V4, (of_v4,)), (V6, (of_v6,))]
    assert each_family(config, V6, ("dst_nets", (*v4, *v6))) == [(V6, (of_v6,))]
    assert each_family(narrow, BOTH, ("dst_nets", (*v4, *v6))) == [(V4, (of_v4,))]
    assert each_family(config, BOTH, ("dst_nets", v4), ("src_nets", v6)) == []
    assert each_family(config, BOTH, ("src_nets", v4), ("dst_nets", (*v4, *v6))) == [(V4, (Match("src_nets", v4), of_v4))]
    assert each_family(config, BOTH, ("src_nets", None), ("dst_nets", v6)) == [(V6, (of_v6,))]


def test_networks_inside_others_are_left_out(load: Load) -> None:
    """A set of the kernel would refuse the inner one, and with it all rules."""
    networks = ("10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "11.0.0.0/8", "fd00::1/128", "fd00::/8")
    assert each_family(load(""), BOTH, ("dst_nets", networks)) == [
        (V4, (Match("dst_nets", ("10.0.0.0/7",)),)),
        (V6, (Match("dst_nets", ("fd00::/8",)),)),
    ]


def test_the_family_of_a_condition() -> None:
    """A rule for both families would be given a condition of one."""
    assert [family_of_match(Match("src_nets", (net,))) for net in ("0.0.0.0/0", "::/0")] == [V4, V6]
    assert family_of_match(Match("dst_ports", (PortRange(1, 2),))) == BOTH
