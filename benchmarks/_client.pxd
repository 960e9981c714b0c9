# What the clients of the load generator share: a tally of latencies, and slots in one epoll for a window of time.
#
# Owns: Tally and its buckets; the shape of Client, whose code is in _client.pyx.
# Who may touch it: _load, whose classes are clients.
# Never here: what a client sends.

from libc.math cimport ceil
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from relaycore._libc cimport epoll_event

cdef extern from * nogil:
    int leading_zeros "__builtin_clzll"(unsigned long long value)

cdef enum:
    FINE_BITS = 6           # 64 buckets for each power of two: a bucket is 1.6 % wide at most, and its middle 0.8 % off
    BUCKETS = (64 - FINE_BITS + 1) << FINE_BITS
    ERRNOS = 134
    END_OF_FILE = 0         # an end where an answer was due has no errno
    BATCH = 256
    CHUNK = 262144
    NEVER = 0               # as a time


cdef struct Tally:
    uint64_t counts[BUCKETS]
    uint64_t total
    uint64_t greatest


cdef inline uint32_t bucket_of(uint64_t value) noexcept nogil:
    """Up to 127 each value has its own; then the seven highest bits of a value tell its bucket."""
    cdef int shift
    if value < (1 << FINE_BITS):
        return <uint32_t>value
    shift = 63 - FINE_BITS - leading_zeros(value)
    return (<uint32_t>shift << FINE_BITS) + <uint32_t>(value >> shift)


cdef inline uint64_t middle_of(uint32_t bucket) noexcept nogil:
    cdef int shift = <int>(bucket >> FINE_BITS) - 1
    if shift <= 0:
        return bucket
    return (<uint64_t>(bucket - (<uint32_t>shift << FINE_BITS)) << shift) + (<uint64_t>1 << (shift - 1))


cdef inline void tally_add(Tally* tally, uint64_t value) noexcept nogil:
    tally.counts[bucket_of(value)] += 1
    tally.total += 1
    if value > tally.greatest:
        tally.greatest = value


cdef inline uint64_t tally_at(const Tally* tally, double fraction) noexcept nogil:
    """The smallest value that at least this fraction of all do not exceed; 0 of none."""
    cdef uint64_t rank = <uint64_t>ceil(fraction * <double>tally.total), seen = 0
    cdef uint32_t bucket
    for bucket in range(<uint32_t>BUCKETS):
        seen += tally.counts[bucket]
        if seen > 0 and seen >= rank:
            return min(middle_of(bucket), tally.greatest)
    return 0


cdef struct Slot:
    int fd                  # -1: none
    int error               # that ended it
    bint waiting            # for the answer to the request that was due at `since`
    uint32_t to_send        # bytes of that request
    uint32_t to_receive     # bytes of its answer
    uint64_t number         # of that request in the schedule
    uint64_t backlog        # requests that have become due behind it
    uint64_t since
    uint64_t moved          # bytes, by Bulk


cdef class Client:
    cdef int epoll
    cdef uint32_t count
    cdef uint64_t alive             # what there is still to do: the loop ends at 0
    cdef uint64_t outstanding       # requests that were due and have no answer yet
    cdef bint closing
    cdef uint64_t until             # the end of the time for which it loads
    cdef Slot* slots
    cdef uint8_t* buffer
    cdef uint64_t errnos[ERRNOS]
    cdef Tally tally
    cdef epoll_event events[BATCH]
    cdef readonly uint64_t done     # answers within the window
    cdef readonly uint64_t late     # answers after its end, to what was due in it
    cdef readonly uint64_t unanswered

    cdef int watch(self, uint32_t events) except -1
    cdef void turns(self, uint64_t end) noexcept nogil
    cdef uint64_t release(self, uint64_t now) noexcept nogil
    cdef void handle(self, Slot* slot, uint32_t happened) noexcept nogil
    cdef void give_up(self, uint64_t now) noexcept nogil
    cdef void answered(self, uint64_t since, uint64_t now) noexcept nogil
    cdef void ignored(self, uint64_t since, uint64_t now) noexcept nogil
    cdef void lose(self, Slot* slot, int error) noexcept nogil
