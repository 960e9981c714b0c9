"""The timer wheel against a dictionary of deadlines."""

from hypothesis import given
from hypothesis import strategies as st

from relaycore import _probe

TICK = _probe.TICK_NS
ENTRIES = 6
START = 10**15

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, ENTRIES - 1), st.integers(0, 40 * _probe.HORIZON_NS // 10)),
        st.tuples(st.just("remove"), st.integers(0, ENTRIES - 1), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.one_of(st.integers(0, 5 * TICK), st.integers(0, 3 * _probe.HORIZON_NS))),
    ),
    max_size=60,
)


@given(steps)
def test_an_entry_comes_up_in_time_and_never_twice(script: list[tuple[str, int, int]]) -> None:
    """A time-out would be early, late, or lost: a flow that never ends, or one that is cut while it lives."""
    wheel = _probe.WheelProbe(ENTRIES, START)
    now = START
    deadlines: dict[int, int] = {}
    for action, i, by in script:
        if action == "put":
            deadlines[i] = min(now + by, deadlines.get(i, now + by))
            wheel.put(i, now + by)
        elif action == "remove":
            deadlines.pop(i, None)
            wheel.remove(i)
        else:
            now += by
        while (i := wheel.pop(now)) is not None:
            deadline = deadlines.pop(i)
            if deadline > now:
                # Only what lies beyond the horizon may come up early: its owner puts it back.
                assert deadline - now > _probe.TICK_NS
                deadlines[i] = deadline
                wheel.put(i, deadline)
        assert all(deadline > now - 2 * TICK for deadline in deadlines.values())
        upcoming = wheel.next_ns()
        assert (upcoming == 0) == (not deadlines)
        if deadlines:
            assert upcoming > now - TICK
            assert upcoming <= min(deadlines.values()) + 2 * TICK


def test_far_deadlines_come_up_together() -> None:
    """Thousands of idle flows would wake the worker thousands of times a second."""
    count = 1000
    wheel = _probe.WheelProbe(count, START)
    for i in range(count):
        wheel.put(i, START + 3600 * 10**9 + i * TICK)
    wakes = set()
    while (upcoming := wheel.next_ns()) and len(wakes) < count:
        wakes.add(upcoming)
        while wheel.pop(upcoming) is not None:
            pass
    assert len(wakes) == 1
