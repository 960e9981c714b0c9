# Asking elements: what flows have for them is collected in slots, and one taking of the GIL answers all of a batch.
#
# Elements are handed Python's own bytes: what they keep of them can be read for ever, and never shows what the engine reads
# next. Small pieces are copied out of a slot. A large one is read into bytes that no Python has seen before.
#
# Owns: the slots, and the engine's only `with gil`.
# Who may touch it: _accept and _step put questions, the worker's loop has them answered (_answer).
# Never here: what an answer does to a flow.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strdup

from relaycore._atomic cimport atomic_load, atomic_swap
from relaycore._calls cimport GOES_ON, HAS_FAILED
from relaycore._chain cimport Chain
from relaycore._chains cimport chain_of
from relaycore._compiled cimport piece_free
from relaycore._core cimport BATCH_BYTES, SLOTS, Batch, Slot, Worker
from relaycore._flow cimport DIALLING, RELAYING, WAITING, Elements, Flow, Half, Side
from relaycore._kept cimport kept_put
from relaycore._move cimport ASKED, SINK_FULL, Moved, side_at_mark, side_was_read, source_said_nothing
from relaycore._stats cimport COUNT_PENDING_EXHAUSTED, REASON_COUNT, count
from relaycore._sys cimport sys_recv
from relaycore._use cimport Books, Flow as FlowSeen

cdef enum:
    # A piece is as much as there is, up to so many buffers. With one of them, bulk has a third less; with eight, it has a tenth
    # more, and a question of another flow beside it waits half as long again.
    PIECE_BUFFERS = 4
    # Pieces begin on cache lines of their own.
    LINE_BYTES = 64
    # At the limit of kept bytes: a sink that says that it has room has room for so much, mostly.
    LEAN_BYTES = 4096


cdef inline Batch* batch_make(uint64_t kept_limit) noexcept nogil:
    cdef Batch* batch = <Batch*>calloc(1, sizeof(Batch))
    cdef uint8_t* memory = <uint8_t*>malloc(BATCH_BYTES)
    if batch == NULL or memory == NULL:
        free(batch)
        free(memory)
        return NULL
    batch.kept_limit = kept_limit
    batch.memory = memory
    return batch


cdef inline void batch_lend(Batch* batch, Books books, list plans, tuple reasons) noexcept:
    """What the engine holds for as long as the worker lives."""
    batch.books = <void*>books
    batch.call = &books.call
    batch.tallies = books.tallies
    batch.plans = <void*>plans
    batch.reasons = <void*>reasons


cdef inline Slot* slot_take(Batch* batch, Flow* flow) noexcept nogil:
    """A blank question for this flow; NULL when the batch is full: then later."""
    cdef Slot* slot
    if batch.count == SLOTS:
        return NULL
    slot = &batch.slots[batch.count]
    batch.count += 1
    slot.flow = flow
    slot.data = batch.memory + batch.used
    slot.blank = NULL
    slot.large = NULL
    slot.size = 0
    slot.delay_ns = 0
    slot.half = 0
    slot.outcome = GOES_ON
    slot.opening = False
    slot.ends = False
    slot.ran = False
    slot.answered = False
    slot.chose_origin = False
    return slot


cdef inline void slot_fills(Batch* batch, const Slot* slot) noexcept nogil:
    """The next slot begins behind what this one has in the batch's memory."""
    batch.used += (slot.size + LINE_BYTES - 1) & ~<uint32_t>(LINE_BYTES - 1)


cdef inline bint ask_opening(Worker* w, Flow* flow) noexcept nogil:
    """Before anything is dialled. False: there is no memory for its elements."""
    cdef Elements* elements = <Elements*>calloc(1, sizeof(Elements))
    if elements == NULL:
        return False
    elements.home = w
    flow.elements = elements
    slot_take(w.batch, flow).opening = True
    return True


cdef inline size_t read_size(Worker* w, size_t most) noexcept nogil:
    """How much to read for elements: at the limit of what is kept, no more than a sink that has room will take at once."""
    if w.batch.kept_bytes < w.batch.kept_limit or most <= LEAN_BYTES:
        return most
    count(w.stats, COUNT_PENDING_EXHAUSTED)
    return LEAN_BYTES


cdef inline Moved ask_read(Worker* w, Flow* flow, int h) noexcept nogil:
    """Read a piece and put it to the elements (ASKED). SINK_FULL: not now."""
    cdef Side* source = &flow.side[h]
    cdef uint32_t most = PIECE_BUFFERS * w.gear.copy_bytes
    cdef Half* half = &flow.half[h]
    cdef Slot* slot = slot_take(w.batch, flow) if w.batch.used + most <= BATCH_BYTES else NULL
    cdef size_t want = read_size(w, most)
    cdef bint at_mark = side_at_mark(source)
    cdef ssize_t n
    if slot == NULL:
        return SINK_FULL
    if half.large_reads != 0 and w.batch.blank != NULL:
        slot.blank = w.batch.blank
        slot.data = w.batch.blank_data
        w.batch.blank = NULL
    n = sys_recv(source.fd, slot.data, want, 0)
    if n <= 0 and (n < 0 or source.error != 0):
        if slot.blank != NULL:
            w.batch.blank = slot.blank
        w.batch.count -= 1
        return source_said_nothing(source, n)
    side_was_read(source, n < <ssize_t>want, at_mark)
    slot.half = <uint8_t>h
    slot.size = <uint32_t>n
    slot.ends = n == 0
    half.large_reads = slot.size >= most // 2
    if slot.blank == NULL:
        slot_fills(w.batch, slot)
    return ASKED


cdef inline bint batch_has_work(Worker* w) noexcept nogil:
    """Whether the GIL has to be taken."""
    return w.batch != NULL and (w.batch.count != 0 or w.batch.over != NULL or atomic_load(<uint64_t*>&w.batch.returned) != 0)


cdef inline void ask_all(Worker* w) noexcept with gil:
    """Have every question answered, and tell the elements of flows that are over."""
    cdef Slot* slot
    cdef uint32_t i
    Py_XDECREF(<PyObject*>w.batch.spent)
    w.batch.spent = NULL
    for i in range(w.batch.count):
        slot = &w.batch.slots[i]
        try:
            ask_one(w, slot)
        except BaseException:   # memory: the elements' own errors are answers
            slot.outcome = HAS_FAILED
            slot.size = 0
        if slot.blank != NULL:  # nobody was asked; it may go on all the same
            w.batch.spent = slot.blank
            slot.blank = NULL
    if w.batch.blank == NULL:
        w.batch.blank = blank_make(PIECE_BUFFERS * w.gear.copy_bytes, &w.batch.blank_data)
    tell_over(w)


cdef inline void* blank_make(uint32_t size, uint8_t** data) noexcept:
    """NULL: there is no memory, and pieces are copied."""
    cdef bytes blank
    try:
        blank = PyBytes_FromStringAndSize(NULL, size)
    except MemoryError:
        return NULL
    data[0] = <uint8_t*>PyBytes_AS_STRING(blank)
    Py_INCREF(blank)
    return <void*>blank


cdef inline bytes piece_of(Batch* batch, Slot* slot):
    """What was read, as elements get it."""
    cdef PyObject* blank = <PyObject*>slot.blank
    if blank == NULL:
        return PyBytes_FromStringAndSize(<char*>slot.data, slot.size)
    slot.blank = NULL
    _PyBytes_Resize(&blank, slot.size)     # NULL: no memory
    slot.data = <uint8_t*>PyBytes_AS_STRING(<object>blank)
    batch.spent = blank
    return <bytes>blank


cdef inline int ask_one(Worker* w, Slot* slot) except -1:
    cdef Flow* flow = slot.flow
    cdef Elements* elements = flow.elements
    cdef Chain chain
    cdef int h = slot.half
    cdef bytes given, out
    cdef bint own
    if flow.phase != (DIALLING if slot.opening else RELAYING) or (not slot.opening and flow.half[h].state != WAITING):
        return 0
    slot.answered = True
    if slot.opening:
        chain = begin_chain(w, flow)
        if chain.outcome == GOES_ON:
            out = chain.opened()
            keep(w, flow, 0, out)
        if chain.origin is not None:
            flow.origin = chain.flow.origin_address
            slot.chose_origin = True
    elif elements.chain == NULL:    # an earlier answer of this batch was the last that they had to give
        return 0
    else:
        chain = <Chain>elements.chain
        chain.flow.waiting[0] = elements.kept_size[0]
        chain.flow.waiting[1] = elements.kept_size[1]
        if slot.ran:
            chain.hear_of_all()
        else:
            own = slot.blank == NULL
            given = piece_of(w.batch, slot)
            out = chain.passed_on(h, given, slot.ends)
            slot.delay_ns = <uint64_t>(chain.delay * 1e9)
            put_out(slot, given, out, own)
        if chain.unsettled[1 - h]:
            keep(w, flow, 1 - h, chain.passed_on(1 - h, b"", False))
    slot.outcome = chain.outcome
    look_at(w, flow, chain)
    return 0


cdef inline Chain begin_chain(Worker* w, Flow* flow):
    cdef FlowSeen seen = FlowSeen.__new__(FlowSeen)
    cdef Chain chain
    (names, uses) = (<list>w.batch.plans)[flow.listener]
    seen.id = flow.id
    seen.listener = names
    seen.client_address = flow.client
    seen.origin_address = flow.origin
    seen.labels = {}
    chain = chain_of(<Books>w.batch.books, uses, seen)
    Py_INCREF(chain)
    flow.elements.chain = <void*>chain
    return chain


cdef inline int keep(Worker* w, Flow* flow, int h, bytes data) except -1:
    if not kept_put(w.batch, flow, h, <uint8_t*>PyBytes_AS_STRING(data), <uint32_t>PyBytes_GET_SIZE(data)):
        raise MemoryError
    return 0


cdef inline int put_out(Slot* slot, bytes given, bytes out, bint own) except -1:
    """What goes on, in the slot; it is there already if the elements left it as it was. Own: its memory is the batch's."""
    slot.size = <uint32_t>PyBytes_GET_SIZE(out)
    if out is given:
        return 0
    if not own or PyBytes_GET_SIZE(out) > PyBytes_GET_SIZE(given):
        slot.large = <uint8_t*>malloc(slot.size)
        if slot.large == NULL:
            raise MemoryError
    memcpy(slot.large if slot.large != NULL else slot.data, PyBytes_AS_STRING(out), slot.size)
    return 0


cdef inline int look_at(Worker* w, Flow* flow, Chain chain) except -1:
    """What the elements want from here on, what they have sent on their own, and what they say for the record."""
    cdef Elements* elements = flow.elements
    cdef FlowSeen seen = chain.flow
    cdef bytes words
    elements.hears[0] = chain.hears(0)
    elements.hears[1] = chain.hears(1)
    elements.hears_closed = chain.hears_closed()
    elements.run[0] = chain.run(0)
    elements.run[1] = chain.run(1)
    if seen.for_origin is not None:
        keep(w, flow, 0, seen.for_origin)
        seen.for_origin = None
    if seen.for_client is not None:
        keep(w, flow, 1, seen.for_client)
        seen.for_client = None
    if chain.by is not None or seen.labels:
        words = chain.words()
        free(flow.words)
        flow.words = strdup(words) if words else NULL
    if not elements.hears[0] and not elements.hears[1] and not elements.hears_closed:
        elements.chain = NULL
        Py_DECREF(chain)
    return 0


cdef inline void tell_over(Worker* w) noexcept:
    """Every flow that has ended, here or on another worker: its elements are told, and gone."""
    cdef Elements* here = w.batch.over
    cdef Elements* elsewhere = <Elements*>atomic_swap(&w.batch.returned, NULL)
    cdef Elements* one
    w.batch.over = NULL
    while here != NULL or elsewhere != NULL:
        if here == NULL:
            one = elsewhere
            elsewhere = one.next
            w.batch.away -= 1
        else:
            one = here
            here = one.next
        free_elements(w, one)


cdef inline void free_elements(Worker* w, Elements* elements) noexcept:
    cdef Chain chain
    if elements.chain != NULL:
        chain = <Chain>elements.chain
        if elements.hears_closed:
            chain.closed((<tuple>w.batch.reasons)[elements.reason])
        Py_DECREF(chain)
    free(elements)


cdef inline void batch_free(Worker* w) noexcept:
    if w.batch != NULL:
        tell_over(w)
        Py_XDECREF(<PyObject*>w.batch.spent)
        Py_XDECREF(<PyObject*>w.batch.blank)
        free(w.batch.memory)
        piece_free(&w.batch.piece)
        free(w.batch)
        w.batch = NULL
