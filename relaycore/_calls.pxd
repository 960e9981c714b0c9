# What is noted of the calls of elements: the one that a worker's thread is in, and what all of them came to.
#
# Owns: Tally and Call; the words for what was asked, and for what came of it.
# Who may touch it: _chain for calls of Python, _compiled for the others; _warden looks on.
# Never here: a call.

from libc.stdint cimport uint32_t, uint64_t

from relaycore._atomic cimport atomic_release, atomic_store, bump
from relaycore._sys cimport sys_now_ns


cdef enum:
    # A call that takes so long, and longer than its budget, is told while it lasts, and interrupted where that can be.
    STUCK_NS = 1000000000


cdef enum Outcome:
    GOES_ON
    IS_REJECTED                 # reset both sides, after what was passed on
    IS_CLOSED                   # end both sides politely, after what was passed on
    HAS_FAILED                  # an element has, and its on_error is "close"


cdef enum Asked:
    ASKED_OPENED
    ASKED_REQUEST
    ASKED_RESPONSE
    ASKED_REQUEST_ENDED
    ASKED_RESPONSE_ENDED
    ASKED_CLOSED


cdef struct Tally:              # of one element on one worker
    uint64_t calls
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t time_ns
    uint64_t errors
    uint64_t overruns           # calls that took longer than the budget
    uint64_t releases
    uint64_t refusals           # REJECT and CLOSE
    uint64_t stuck              # calls that were still running after a second
    uint64_t gil_held           # of those, the ones that let no other Python thread run


cdef struct Call:               # what the worker's thread is in; written by it, read by whoever watches
    uint64_t since_ns           # 0: nothing
    uint64_t number             # of the call: two looks at the same one are told by it
    uint64_t flow
    uint32_t element
    uint32_t asked
    uint64_t thread             # as Python numbers threads
    uint64_t patience_ns        # how long it may run before it is stuck
    uint64_t told               # the number of the last one that was told to be stuck; written by whoever watches, with the GIL
    bint compiled               # Python cannot interrupt it


cdef inline uint64_t patience(uint64_t budget_ns) noexcept nogil:
    return budget_ns if budget_ns > STUCK_NS else STUCK_NS


cdef inline void call_begins(Call* call, uint32_t element, Asked asked, uint64_t flow, uint64_t now_ns, uint64_t budget_ns) noexcept nogil:
    """Of a compiled element."""
    call.element = element
    call.asked = asked
    call.flow = flow
    call.compiled = True
    call.patience_ns = patience(budget_ns)
    atomic_store(&call.number, call.number + 1)
    atomic_release(&call.since_ns, now_ns)


cdef inline uint64_t call_ended(Call* call, Tally* tally, uint64_t budget_ns) noexcept nogil:
    """The time it is."""
    cdef uint64_t now_ns = sys_now_ns()
    cdef uint64_t took = now_ns - call.since_ns
    atomic_release(&call.since_ns, 0)
    bump(&tally.calls, 1)
    bump(&tally.time_ns, took)
    if took > budget_ns:
        bump(&tally.overruns, 1)
    return now_ns
