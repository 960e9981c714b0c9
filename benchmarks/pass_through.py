"""The elements of the benchmarks: they do nothing, so that what is measured is the asking.

Owns: what peers with elements run, ours and the asyncio relay. Never here: an element that looks at its bytes.
"""

from relaycore.element import RELEASE, Answer, Element


class PassThrough(Element):
    """Is asked about every piece, and passes it on as it is."""

    def request(self, data: bytes) -> Answer:
        return data

    def response(self, data: bytes) -> Answer:
        return data


class Released(Element):
    """Sees the first piece of a flow, whichever side it comes from, and wants no more."""

    def request(self, data: bytes) -> Answer:
        return RELEASE

    def response(self, data: bytes) -> Answer:
        return RELEASE
