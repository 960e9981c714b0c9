# What is counted: one block per worker with one writer; Python loads and sums.
#
# Owns: the counters, the histograms and the reasons why a flow ends.
# Who may touch it: the worker that owns the block writes, Python reads.
# Never here: an address, a name, anything that grows.

from libc.stdint cimport uint32_t, uint64_t

from relaycore._atomic cimport bump


cdef enum Reason:
    FINISHED
    REFUSED
    UNREACHABLE
    CONNECT_TIMEOUT
    RESET_BY_CLIENT
    RESET_BY_ORIGIN
    CLIENT_LEFT             # while the origin was being dialled
    IDLE
    HALF_CLOSE_TIMEOUT
    LIMIT
    IN_LOOP                 # "loop"
    NOT_CAPTURED
    FOREIGN_ORIGIN
    FOREIGN_CLIENT
    DRAINED
    REJECTED
    ELEMENT_FAILED
    ERROR
    REASON_COUNT
    NO_REASON = REASON_COUNT    # none yet: the flow goes on


cdef enum Counter:
    COUNT_ACCEPT_ERRORS     # connections that were gone, or the kernel failed to hand over
    COUNT_ACCEPT_PAUSES     # times that accepting paused at a limit
    COUNT_SHED              # connections reset because the limit lasted
    COUNT_FLOWS_LIMITED     # pauses because of max_flows
    COUNT_FILES_LIMITED     # pauses or lost dials because of descriptors (EMFILE, ENFILE)
    COUNT_MEMORY_LIMITED    # the same because of kernel memory (ENOBUFS, ENOMEM)
    COUNT_PORTS_LIMITED     # dials that found no free local port
    COUNT_PIPES_EXHAUSTED   # times that COPY stood in because all pipes were in use
    COUNT_PIPES_DENIED      # times that the kernel denied a pipe of full size
    COUNT_PENDING_EXHAUSTED  # reads that took only what the sink could have at once (max_pending)
    COUNT_RECORDS_LOST      # access records that found the ring full
    COUNT_RESETS_FORCED     # resets passed on at the deadline, over bytes not yet acknowledged
    COUNT_URGENT            # urgent bytes passed on
    COUNT_TO_SPLICE         # halves that went from COPY to SPLICE
    COUNT_TO_COPY           # and back
    COUNT_TURNS             # returns from epoll_wait
    COUNTER_COUNT


cdef enum:
    HISTOGRAM_BUCKETS = 24  # bucket k holds values <= 4**k, the last one also what is greater
    DIAL_ERRNOS = 134       # errno 0 .. 133 (EHWPOISON): dial errors by number
    MAX_LISTENERS = 64


cdef struct Histogram:
    uint64_t counts[HISTOGRAM_BUCKETS]
    uint64_t total


cdef struct ListenerStats:
    uint64_t opened
    uint64_t bytes[2]       # by half: client to origin, origin to client; as delivered
    uint64_t reasons[REASON_COUNT]
    Histogram connect_us
    Histogram duration_us
    Histogram flow_bytes


cdef struct Stats:
    uint64_t counters[COUNTER_COUNT]
    uint64_t dial_errors[DIAL_ERRNOS]
    ListenerStats listeners[MAX_LISTENERS]


cdef inline void count(Stats* stats, Counter which) noexcept nogil:
    bump(&stats.counters[<int>which], 1)


cdef inline void count_dial_error(Stats* stats, int error) noexcept nogil:
    bump(&stats.dial_errors[error if 0 < error < DIAL_ERRNOS else 0], 1)


cdef inline uint32_t histogram_bucket(uint64_t value) noexcept nogil:
    """The smallest k with value <= 4**k, at most the last bucket."""
    cdef uint32_t k = 0
    cdef uint64_t bound = 1
    while value > bound and k < HISTOGRAM_BUCKETS - 1:
        bound <<= 2
        k += 1
    return k


cdef inline void observe(Histogram* histogram, uint64_t value) noexcept nogil:
    bump(&histogram.counts[histogram_bucket(value)], 1)
    bump(&histogram.total, value)
