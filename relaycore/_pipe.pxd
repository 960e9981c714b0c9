# What bytes wait in: the pool of kernel pipes (SPLICE) and the pool of buffers (COPY). One of each per worker.
#
# Owns: every pipe and every pending buffer that no half holds.
# Who may touch it: _move takes and gives; the worker makes and frees the pools.
# Never here: a pipe with bytes in it. pipe_give() takes empty ones; pipe_drop() closes those that are not.

from libc.stdint cimport int32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free

from relaycore._check cimport RELAY_CHECK
from relaycore._stats cimport COUNT_PENDING_EXHAUSTED, COUNT_PIPES_DENIED, COUNT_PIPES_EXHAUSTED, Stats, count
from relaycore._sys cimport sys_close, sys_map, sys_pipe, sys_pipe_grow, sys_unmap

cdef enum:
    # 64 KiB pipes cost 40 % of bulk throughput, 1 MiB gain nothing, and a uid without CAP_SYS_RESOURCE gets 256 of these.
    PIPE_BYTES = 256 * 1024
    # One COPY read: a sink that takes nothing leaves at most this much behind.
    BUFFER_BYTES = 64 * 1024
    # After the kernel denied a full-sized pipe: how long splice is not tried again.
    PIPE_RETRY_NS = 1000000000
    NO_PIPE = -1
    NO_BUFFER = -1


cdef struct Pipe:
    int ends[2]         # [0] is read, [1] is written; -1 while the slot is unused
    int32_t next        # in the list of spare pipes, or of unused slots


cdef struct PipePool:
    Pipe* pipes
    int32_t limit
    int32_t capacity    # PIPE_BYTES; tests make it two slots
    int32_t spare       # open, empty, held by nobody
    int32_t unused      # slots without descriptors
    uint64_t denied_until_ns


cdef struct BufferPool:
    uint8_t* memory
    int32_t* next
    int32_t limit
    int32_t spare


cdef inline bint pipe_pool_make(PipePool* pool, int32_t limit, int32_t capacity) noexcept nogil:
    cdef int32_t i
    pool.capacity = capacity
    pool.pipes = <Pipe*>calloc(limit + 1, sizeof(Pipe))
    pool.limit = limit
    pool.spare = NO_PIPE
    pool.unused = 0 if limit > 0 else NO_PIPE
    pool.denied_until_ns = 0
    if pool.pipes == NULL:
        return False
    for i in range(limit):
        pool.pipes[i].ends[0] = -1
        pool.pipes[i].ends[1] = -1
        pool.pipes[i].next = i + 1 if i + 1 < limit else NO_PIPE
    return True


cdef inline int32_t pipe_take(PipePool* pool, Stats* stats, uint64_t now_ns) noexcept nogil:
    """An empty pipe that the caller holds until pipe_give() or pipe_drop(), or NO_PIPE: then it copies instead."""
    cdef int32_t i = pool.spare
    if i != NO_PIPE:
        pool.spare = pool.pipes[i].next
        return i
    i = pool.unused
    if i == NO_PIPE:
        count(stats, COUNT_PIPES_EXHAUSTED)
        return NO_PIPE
    if now_ns < pool.denied_until_ns:
        return NO_PIPE
    if sys_pipe(pool.pipes[i].ends) < 0:
        pool.pipes[i].ends[0] = -1
        pool.pipes[i].ends[1] = -1
    elif sys_pipe_grow(pool.pipes[i].ends[1], pool.capacity) >= pool.capacity:
        pool.unused = pool.pipes[i].next
        return i
    # Past the budget of the uid (all sidecars of a node share it) a pipe has two slots: worse than a copy.
    pipe_close(&pool.pipes[i])
    pool.denied_until_ns = now_ns + PIPE_RETRY_NS
    count(stats, COUNT_PIPES_DENIED)
    return NO_PIPE


cdef inline void pipe_give(PipePool* pool, int32_t i) noexcept nogil:
    """Back to the pool, empty."""
    pool.pipes[i].next = pool.spare
    pool.spare = i


cdef inline void pipe_drop(PipePool* pool, int32_t i) noexcept nogil:
    """Close a pipe whose bytes nobody will read."""
    pipe_close(&pool.pipes[i])
    pool.pipes[i].next = pool.unused
    pool.unused = i


cdef inline void pipe_close(Pipe* pipe) noexcept nogil:
    cdef int i
    for i in range(2):
        if pipe.ends[i] >= 0:
            sys_close(pipe.ends[i])
            pipe.ends[i] = -1


cdef inline void pipe_pool_free(PipePool* pool) noexcept nogil:
    cdef int32_t i
    if pool.pipes != NULL:
        for i in range(pool.limit):
            pipe_close(&pool.pipes[i])
    free(pool.pipes)
    pool.pipes = NULL


cdef inline bint buffer_pool_make(BufferPool* pool, int32_t limit) noexcept nogil:
    """Address space for all of them at once; a buffer costs memory from its first use on."""
    cdef int32_t i
    pool.limit = limit
    pool.spare = 0 if limit > 0 else NO_BUFFER
    pool.next = <int32_t*>calloc(limit + 1, sizeof(int32_t))
    pool.memory = <uint8_t*>sys_map(<size_t>(limit + 1) * BUFFER_BYTES)
    if pool.next == NULL or pool.memory == NULL:
        return False
    for i in range(limit):
        pool.next[i] = i + 1 if i + 1 < limit else NO_BUFFER
    return True


cdef inline bint buffer_left(BufferPool* pool, Stats* stats) noexcept nogil:
    """Whether buffer_take() will succeed: asked before bytes are taken from a source."""
    if pool.spare != NO_BUFFER:
        return True
    count(stats, COUNT_PENDING_EXHAUSTED)
    return False


cdef inline int32_t buffer_take(BufferPool* pool) noexcept nogil:
    """A buffer that the caller holds until buffer_give(). There must be one: see buffer_left()."""
    cdef int32_t i = pool.spare
    RELAY_CHECK(i != NO_BUFFER)
    pool.spare = pool.next[i]
    return i


cdef inline void buffer_give(BufferPool* pool, int32_t i) noexcept nogil:
    pool.next[i] = pool.spare
    pool.spare = i


cdef inline uint8_t* buffer_at(BufferPool* pool, int32_t i) noexcept nogil:
    return pool.memory + <size_t>i * BUFFER_BYTES


cdef inline void buffer_pool_free(BufferPool* pool) noexcept nogil:
    free(pool.next)
    sys_unmap(pool.memory, <size_t>(pool.limit + 1) * BUFFER_BYTES)
    pool.next = NULL
    pool.memory = NULL
