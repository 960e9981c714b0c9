# Finished flows on their way to Python: one ring per worker, one writer, one reader, no lock.
#
# Owns: the records between flow_close() and Engine.records().
# Who may touch it: the worker pushes, Python takes.
# Never here: waiting. What finds the ring full is counted and lost; the data path goes on.

from libc.stdint cimport int16_t, uint16_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free

from relaycore._addr cimport Addr
from relaycore._atomic cimport atomic_acquire, atomic_load, atomic_release

cdef enum:
    # Python reads a few times per second at least: 20,000 short connections per second and worker leave 400 between two reads.
    RING_SLOTS = 8192


cdef struct Finished:
    uint64_t id
    uint64_t started_ns
    uint64_t ended_ns
    uint64_t connected_ns
    uint64_t bytes[2]
    Addr client
    Addr origin
    uint16_t listener
    int16_t error
    uint8_t lane
    uint8_t reason
    bint origin_known
    char* words             # what elements said of it, owned by whoever has taken the record; NULL: nothing


cdef struct Ring:
    Finished* slots
    uint64_t pushed         # written by the worker alone
    uint64_t taken          # written by Python alone


cdef inline bint ring_make(Ring* ring) noexcept nogil:
    ring.slots = <Finished*>calloc(RING_SLOTS, sizeof(Finished))
    ring.pushed = 0
    ring.taken = 0
    return ring.slots != NULL


cdef inline void ring_free(Ring* ring) noexcept nogil:
    cdef Finished rest
    while ring.slots != NULL and ring_take(ring, &rest):
        free(rest.words)
    free(ring.slots)
    ring.slots = NULL


cdef inline Finished* ring_reserve(Ring* ring) noexcept nogil:
    """The slot to fill before ring_push(); NULL when Python is behind."""
    if ring.pushed - atomic_acquire(&ring.taken) == RING_SLOTS:
        return NULL
    return &ring.slots[ring.pushed % RING_SLOTS]


cdef inline void ring_push(Ring* ring) noexcept nogil:
    atomic_release(&ring.pushed, ring.pushed + 1)


cdef inline bint ring_take(Ring* ring, Finished* out) noexcept nogil:
    cdef uint64_t taken = atomic_load(&ring.taken)
    if atomic_acquire(&ring.pushed) == taken:
        return False
    out[0] = ring.slots[taken % RING_SLOTS]
    atomic_release(&ring.taken, taken + 1)
    return True
