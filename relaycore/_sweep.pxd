# The readiness sweep of debug builds: what the kernel says of every socket against what Side.ready remembers.
#
# An edge that the engine missed is a flow that stands still for ever and looks healthy. A socket that is ready while its flag
# is not set may only mean that the event is still queued: then the epoll descriptor itself is readable, and if not, the edge was
# lost and the worker aborts.
#
# Owns: that question.
# Who may touch it: the worker's loop, in debug builds.
# Never here: a change to a flow.

from libc.stdint cimport uint32_t

from relaycore._check cimport RELAY_CHECK
from relaycore._core cimport BATCH_EVENTS, Worker, queue_holds
from relaycore._flow cimport OPEN, READABLE, RELAYING, UNWATCHED, WRITABLE, Flow, half_blocked
from relaycore._libc cimport POLLIN, POLLOUT
from relaycore._sys cimport sys_poll_one


cdef enum:
    # A sweep polls both sockets of so many flows, so that a debug build stays usable with thousands.
    SWEEP_FLOWS = 64
    SWEEP_PATIENCE_MS = 200


cdef inline bint side_missed(const Flow* flow, int side) noexcept nogil:
    """Whether the kernel says ready where the flag says no, and the half would go on if it knew."""
    cdef int holds
    if flow.side[side].error != 0:
        return False
    holds = sys_poll_one(flow.side[side].fd, POLLIN | POLLOUT, 0)
    if holds < 0:
        return False
    if holds & POLLIN and not flow.side[side].ready & (READABLE | UNWATCHED) and flow.half[side].state == OPEN:
        return True
    return holds & POLLOUT and not flow.side[side].ready & WRITABLE and (flow.half[1 - side].pending != 0 or half_blocked(flow, 1 - side))


cdef inline void sweep(Worker* w, int events) noexcept nogil:
    """Called at the end of a turn. With events waiting in epoll nothing can be said: the next quiet turn will."""
    cdef uint32_t i, seen = 0
    cdef Flow* flow
    cdef int side
    if events == BATCH_EVENTS or queue_holds(w):
        return
    for i in range(w.table.touched):
        flow = &w.table.flows[i]
        if flow.phase != RELAYING:
            continue
        seen += 1
        if seen > SWEEP_FLOWS:
            return
        for side in range(2):
            # Readiness that came since the last batch makes epoll ready too, a moment later than the socket.
            if side_missed(flow, side):
                RELAY_CHECK(sys_poll_one(w.epoll, POLLIN, SWEEP_PATIENCE_MS) != 0)
