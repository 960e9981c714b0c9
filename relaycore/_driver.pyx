"""A chain for programs without a network: what relaycore.testing drives.

Owns: Driver. Who may touch it: relaycore.testing. Never here: an answer's meaning, which is the chain's.
"""

from relaycore._chain cimport Chain
from relaycore._chains cimport chain_of
from relaycore._use cimport Books, Flow


cdef class Driver:
    """A chain for programs without a network: relaycore.testing."""

    cdef Chain chain
    cdef Books books

    def __init__(self, uses, Flow flow not None):
        self.books = Books()
        self.chain = chain_of(self.books, list(uses), flow)

    def opened(self):
        return self.chain.opened()

    def passed_on(self, int half, bytes data not None, bint ended):
        return self.chain.passed_on(half, data, ended)

    def closed(self, str reason not None):
        self.chain.closed(reason)

    def hears(self, int half):
        return self.chain.hears(half)

    def unsettled(self, int half):
        return self.chain.unsettled[half]

    def sent(self, int half):
        """What elements have sent on their own since the last look."""
        cdef Flow flow = self.chain.flow
        cdef bytes data
        if half:
            data, flow.for_client = flow.for_client, None
        else:
            data, flow.for_origin = flow.for_origin, None
        return data or b""

    def tally(self, number):
        return self.books.tally(number)

    @property
    def outcome(self):
        return ("on", "rejected", "closed", "failed")[<int>self.chain.outcome]

    @property
    def by(self):
        return self.chain.by

    @property
    def delay(self):
        return self.chain.delay

    @property
    def origin(self):
        return self.chain.origin

    @property
    def words(self):
        return self.chain.words()
