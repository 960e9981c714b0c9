# The elements of one flow, in their order: what the engine asks, and what comes of it. All of it holds the GIL.
#
# Owns: the answers' meaning, what HOLD keeps, the time that calls take.
# Who may touch it: _ask asks for a flow; relaycore.testing for a program without a network. _chains makes them.
# Never here: a socket, a descriptor, engine memory that an element could keep.

from relaycore._calls cimport Asked, Outcome
from relaycore._capsule cimport Block
from relaycore._compiled cimport Compiled, Run
from relaycore._use cimport Books, Flow, Use

cdef class Link:                # one element of one flow
    cdef Use use
    cdef object element
    cdef Compiled* compiled     # the chain's; NULL: it is Python's
    cdef bint off               # released, or failed and passed


cdef class Ear:                 # one element's side of one direction
    cdef Link link
    cdef object heard
    cdef object ended
    cdef bytes held             # None: nothing


cdef class Chain:
    cdef readonly Flow flow
    cdef Books books
    cdef list links
    cdef list requests          # ears, in the order in which they are asked
    cdef list responses
    cdef public Outcome outcome
    cdef readonly str by        # the element that rejected, closed or failed the flow
    cdef readonly double delay  # seconds until the bytes of this answer may go on
    cdef readonly object origin  # another one than the client meant, chosen at the opening
    cdef bint unsettled[2]      # an element that is off has left bytes that it held
    cdef Block block            # owned: the compiled ones among them

    cdef bytes opened(self)
    cdef bytes open_as(self, Link link, answer)
    cdef bytes passed_on(self, int h, bytes data, bint ended)
    cdef void closed(self, str reason)
    cdef bint hears(self, int h)
    cdef bint hears_closed(self)
    cdef object ask(self, Link link, Asked what, object method, object argument)
    cdef bytes take(self, Link link, Ear ear, Asked what, bytes given, object answer)
    cdef bytes failed(self, Link link, Asked what, bytes given, object error)
    cdef void refused(self, Link link, Outcome outcome)
    cdef void leave(self, Link link)
    cdef void off(self, Link link)
    cdef bytes words(self)
    cdef object open_compiled(self, Link link)
    cdef bytes pass_compiled(self, Link link, int h, bytes data, bint ended)
    cdef int hear_of(self, Link link) except -1
    cdef int hear_of_all(self) except -1
    cdef Run* run(self, int h)
