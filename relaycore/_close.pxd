# The end of a flow: sockets closed as its reason asks, everything given back, counted and recorded, once.
#
# Owns: flow_close(), the only way out of the table.
# Who may touch it: every room that finds a reason to end a flow.
# Never here: waiting for bytes. What had to be delivered first has been (RESETTING), or the deadline was the reason.

from libc.stdint cimport uint64_t
from libc.stdlib cimport free

from relaycore._atomic cimport atomic_add, atomic_push, bump
from relaycore._check cimport RELAY_CHECK
from relaycore._core cimport Worker, ring_for_python
from relaycore._flow cimport CLOSED, DIALLING, RELAYING, Elements, Flow, flow_lane
from relaycore._kept cimport kept_drop
from relaycore._move cimport half_release
from relaycore._ring cimport Finished, ring_push, ring_reserve
from relaycore._stats cimport COUNT_RECORDS_LOST, FINISHED, NO_REASON, ListenerStats, Reason, count, observe
from relaycore._sys cimport sys_close, sys_eventfd_ring, sys_reset_on_close
from relaycore._table cimport table_bury, table_index
from relaycore._wheel cimport wheel_remove


cdef inline void flow_close(Worker* w, Flow* flow, Reason reason) noexcept nogil:
    """End the flow now, for this reason unless an earlier cause was noted.

    Both sides are reset unless it finished, or was ended politely: then each has its FIN, and close() only lets go.
    """
    cdef int side
    RELAY_CHECK(flow.phase == DIALLING or flow.phase == RELAYING)
    if flow.reason == NO_REASON:
        flow.reason = <unsigned char>reason
    flow.phase = CLOSED
    for side in range(2):
        half_release(&flow.half[side], &w.gear)
        if flow.side[side].fd >= 0:
            if flow.reason != FINISHED and not flow.polite:
                sys_reset_on_close(flow.side[side].fd)
            sys_close(flow.side[side].fd)
            flow.side[side].fd = -1
    wheel_remove(&w.wheel, table_index(&w.table, flow))
    atomic_add(&w.shared.live, <uint64_t>-1)
    flow_count(w, flow)
    if flow.elements != NULL:
        elements_over(w, flow)
    if w.settings.access:
        flow_record(w, flow)
    free(flow.words)
    flow.words = NULL
    # A flow that is queued is buried when the queue comes to it: queue and graves share a link.
    if not flow.queued:
        table_bury(&w.table, flow)


cdef inline void elements_over(Worker* w, Flow* flow) noexcept nogil:
    """Give the elements back to the worker that they began on: it tells them that the flow is over."""
    cdef Elements* elements = flow.elements
    cdef Worker* home = <Worker*>elements.home
    elements.reason = flow.reason
    if home == w:
        kept_drop(w.batch, flow, 0)
        kept_drop(w.batch, flow, 1)
        elements.next = w.batch.over
        w.batch.over = elements
    else:
        atomic_push(&home.batch.returned, elements, <void**>&elements.next)
        sys_eventfd_ring(home.mailbox.bell)
    flow.elements = NULL


cdef inline void flow_count(Worker* w, Flow* flow) noexcept nogil:
    cdef ListenerStats* stats = &w.stats.listeners[flow.listener]
    bump(&stats.reasons[flow.reason], 1)
    if flow.connected_ns != 0:
        observe(&stats.connect_us, (flow.connected_ns - flow.started_ns) // 1000)
    observe(&stats.duration_us, (w.gear.now_ns - flow.started_ns) // 1000)
    observe(&stats.flow_bytes, flow.half[0].bytes + flow.half[1].bytes)


cdef inline void flow_record(Worker* w, Flow* flow) noexcept nogil:
    cdef Finished* record = ring_reserve(&w.ring)
    if record == NULL:
        count(w.stats, COUNT_RECORDS_LOST)
        return
    record.id = flow.id
    record.started_ns = flow.started_ns
    record.ended_ns = w.gear.now_ns
    record.connected_ns = flow.connected_ns
    record.bytes[0] = flow.half[0].bytes
    record.bytes[1] = flow.half[1].bytes
    record.client = flow.client
    record.origin = flow.origin
    record.listener = flow.listener
    record.error = flow.error
    record.lane = flow_lane(flow)
    record.reason = flow.reason
    record.origin_known = flow.origin_known
    record.words = flow.words       # the ring's from now on
    flow.words = NULL
    ring_push(&w.ring)
    ring_for_python(w)
