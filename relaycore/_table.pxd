# The slab of flows: where they live, and when a slot may be used again.
#
# Owns: every Flow. A slot is taken by table_take(), buried when its flow closes, and free after table_reap() at the end of the
# batch; then its generation differs, and an event that is still on its way finds nothing.
# Who may touch it: the worker that owns it.
# Never here: growth. The slab is address space for its capacity; a flow costs memory from its first use on.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from relaycore._check cimport RELAY_CHECK
from relaycore._flow cimport CLOSED, FREE, Flow
from relaycore._pipe cimport NO_BUFFER, NO_PIPE
from relaycore._stats cimport NO_REASON
from relaycore._sys cimport sys_map, sys_unmap

cdef enum:
    NO_FLOW = 0xffffffff


cdef struct Table:
    Flow* flows
    uint32_t capacity
    uint32_t touched        # slots below it were used at least once
    uint32_t free           # list by queue_next
    uint32_t graves         # list by queue_next
    uint32_t used           # slots that are not free: live flows, and those that wait for the end of the batch


cdef inline bint table_make(Table* table, uint32_t capacity) noexcept nogil:
    table.flows = <Flow*>sys_map(<size_t>capacity * sizeof(Flow))
    table.capacity = capacity
    table.touched = 0
    table.free = NO_FLOW
    table.graves = NO_FLOW
    table.used = 0
    return table.flows != NULL


cdef inline void table_free(Table* table) noexcept nogil:
    sys_unmap(table.flows, <size_t>table.capacity * sizeof(Flow))
    table.flows = NULL


cdef inline uint32_t table_index(const Table* table, const Flow* flow) noexcept nogil:
    return <uint32_t>(flow - table.flows)


cdef inline Flow* table_take(Table* table) noexcept nogil:
    """A fresh flow: no descriptors, halves OPEN in COPY, phase FREE until its caller says otherwise. NULL when full."""
    cdef uint32_t i = table.free
    cdef uint32_t generation
    cdef Flow* flow
    if i != NO_FLOW:
        table.free = table.flows[i].queue_next
    elif table.touched < table.capacity:
        i = table.touched
        table.touched += 1
    else:
        return NULL
    flow = &table.flows[i]
    RELAY_CHECK(flow.phase == FREE)
    generation = flow.generation
    memset(flow, 0, sizeof(Flow))
    flow.generation = generation
    flow.queue_next = NO_FLOW
    flow.reason = NO_REASON
    for i in range(2):
        flow.side[i].fd = -1
        flow.half[i].pipe = NO_PIPE
        flow.half[i].buffer = NO_BUFFER
    table.used += 1
    return flow


cdef inline void table_bury(Table* table, Flow* flow) noexcept nogil:
    """The flow is closed. It must not be queued: the queue and the graves share a link."""
    RELAY_CHECK(flow.phase == CLOSED and not flow.queued)
    flow.queue_next = table.graves
    table.graves = table_index(table, flow)


cdef inline void table_reap(Table* table) noexcept nogil:
    """At the end of a batch: no event of it is left that could mean one of these."""
    cdef uint32_t i = table.graves
    cdef uint32_t next
    while i != NO_FLOW:
        next = table.flows[i].queue_next
        table.flows[i].generation += 1
        table.flows[i].phase = FREE
        table.flows[i].queue_next = table.free
        table.free = i
        table.used -= 1
        i = next
    table.graves = NO_FLOW


cdef inline uint64_t flow_token(uint32_t index, uint32_t generation, int side) noexcept nogil:
    """What epoll gives back for a side of a flow: 30 bits of generation, 32 of index, 1 of side. Bit 63 is for others."""
    return <uint64_t>(generation & 0x3fffffff) << 33 | <uint64_t>index << 1 | <uint64_t>side


cdef inline Flow* table_find(Table* table, uint64_t token) noexcept nogil:
    """The flow that the token was made for, NULL when it is gone."""
    cdef uint32_t i = <uint32_t>(token >> 1)
    cdef Flow* flow
    if i >= table.touched:
        return NULL
    flow = &table.flows[i]
    if flow.phase == FREE or flow.phase == CLOSED or (flow.generation & 0x3fffffff) != token >> 33:
        return NULL
    return flow
