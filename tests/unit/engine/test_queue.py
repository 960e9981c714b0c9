"""Who has the next turn: flows with little to move before bulk, and bulk with its fair share of the time."""

from relaycore._probe import QueueProbe, share_of_bulk

KIB, MS = 1024, 1_000_000
TURN = 512 * KIB
LONG_AGO, BEGUN = 0, 1000 * MS


def test_bulk_waits_for_the_others() -> None:
    """A question would wait until each of many streams has moved half a megabyte."""
    queues = QueueProbe(8)
    up, question, down, answer = queues.take(bulk_up=True), queues.take(), queues.take(bulk_down=True), queues.take()
    for flow in (up, question, down, answer):
        queues.push(flow)
    assert queues.pop_all() == ([question, answer], [up, down])


def test_a_flow_is_queued_once() -> None:
    """Two events of one batch would give one flow two turns, and a link of the queue two owners."""
    queues = QueueProbe(4)
    for flow in (queues.take(), queues.take(bulk_up=True)):
        queues.push(flow)
        queues.push(flow)
    assert queues.holds()
    assert queues.pop_all() == ([0], [1])
    assert not queues.holds()


def test_either_queue_keeps_the_worker_awake() -> None:
    """A worker that sleeps with a stream in its queue stands still."""
    queues = QueueProbe(4)
    assert not queues.holds()
    queues.push(queues.take(bulk_down=True))
    assert queues.holds()


def test_bulk_among_itself_has_long_turns() -> None:
    """Bulk throughput, where nobody is in a hurry."""
    assert share_of_bulk(TURN, BEGUN, BEGUN, LONG_AGO) == (TURN, BEGUN + MS // 4)


def test_bulk_beside_others_has_short_turns_and_as_much_time() -> None:
    """Questions would wait long; or, where they alone fill the worker, streams would stand still."""
    turn, until = share_of_bulk(TURN, BEGUN, BEGUN + 3 * MS, BEGUN)
    assert turn == 128 * KIB
    assert until == BEGUN + 6 * MS


def test_others_are_expected_again_for_a_while() -> None:
    """Between two questions of one connection bulk would fall back to long turns."""
    assert share_of_bulk(TURN, BEGUN, BEGUN, BEGUN - MS + 1)[0] == 128 * KIB
    assert share_of_bulk(TURN, BEGUN, BEGUN, BEGUN - MS)[0] == TURN


def test_a_turn_is_never_longer_than_it_was_told() -> None:
    """The property tests move one byte a turn, to meet every state."""
    assert share_of_bulk(1, BEGUN, BEGUN, BEGUN)[0] == 1
