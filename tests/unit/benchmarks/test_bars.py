"""benchmarks.bars: what is asked for is measured, of peers that there are."""

from benchmarks.bars import BARS, is_ours
from benchmarks.peers import PEERS
from benchmarks.workloads import WORKLOADS, takes_part


def test_every_bar_has_its_workloads_and_its_peers() -> None:
    """A row of the page would say "not measured" for ever."""
    asked = [(workload, peer) for bar in BARS for workload in bar.workloads for peer in (bar.ours, *bar.peers)]
    assert [each for each in asked if each[0] not in WORKLOADS or each[1] not in PEERS] == []
    assert [(workload, peer) for workload, peer in asked if not takes_part(WORKLOADS[workload], peer)] == []


def test_what_is_ours_is_known_by_its_name() -> None:
    """A peer would be called beaten by itself, or one of ours a rival."""
    ours = [
        f"relay-sidecar{more}" for more in ("", "-log", "-notrack", "-element", "-released", "-compiled", "-copy", "-2")
    ] + ["engine"]
    assert [peer for peer in PEERS if is_ours(peer)] == ours
