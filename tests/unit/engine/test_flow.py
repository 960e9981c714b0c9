"""The state tables of _flow, enumerated whole: every state x event x pending x error, every verdict."""

from itertools import product

import pytest

from relaycore import REASONS, _probe

FREE_TO_GO = _probe.RELAY

# (state, event, pending, sink error) -> (state, actions); the rows that are missing cannot be.
TABLE = {
    # An EOF is passed on at once, or once everything before it has been given; never to a sink that is gone.
    ("OPEN", "SOURCE_EOF", False, False): ("SHUT", {"shut sink"}),
    ("OPEN", "SOURCE_EOF", False, True): ("SHUT", set()),
    ("OPEN", "SOURCE_EOF", True, False): ("DRAINING", set()),
    ("OPEN", "SOURCE_EOF", True, True): ("DRAINING", set()),
    ("DRAINING", "EMPTIED", False, False): ("SHUT", {"shut sink"}),
    ("DRAINING", "EMPTIED", True, False): ("SHUT", {"shut sink"}),
    ("DRAINING", "EMPTIED", False, True): ("SHUT", set()),
    ("DRAINING", "EMPTIED", True, True): ("SHUT", set()),
    # What was received before a reset is given and acknowledged, then the reset is passed on: RST at the close of the flow.
    ("RESETTING", "ACKNOWLEDGED", False, False): ("SHUT", set()),
    ("RESETTING", "ACKNOWLEDGED", False, True): ("SHUT", set()),
    ("RESETTING", "ACKNOWLEDGED", True, False): ("RESETTING", set()),
    ("RESETTING", "ACKNOWLEDGED", True, True): ("RESETTING", set()),
    # Elements are asked while nothing else of the half is on its way; until they answer it does not read on.
    ("OPEN", "TAKEN", False, False): ("WAITING", set()),
    ("OPEN", "TAKEN", False, True): ("WAITING", set()),
}
for state, pending, error in product(_probe.STATES, (False, True), (False, True)):
    # A sink that is gone ends the half, whatever it was about to do.
    TABLE[state, "SINK_BROKEN", pending, error] = ("SHUT", set() if state == "SHUT" else {"discard"})
    # A source that is gone resets the sink, also after its FIN; with both gone nobody is left to be told.
    TABLE[state, "SOURCE_RESET", pending, error] = (
        ("SHUT", set() if state == "SHUT" else {"discard"}) if error else ("RESETTING", set())
    )
    if state in ("OPEN", "RESETTING", "WAITING"):
        TABLE[state, "EMPTIED", pending, error] = (state, set())
    if state == "WAITING":
        TABLE[state, "ANSWERED", pending, error] = ("OPEN", set())
    if state == "RESETTING":
        TABLE[state, "DEADLINE", pending, error] = ("SHUT", {"discard"})


@pytest.mark.parametrize(
    ("state", "event", "pending", "error"), list(product(_probe.STATES, _probe.EVENTS, (False, True), (False, True)))
)
def test_every_event_in_every_state(state: str, event: str, pending: bool, error: bool) -> None:
    """A FIN would overtake data, a reset would become a FIN, or a half would wait for ever."""
    expected = TABLE.get((state, event, pending, error))
    assert _probe.next_of(state, event, pending, error) == (expected and (expected[0], frozenset(expected[1])))


def verdict_by_hand(direction: str, capture: str, known: bool, own: bool, local: bool, name: bool, client: bool) -> str:
    """DESIGN's and FAULTS' rules in other words than the engine's."""
    if not known:
        return "not_captured"
    if own and local:
        return "loop"
    if own and name and capture == "redirect":
        return "loop"
    if direction == "inbound":
        return "relay" if local else "foreign_origin"
    if direction == "outbound":
        return "relay" if client else "foreign_client"
    return "relay"


def test_every_verdict() -> None:
    """The relay would be open to strangers, or would call itself for ever."""
    directions, captures = ("outbound", "inbound", "gateway"), ("redirect", "tproxy", "none")
    for direction, capture, *facts in product(directions, captures, *[(False, True)] * 5):
        code = _probe.verdict(directions.index(direction), captures.index(capture), *facts)
        word = "relay" if code == FREE_TO_GO else REASONS[code]
        assert word == verdict_by_hand(direction, capture, *facts), (direction, capture, facts)


READABLE, WRITABLE = 1, 2


@pytest.mark.parametrize("state", range(4))
@pytest.mark.parametrize("pending", [0, 1])
@pytest.mark.parametrize("source", [0, READABLE])
@pytest.mark.parametrize("sink", [0, WRITABLE])
def test_when_a_half_can_go_on(state: int, pending: int, source: int, sink: int) -> None:
    """A half would read what it cannot place, or stand still although it could go on."""
    gives = bool(pending and sink)
    takes = bool(_probe.STATES[state] == "OPEN" and not pending and source and sink)
    assert _probe.can_step(state, pending, source, sink) == (gives or takes)
