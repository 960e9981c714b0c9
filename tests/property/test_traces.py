"""Any script of sends, half-closes, resets and pauses gives the same trace directly and through the relay."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaycore.element import RELEASE, Answer, Element
from tests.property.traces import Saw, Step, run_script
from tests.support.bench import Bench

EXAMPLES = int(os.environ.get("RELAY_EXAMPLES", "500"))

# The sizes are those at which something changes: one byte, a COPY buffer, a pipe, a turn, more than both sockets hold.
TUNINGS = {
    "default": ({}, [1, 100, 16_384, 65_536, 131_072, 262_145, 1_000_000, 9_000_000]),
    "tiny": ({"turn_bytes": 1, "copy_bytes": 1, "pipe_bytes": 8192}, [1, 2, 3, 500]),
    "two-slot pipes": ({"copy_bytes": 512, "pipe_bytes": 8192}, [1, 511, 512, 1024, 8192, 8193, 300_000]),
    "no pipes, no buffers": ({"max_pipes": 0, "max_pending_bytes": 0}, [1, 65_536, 1_000_000, 9_000_000]),
}


class Pass(Element):
    def request(self, data: bytes) -> Answer:
        return data

    def response(self, data: bytes) -> Answer:
        return bytearray(data)  # another object: it cannot be sent from where it was read


class Once(Element):
    """Released after its first piece, wherever that came from."""

    def request(self, data: bytes) -> Answer:
        return RELEASE

    def response(self, data: bytes) -> Answer:
        return RELEASE


# Elements that leave the stream as it is, so that it must not show that they are there.
CHAINS: dict[str, list[type[Element]]] = {
    "": [],
    "two elements": [Pass, Pass],
    "released": [Once],
}


@pytest.fixture(scope="module", params=[(tuning, chain) for chain in CHAINS for tuning in TUNINGS], ids=str)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Bench, list[int]]]:
    name, chain = request.param
    tuning, sizes = TUNINGS[name]
    with Bench(tuning, elements=CHAINS[chain]) as bench:
        yield bench, sizes


ACTIONS = ["send"] * 6 + ["urgent"] * 2 + ["shut"] * 2 + ["sync"] * 3 + ["reset", "close", "pause", "resume"]
scripts = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(ACTIONS), st.integers(0, 7)), min_size=1, max_size=12)


def same(direct: Saw, relayed: Saw, disturbed: bool) -> bool:
    """Equal; after a reset or an early close either may have delivered any prefix, but must tell of the end alike."""
    if disturbed:
        return ends_alike(direct.ending, relayed.ending)
    return direct == relayed


def ends_alike(one: str, other: str) -> bool:
    """A FIN that a reset follows may be overtaken by it, directly as well."""
    return one == other or "either" in (one, other) or {one, other} == {"reset", "eof+reset"}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(script=scripts)
def test_a_script_gives_the_same_trace_directly_and_relayed(
    pair: tuple[Bench, list[int]], script: list[tuple[int, str, int]]
) -> None:
    """Users would see bytes lost, invented or changed, a FIN for a reset, a reset for a FIN, or a standstill."""
    bench, sizes = pair
    steps = [Step(end, action, sizes[size % len(sizes)]) for end, action, size in script]
    disturbed = any(step.action in ("reset", "close") for step in steps)
    direct = run_script(*bench.connect(relayed=False), steps)
    relayed = run_script(*bench.connect(relayed=True), steps)
    for way_direct, way_relayed in zip(direct, relayed, strict=True):
        assert same(way_direct, way_relayed, disturbed), f"direct {direct}\nrelayed {relayed}"
