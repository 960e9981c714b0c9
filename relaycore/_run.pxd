# Halves whose elements are all compiled: read, through the elements and to the sink at once, without the GIL, as COPY does.
#
# When an element has answered something that Python is to know (RELEASE, REJECT, CLOSE, an error), what came of the piece becomes
# a question that has its answer already: the half is WAITING for as long as it takes the chain to hear of it, which is done
# with the other questions of the batch.
#
# Owns: one read and what follows from it.
# Who may touch it: _step, for halves in the lane ELEMENT.
# Never here: Python; what an answer means (_compiled).

from libc.errno cimport EAGAIN, ENOMEM
from libc.stdint cimport uint32_t, uint8_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from relaycore._ask cimport read_size, slot_fills, slot_take
from relaycore._compiled cimport Piece, Run, piece_begin, piece_rest, piece_room, run_pass
from relaycore._core cimport BATCH_BYTES, SLOTS, Slot, Worker
from relaycore._flow cimport ELEMENT, WRITABLE, Flow, Half, Side
from relaycore._kept cimport kept_next, kept_put
from relaycore._move cimport (
    ASKED, MOVED, SINK_FAILED, SINK_FULL, SOURCE_ENDED, Moved, side_at_mark, side_was_read, sink_failed, source_said_nothing,
)
from relaycore._pipe cimport BUFFER_BYTES
from relaycore._sys cimport sys_recv, sys_send

cdef enum:
    # What a piece begins with: the room that one element is promised for a whole read.
    FIRST_ROOM = 2 * BUFFER_BYTES + 4096


cdef inline Moved run_give(Worker* w, Flow* flow, int h, const Piece* piece) noexcept nogil:
    """To the sink at once; what it does not take is kept."""
    cdef Half* half = &flow.half[h]
    cdef Side* sink = &flow.side[1 - h]
    cdef ssize_t n
    if piece.size == 0:
        return MOVED
    n = sys_send(sink.fd, piece.data, piece.size, 0)
    if n < 0 and n != -EAGAIN:
        return sink_failed(sink, n)
    n = 0 if n < 0 else n
    half.bytes += n
    half.used = ELEMENT
    if n < <ssize_t>piece.size:
        sink.ready &= <uint8_t>~WRITABLE
        if not kept_put(w.batch, flow, h, piece.data + n, <uint32_t>(piece.size - n)):
            return sink_failed(sink, -ENOMEM)
        kept_next(flow, h)
    return MOVED


cdef inline Moved run_tell(Worker* w, Flow* flow, int h, const Piece* piece) noexcept nogil:
    """The chain is to hear of it before the piece goes on."""
    cdef Slot* slot = slot_take(w.batch, flow)
    if piece.size > BATCH_BYTES - w.batch.used:
        slot.large = <uint8_t*>malloc(piece.size)
        if slot.large == NULL:
            w.batch.count -= 1
            return sink_failed(&flow.side[1 - h], -ENOMEM)
    memcpy(slot.large if slot.large != NULL else slot.data, piece.data, piece.size)
    slot.size = <uint32_t>piece.size
    if slot.large == NULL:
        slot_fills(w.batch, slot)
    slot.half = <uint8_t>h
    slot.ends = piece.ends
    slot.ran = True
    return ASKED


cdef inline Moved run_read(Worker* w, Flow* flow, int h) noexcept nogil:
    """One read, and all that follows. ASKED: the half is to be WAITING. SINK_FULL: not now."""
    cdef Side* source = &flow.side[h]
    cdef Piece* piece = &w.batch.piece
    cdef size_t want = read_size(w, w.gear.copy_bytes)
    cdef bint at_mark = side_at_mark(source)
    cdef Moved moved
    cdef ssize_t n
    if w.batch.count == SLOTS:
        return SINK_FULL
    if not piece_room(piece, FIRST_ROOM):
        return sink_failed(&flow.side[1 - h], -ENOMEM)
    n = sys_recv(source.fd, piece.data, want, 0)
    if n <= 0 and (n < 0 or source.error != 0):
        return source_said_nothing(source, n)
    side_was_read(source, n < <ssize_t>want, at_mark)
    piece_begin(piece, n, n == 0)
    run_pass(<Run*>flow.elements.run[h], h, piece)
    if piece.news:
        moved = run_tell(w, flow, h, piece)
    else:
        moved = run_give(w, flow, h, piece)
        if moved == MOVED and n == 0:
            moved = SOURCE_ENDED
    piece_rest(piece)
    return moved
