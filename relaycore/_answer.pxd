# What elements answered, done to their flows: bytes given or kept, flows dialled, refused, ended or sent away.
#
# Owns: the meaning of an answer for a flow.
# Who may touch it: the worker's loop, once per turn.
# Never here: Python (_ask has it); a rule of how halves change that is not in _flow's table.

from libc.errno cimport EAGAIN
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free

from relaycore._accept cimport is_own_port
from relaycore._addr cimport addr_is_unspecified, networks_hold
from relaycore._ask cimport ask_all
from relaycore._atomic cimport bump
from relaycore._calls cimport GOES_ON, HAS_FAILED, IS_CLOSED
from relaycore._close cimport flow_close
from relaycore._core cimport Slot, Worker, queue_push
from relaycore._dial cimport dial
from relaycore._flow cimport (
    COPY, DIALLING, ELEMENT, FAILED, RELAYING, SOURCE_EOF, SOURCE_RESET, WAITING, WRITABLE, Flow, Half, HalfEvent, half_can_step,
    half_reads,
)
from relaycore._kept cimport kept_next, kept_put
from relaycore._move cimport sink_failed
from relaycore._stats cimport ELEMENT_FAILED, IN_LOOP, NO_REASON, REJECTED, Reason
from relaycore._step cimport flow_schedule, half_answered, half_heard, half_tell
from relaycore._sys cimport sys_send
from relaycore._transfer cimport flow_is_released, flow_leave


cdef inline Reason refused_by(uint8_t outcome) noexcept nogil:
    return ELEMENT_FAILED if outcome == HAS_FAILED else REJECTED


cdef inline bint leads_back(const Worker* w, const Flow* flow) noexcept nogil:
    """Whether the origin that an element chose is a listener of ours."""
    return is_own_port(w, flow.origin.port) and (
        networks_hold(&w.settings.own, &flow.origin) or addr_is_unspecified(&flow.origin)
    )


cdef inline void opening_answered(Worker* w, Flow* flow, const Slot* slot) noexcept nogil:
    cdef int h
    if slot.outcome != GOES_ON:
        flow_close(w, flow, refused_by(slot.outcome))
        return
    if slot.chose_origin and leads_back(w, flow):
        flow_close(w, flow, IN_LOOP)
        return
    for h in range(2):
        flow.half[h].lane = ELEMENT if flow.elements.hears[h] else COPY
        kept_next(flow, h)
    dial(w, flow)


cdef inline void give(Worker* w, Flow* flow, int h, const uint8_t* data, uint32_t size) noexcept nogil:
    """To the sink at once, as far as it takes it; the rest is kept."""
    cdef Half* half = &flow.half[h]
    cdef ssize_t n = 0
    if size != 0 and half.pending == 0 and flow.elements.kept_size[h] == 0 and flow.side[1 - h].ready & WRITABLE:
        n = sys_send(flow.side[1 - h].fd, data, size, 0)
        if n < 0 and n != -EAGAIN:
            half_heard(w, flow, h, sink_failed(&flow.side[1 - h], n))
            return
        n = 0 if n < 0 else n
        if <uint32_t>n < size:
            flow.side[1 - h].ready &= <uint8_t>~WRITABLE
        if n > 0:
            half.used = ELEMENT
            half.bytes += n
            flow.active_ns = w.gear.now_ns
            bump(&w.stats.listeners[flow.listener].bytes[h], <uint64_t>n)
    if not kept_put(w.batch, flow, h, data + n, size - <uint32_t>n):
        flow_close(w, flow, ELEMENT_FAILED)


cdef inline void end_both(Worker* w, Flow* flow, HalfEvent event) noexcept nogil:
    """By the will of an element: what is pending is still delivered."""
    cdef int h
    for h in range(2):
        if flow.half[h].state == WAITING:
            half_answered(w, flow, h)
        if half_reads(flow, h) or event == SOURCE_RESET:
            half_tell(w, flow, h, event)


cdef inline void bytes_answered(Worker* w, Flow* flow, Slot* slot) noexcept nogil:
    cdef int h = slot.half
    cdef const uint8_t* data = slot.large if slot.large != NULL else slot.data
    # The end of what an element refuses is no end for the sink: it learns of the refusal.
    flow.elements.ends[h] = slot.ends and slot.outcome == GOES_ON
    if slot.delay_ns != 0 and slot.outcome == GOES_ON:
        if kept_put(w.batch, flow, h, data, slot.size):
            flow.elements.until_ns[h] = w.gear.now_ns + slot.delay_ns
            flow_schedule(w, flow)
            return
        slot.outcome = HAS_FAILED
    if slot.outcome != HAS_FAILED:
        give(w, flow, h, data, slot.size)
    if flow.phase != RELAYING or flow.half[h].state != WAITING:
        return
    half_answered(w, flow, h)
    if slot.outcome == GOES_ON:
        return
    if flow.reason == NO_REASON:
        flow.reason = <uint8_t>refused_by(slot.outcome)
    flow.polite = slot.outcome == IS_CLOSED
    flow.reset_seen_ns = w.gear.now_ns
    end_both(w, flow, SOURCE_EOF if flow.polite else SOURCE_RESET)


cdef inline void answered(Worker* w, Flow* flow, Slot* slot) noexcept nogil:
    cdef int h
    if slot.opening:
        opening_answered(w, flow, slot)
        return
    bytes_answered(w, flow, slot)
    if flow.phase != RELAYING:
        return
    for h in range(2):
        # The answer may concern both halves: elements may have left the flow, or sent something on their own.
        if not flow.elements.hears[h] and flow.half[h].lane == ELEMENT:
            flow.half[h].lane = COPY
        kept_next(flow, h)
    if flow_is_released(flow):
        flow_leave(w, flow)
    elif (
        half_can_step(flow, 0) or half_can_step(flow, 1) or slot.ends or slot.outcome != GOES_ON
        or (flow.side[0].ready | flow.side[1].ready) & FAILED
    ):
        queue_push(w, flow)


cdef inline void answer_all(Worker* w) noexcept nogil:
    """Have the elements asked, and do what they say."""
    cdef uint32_t i, count = w.batch.count
    cdef Slot* slot
    ask_all(w)
    w.batch.count = 0
    w.batch.used = 0
    for i in range(count):
        slot = &w.batch.slots[i]
        # An earlier answer may have ended the flow.
        if slot.answered and slot.flow.phase == (DIALLING if slot.opening else RELAYING):
            answered(w, slot.flow, slot)
        free(slot.large)
        slot.large = NULL
