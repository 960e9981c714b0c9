# The movers: bytes from a half's source to its sink, by COPY or by SPLICE. One call is one read and the writes that follow.
#
# Owns: what is known after each call (Side.ready, Side.error, Half.pending) and which lane a half uses next.
# Who may touch it: _step calls half_move() and half_flush(), nobody else moves a byte.
# Never here: a decision about the flow's life, or about which side is which: a mover is handed a half and its two sides.
#
# Facts (each has a test), what they mean here, what it costs.
# - EAGAIN from splice into a pipe that holds bytes may mean "pipe full": the pipe is emptied first, so EAGAIN means "source dry".
# - Before an urgent byte splice says EAGAIN for ever, and at FIN then 0 with bytes unread. So a 0, and an EAGAIN that nothing
#   preceded in this wake-up, are confirmed by recv; an announced urgent byte puts the half in COPY. One recv per idle wake-up.
# - SO_OOBINLINE is on, on every socket: recv stops before the urgent byte, SIOCATMARK says that it is next, and it is passed on
#   as urgent. Where an announcement comes too late the byte travels in line: not lost, not out of place.
# - An error is told once. The first one is kept in Side.error, and a 0 that comes later is then no EOF.
# - A short recv without RDHUP, HUP and PRI has emptied the socket; what comes later is a new edge. A short splice says nothing.

from libc.errno cimport EAGAIN, EIO
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from relaycore._check cimport RELAY_CHECK
from relaycore._flow cimport COPY, HUP, RDHUP, READABLE, SPLICE, URGENT, WRITABLE, Half, Side
from relaycore._pipe cimport (
    NO_BUFFER, NO_PIPE, BufferPool, PipePool, buffer_at, buffer_give, buffer_left, buffer_take, pipe_drop, pipe_give, pipe_take,
)
from relaycore._stats cimport COUNT_TO_COPY, COUNT_TO_SPLICE, COUNT_URGENT, Stats, count
from relaycore._libc cimport MSG_OOB, MSG_PEEK, MSG_TRUNC
from relaycore._sys cimport sys_at_mark, sys_recv, sys_send, sys_splice

cdef enum:
    # From here on the copies that splice saves cost more than its third system call, the one that finds the source dry: messages of
    # 16 KiB took .86 of the CPU. What moves less goes by COPY.
    SPLICE_WORTH_BYTES = 16 * 1024
    READS_BEFORE_SPLICE = 2
    # Now and then a bulk flow has one such wake-up as well.
    WAKES_BEFORE_COPY = 2


cdef enum Moved:
    MOVED                   # bytes went; there may be more
    SOURCE_DRY              # nothing more to read now
    SINK_FULL               # bytes are pending
    SOURCE_ENDED            # EOF
    SOURCE_FAILED           # Side.error says why
    SINK_FAILED
    ASKED                   # elements have the bytes, or are to have them later


cdef struct Gear:           # what the movers of one worker share
    uint8_t* scratch        # one COPY read; empty between two calls
    uint32_t copy_bytes     # BUFFER_BYTES; tests make it less
    PipePool pipes
    BufferPool buffers
    Stats* stats
    uint64_t now_ns


cdef inline Moved source_failed(Side* source, ssize_t answer) noexcept nogil:
    if source.error == 0:
        source.error = <short>-answer
    return SOURCE_FAILED


cdef inline Moved sink_failed(Side* sink, ssize_t answer) noexcept nogil:
    if sink.error == 0:
        sink.error = <short>-answer
    return SINK_FAILED


cdef inline Moved source_said_nothing(Side* source, ssize_t answer) noexcept nogil:
    """What a read without bytes means: after an error was told, dry and EOF are what is left of a reset."""
    if answer == -EAGAIN:
        source.ready &= <uint8_t>~(READABLE | URGENT)
        return SOURCE_DRY if source.error == 0 else SOURCE_FAILED
    if answer < 0:
        return source_failed(source, answer)
    return SOURCE_ENDED if source.error == 0 else SOURCE_FAILED


cdef inline void urgent_passed(Side* source, Gear* gear) noexcept nogil:
    source.ready &= <uint8_t>~URGENT
    count(gear.stats, COUNT_URGENT)


cdef inline bint side_at_mark(const Side* side) noexcept nogil:
    """A read ends before an urgent byte, and begins with it; to elements it is a byte like others, in its place."""
    return side.ready & URGENT and sys_at_mark(side.fd) == 1


cdef inline void side_was_read(Side* source, bint short_read, bint at_mark) noexcept nogil:
    """A short read says that nothing more is there, unless something else may have ended it. at_mark: as it was before."""
    if at_mark:
        source.ready &= <uint8_t>~URGENT
    elif short_read and not source.ready & (RDHUP | HUP | URGENT):
        source.ready &= <uint8_t>~READABLE


cdef inline void half_use(Half* half, int lane, Gear* gear) noexcept nogil:
    """Change the lane; only while nothing is pending."""
    RELAY_CHECK(half.pending == 0)
    if half.lane != lane:
        half.lane = <uint8_t>lane
        half.large_reads = 0
        half.small_wakes = 0
        half.bulk = False
        count(gear.stats, COUNT_TO_SPLICE if lane == SPLICE else COUNT_TO_COPY)


cdef inline void half_release(Half* half, Gear* gear) noexcept nogil:
    """Give back what the half holds; pending bytes are lost with it."""
    if half.pipe != NO_PIPE:
        if half.pending == 0:
            pipe_give(&gear.pipes, half.pipe)
        else:
            pipe_drop(&gear.pipes, half.pipe)
        half.pipe = NO_PIPE
    if half.buffer != NO_BUFFER:
        buffer_give(&gear.buffers, half.buffer)
        half.buffer = NO_BUFFER
    half.pending = 0
    half.pending_urgent = False


cdef inline Moved half_flush(Half* half, Side* sink, Gear* gear) noexcept nogil:
    """Give what is pending, until it is gone or the sink says that it is full."""
    cdef ssize_t n
    while half.pending != 0:
        if half.pipe != NO_PIPE:
            n = sys_splice(gear.pipes.pipes[half.pipe].ends[0], sink.fd, half.pending)
        else:
            n = sys_send(sink.fd, buffer_at(&gear.buffers, half.buffer) + half.offset, half.pending,
                         MSG_OOB if half.pending_urgent else 0)
        if n == -EAGAIN:
            sink.ready &= <uint8_t>~WRITABLE
            return SINK_FULL
        if n <= 0:      # nothing given of something that waits would be an endless loop
            return sink_failed(sink, n if n < 0 else -EIO)
        half.bytes += n
        half.pending -= <uint32_t>n
        half.offset += <uint32_t>n
    half_release(half, gear)
    return MOVED


cdef inline Moved half_write(Half* half, Side* sink, Gear* gear, uint32_t size, bint urgent) noexcept nogil:
    """Give size bytes of the scratch buffer; what the sink does not take becomes pending."""
    cdef ssize_t n = sys_send(sink.fd, gear.scratch, size, MSG_OOB if urgent else 0)
    if n < 0:
        if n != -EAGAIN:
            return sink_failed(sink, n)
        n = 0
    half.bytes += n
    if n == size:
        return MOVED
    half.buffer = buffer_take(&gear.buffers)
    half.offset = 0
    half.pending = size - <uint32_t>n
    half.pending_urgent = urgent
    memcpy(buffer_at(&gear.buffers, half.buffer), gear.scratch + n, half.pending)
    # A short send has met the limit of the send buffer: the kernel will say when there is room.
    sink.ready &= <uint8_t>~WRITABLE
    return SINK_FULL


cdef inline Moved half_peek(Half* half, Side* source, Side* sink, Gear* gear, uint32_t want, bint urgent) noexcept nogil:
    """COPY without a place for what the sink does not take: look, give, and take from the source only what was given."""
    cdef ssize_t n = sys_recv(source.fd, gear.scratch, want, MSG_PEEK)
    cdef ssize_t given, taken
    if n <= 0:
        return source_said_nothing(source, n)
    given = sys_send(sink.fd, gear.scratch, n, MSG_OOB if urgent else 0)
    if given < 0 and given != -EAGAIN:
        return sink_failed(sink, given)
    if given > 0:
        half.bytes += given
        if urgent:
            urgent_passed(source, gear)
        taken = sys_recv(source.fd, gear.scratch, given, MSG_TRUNC)
        if taken != given:      # cannot be undone: going on would give bytes twice
            return sink_failed(sink, taken if taken < 0 else -EIO)
    if given == n:
        return MOVED
    sink.ready &= <uint8_t>~WRITABLE
    return SINK_FULL


cdef inline Moved half_copy(Half* half, Side* source, Side* sink, Gear* gear, uint32_t budget) noexcept nogil:
    cdef bint urgent = source.ready & URGENT and sys_at_mark(source.fd) == 1
    cdef uint32_t want = 1 if urgent else gear.copy_bytes if budget > gear.copy_bytes else budget
    cdef ssize_t n
    if not buffer_left(&gear.buffers, gear.stats):
        return half_peek(half, source, sink, gear, want, urgent)
    n = sys_recv(source.fd, gear.scratch, want, 0)
    if n <= 0:
        return source_said_nothing(source, n)
    if urgent:
        urgent_passed(source, gear)
    elif n < want and not source.ready & (RDHUP | HUP | URGENT):
        source.ready &= <uint8_t>~READABLE
    half.large_reads = half.large_reads + 1 if n >= min(<ssize_t>SPLICE_WORTH_BYTES, <ssize_t>gear.copy_bytes) and half.lane == COPY else 0
    if half.large_reads == READS_BEFORE_SPLICE:
        half_use(half, SPLICE, gear)
    return half_write(half, sink, gear, <uint32_t>n, urgent)


cdef inline Moved half_splice(
    Half* half, Side* source, Side* sink, Gear* gear, uint32_t budget, bint moved_before
) noexcept nogil:
    cdef int32_t pipe = pipe_take(&gear.pipes, gear.stats, gear.now_ns)
    cdef ssize_t n
    if pipe == NO_PIPE:
        return half_copy(half, source, sink, gear, budget)
    n = sys_splice(source.fd, gear.pipes.pipes[pipe].ends[1], min(<uint32_t>gear.pipes.capacity, budget))
    if n > 0:
        half.used = SPLICE
        half.pipe = pipe
        half.pending = <uint32_t>n
        return half_flush(half, sink, gear)
    pipe_give(&gear.pipes, pipe)
    if n == 0 or (n == -EAGAIN and not moved_before):
        return half_copy(half, source, sink, gear, budget)
    return source_said_nothing(source, n)


cdef inline Moved half_move(
    Half* half, Side* source, Side* sink, Gear* gear, uint32_t budget, bint moved_before
) noexcept nogil:
    """One read and its writes, of at most budget bytes. Nothing may be pending before."""
    RELAY_CHECK(half.pending == 0)
    if source.ready & URGENT:
        half_use(half, COPY, gear)
    if half.lane == SPLICE:
        return half_splice(half, source, sink, gear, budget, moved_before)
    return half_copy(half, source, sink, gear, budget)


cdef inline void half_rest(Half* half, Gear* gear, uint64_t moved) noexcept nogil:
    """The wake-up is over, the source is dry: whether splice was worth it."""
    if half.lane != SPLICE:
        return
    half.small_wakes = half.small_wakes + 1 if moved < SPLICE_WORTH_BYTES else 0
    if half.small_wakes >= WAKES_BEFORE_COPY and half.pending == 0:
        half_use(half, COPY, gear)
