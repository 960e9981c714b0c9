# What elements passed on and the sink has not taken yet: a block of memory per half, within a limit of the worker's.
#
# Such a half has neither a pipe nor a buffer: its pending bytes are here. Bytes that elements send on their own may also come
# while a pipe or a buffer holds the half's bytes; then they follow those (kept_next).
#
# Owns: Elements.kept and the sum of all.
# Who may touch it: _step gives it to the sink, _ask and _answer add to it.
# Never here: Python.

from libc.errno cimport EAGAIN
from libc.stdint cimport uint32_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from relaycore._core cimport Batch
from relaycore._flow cimport ELEMENT, SHUT, WRITABLE, Elements, Flow, Half
from relaycore._move cimport MOVED, SINK_FULL, Moved, sink_failed
from relaycore._pipe cimport NO_BUFFER, NO_PIPE
from relaycore._sys cimport sys_send

cdef enum:
    LEAST_ROOM = 4096


cdef inline bint half_keeps(const Half* half) noexcept nogil:
    """Whether what is pending is kept here."""
    return half.pipe == NO_PIPE and half.buffer == NO_BUFFER


cdef inline void kept_drop(Batch* batch, Flow* flow, int h) noexcept nogil:
    cdef Elements* elements = flow.elements
    if elements.kept[h] != NULL:
        batch.kept_bytes -= elements.kept_room[h]
        free(elements.kept[h])
        elements.kept[h] = NULL
        elements.kept_room[h] = 0
        elements.kept_size[h] = 0


cdef inline bint kept_put(Batch* batch, Flow* flow, int h, const uint8_t* data, uint32_t size) noexcept nogil:
    """Behind what the half has to give. False: there is no memory."""
    cdef Elements* elements = flow.elements
    cdef Half* half = &flow.half[h]
    cdef uint32_t need = elements.kept_size[h] + size
    cdef uint8_t* memory
    if half.state == SHUT or size == 0:
        return True
    if half_keeps(half) and half.offset != 0:   # what is given makes room: a slow sink may never take all
        elements.kept_size[h] -= half.offset
        need -= half.offset
        memmove(elements.kept[h], elements.kept[h] + half.offset, elements.kept_size[h])
        half.offset = 0
    if need > elements.kept_room[h]:
        need = need if need > LEAST_ROOM else <uint32_t>LEAST_ROOM
        memory = <uint8_t*>realloc(elements.kept[h], need)
        if memory == NULL:
            return False
        batch.kept_bytes += need - elements.kept_room[h]
        elements.kept[h] = memory
        elements.kept_room[h] = need
    memcpy(elements.kept[h] + elements.kept_size[h], data, size)
    elements.kept_size[h] += size
    return True


cdef inline void kept_next(Flow* flow, int h) noexcept nogil:
    """What is kept becomes what is pending, unless a pipe or a buffer still has bytes, or its time has not come."""
    cdef Half* half = &flow.half[h]
    if half_keeps(half) and flow.elements.until_ns[h] == 0 and flow.elements.kept_size[h] != 0:
        if half.pending == 0:
            half.offset = 0
        half.pending = flow.elements.kept_size[h] - half.offset


cdef inline Moved kept_flush(Batch* batch, Flow* flow, int h) noexcept nogil:
    """As half_flush()."""
    cdef Half* half = &flow.half[h]
    cdef ssize_t n
    while half.pending != 0:
        n = sys_send(flow.side[1 - h].fd, flow.elements.kept[h] + half.offset, half.pending, 0)
        if n <= 0:
            flow.side[1 - h].ready &= <uint8_t>~WRITABLE
            return SINK_FULL if n == -EAGAIN else sink_failed(&flow.side[1 - h], n)
        half.used = ELEMENT
        half.bytes += n
        half.pending -= <uint32_t>n
        half.offset += <uint32_t>n
    half.offset = 0
    kept_drop(batch, flow, h)
    return MOVED
