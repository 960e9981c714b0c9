# A flow that elements have released goes to a worker for plain flows, between two turns, with nothing in flight.
#
# Its sockets are taken out of one epoll and put into another, which tells at once what they are ready for: no edge is lost.
#
# Owns: parcels on their way.
# Who may touch it: _answer and the worker's loop.
# Never here: a flow with pending bytes.

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

from relaycore._atomic cimport atomic_load, atomic_push, atomic_swap
from relaycore._check cimport RELAY_CHECK
from relaycore._close cimport flow_close
from relaycore._core cimport Parcel, Worker
from relaycore._dial cimport count_limit, limit_of, side_register
from relaycore._flow cimport CLOSED, RELAYING, RESETTING, WAITING, Flow
from relaycore._libc cimport EPOLL_CTL_DEL
from relaycore._mailbox cimport STOP
from relaycore._stats cimport COUNTER_COUNT, DRAINED, ERROR, LIMIT, Reason
from relaycore._step cimport flow_schedule
from relaycore._sys cimport sys_close, sys_epoll_set, sys_eventfd_ring
from relaycore._table cimport NO_FLOW, table_bury, table_index, table_take
from relaycore._wheel cimport wheel_remove


cdef inline bint half_rests(const Flow* flow, int h) noexcept nogil:
    return (
        not flow.elements.hears[h]
        and flow.elements.kept_size[h] == 0
        and flow.half[h].pending == 0
        and flow.half[h].state != WAITING
        and flow.half[h].state != RESETTING
    )


cdef inline bint flow_is_released(const Flow* flow) noexcept nogil:
    """Whether no element wants its bytes any more, and none of them are here."""
    return flow.elements != NULL and flow.phase == RELAYING and not flow.polite and half_rests(flow, 0) and half_rests(flow, 1)


cdef inline Worker* plain_worker(Worker* w) noexcept nogil:
    """The one with the fewest flows; a look at another thread's figure that may be old."""
    cdef Worker* all = <Worker*>w.shared.workers
    cdef uint32_t i, best = 0
    for i in range(1, w.shared.plain_workers):
        if all[i].table.used < all[best].table.used:
            best = i
    return &all[best]


cdef inline void flow_leave(Worker* w, Flow* flow) noexcept nogil:
    """Send it to a plain worker. Without memory for the parcel it stays, and is asked again at its next turn."""
    cdef Worker* there = plain_worker(w)
    cdef Parcel* parcel = <Parcel*>malloc(sizeof(Parcel))
    cdef int side
    if parcel == NULL:
        return
    for side in range(2):
        sys_epoll_set(w.epoll, EPOLL_CTL_DEL, flow.side[side].fd, 0, 0)
    wheel_remove(&w.wheel, table_index(&w.table, flow))
    parcel.flow = flow[0]
    if flow.elements.chain != NULL:
        w.batch.away += 1
    else:
        free(flow.elements)
        parcel.flow.elements = NULL
    for side in range(2):
        flow.side[side].fd = -1
    flow.elements = NULL
    flow.words = NULL
    flow.phase = CLOSED
    if not flow.queued:
        table_bury(&w.table, flow)
    if atomic_push(&there.arrivals, parcel, <void**>&parcel.next):      # else whoever pushed before has rung
        sys_eventfd_ring(there.mailbox.bell)


cdef inline void flow_arrive(Worker* w, Parcel* parcel) noexcept nogil:
    cdef Flow* flow = table_take(&w.table)
    cdef uint32_t generation
    cdef int side, answer = 0
    RELAY_CHECK(flow != NULL)   # every table has room for all flows that may live
    generation = flow.generation
    flow[0] = parcel.flow
    flow.generation = generation
    flow.queue_next = NO_FLOW
    flow.queued = False
    for side in range(2):
        flow.side[side].ready = 0
        if answer == 0:
            answer = side_register(w, flow, side)
    if answer < 0:
        flow.error = <short>-answer
        count_limit(w, -answer)
        flow_close(w, flow, <Reason>(LIMIT if limit_of(-answer) != COUNTER_COUNT else ERROR))
    elif atomic_load(&w.mailbox.order) == STOP:
        flow_close(w, flow, DRAINED)
    else:
        flow_schedule(w, flow)


cdef inline void take_arrivals(Worker* w) noexcept nogil:
    cdef Parcel* parcel = <Parcel*>atomic_swap(&w.arrivals, NULL)
    cdef Parcel* next
    while parcel != NULL:
        next = parcel.next
        flow_arrive(w, parcel)
        free(parcel)
        parcel = next


cdef inline void drop_arrivals(Worker* w) noexcept nogil:
    """Those that nobody will take: the worker's thread has ended."""
    cdef Parcel* parcel = <Parcel*>atomic_swap(&w.arrivals, NULL)
    cdef Parcel* next
    cdef int side
    while parcel != NULL:
        next = parcel.next
        for side in range(2):
            sys_close(parcel.flow.side[side].fd)
        free(parcel.flow.words)
        free(parcel)
        parcel = next
