# Watching the calls of elements from outside: which one does not come back, and the last way out of a process that is stuck in one.
#
# Owns: what counts as stuck.
# Who may touch it: _engine, from threads that do nothing else.
# Never here: a flow; waiting for the GIL where a signal has to be obeyed.

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from relaycore._atomic cimport atomic_acquire, atomic_load, bump
from relaycore._calls cimport Call
from relaycore._core cimport Batch, Shared, Worker
from relaycore._libc cimport MSG_DONTWAIT, MSG_PEEK
from relaycore._mailbox cimport CARRY_ON
from relaycore._sys cimport sys_leave, sys_now_ns, sys_poll_one, sys_recv

cdef enum:
    # Python threads hand the GIL over every 5 ms when another one waits.
    GIL_HELD_NS = 250000000
    LOOK_MS = 100
    SIGNAL_INTERRUPT = 2
    SIGNAL_TERMINATE = 15
    MOST_SIGNALS = 512


cdef struct Seen:               # a call that was stuck when somebody looked
    uint32_t worker
    Call call
    uint64_t at_ns


cdef inline bint call_is_stuck(const Call* call, uint64_t now_ns) noexcept nogil:
    """And nobody was told yet."""
    cdef uint64_t since = atomic_acquire(&call.since_ns)
    return since != 0 and now_ns > since + call.patience_ns and call.told != atomic_load(&call.number)


cdef inline bint await_stuck(Shared* shared, Seen* seen) noexcept nogil:
    """Until a call is stuck (True), or the workers have ended. Who would come back in between might wait for the GIL then."""
    cdef Worker* workers = <Worker*>shared.workers
    cdef Batch* batch
    cdef uint32_t i
    while atomic_load(&shared.running_elements) != 0:
        seen.at_ns = sys_now_ns()
        for i in range(shared.plain_workers, shared.all_workers):
            batch = workers[i].batch
            if call_is_stuck(batch.call, seen.at_ns):
                seen.worker = i
                seen.call = batch.call[0]
                batch.call.told = seen.call.number
                bump(&batch.tallies[seen.call.element].stuck, 1)
                return True
        sys_poll_one(-1, 0, LOOK_MS)
    return False


cdef inline bint held_interpreter(Shared* shared, const Seen* seen) noexcept nogil:
    """Asked by who has the GIL: if it took long to come by, the call has held it."""
    cdef Worker* workers = <Worker*>shared.workers
    if sys_now_ns() <= seen.at_ns + GIL_HELD_NS:
        return False
    bump(&workers[seen.worker].batch.tallies[seen.call.element].gil_held, 1)
    return True


cdef inline int end_signals(int signals_fd) noexcept nogil:
    """How many signals to end lie there unread."""
    cdef uint8_t numbers[MOST_SIGNALS]
    cdef ssize_t n = sys_recv(signals_fd, numbers, MOST_SIGNALS, MSG_PEEK | MSG_DONTWAIT)
    cdef ssize_t i
    cdef int count = 0
    for i in range(n):
        count += numbers[i] == SIGNAL_INTERRUPT or numbers[i] == SIGNAL_TERMINATE
    return count


cdef inline void last_resort(Shared* shared, int signals_fd, double patience) noexcept nogil:
    """End the process when it was told twice and the main thread does not even look: an element holds the interpreter."""
    cdef const char* words = b"relay-sidecar: told to end again, while an element lets no other code run: ended\n"
    cdef Worker* workers = <Worker*>shared.workers
    cdef uint64_t since = 0
    cdef int unread
    while atomic_load(&shared.running) != 0:
        sys_poll_one(-1, 0, LOOK_MS)
        unread = end_signals(signals_fd)
        if unread >= 2 or (unread == 1 and atomic_load(&workers[0].mailbox.order) != CARRY_ON):
            if since == 0:
                since = sys_now_ns()
            if sys_now_ns() > since + <uint64_t>(patience * 1e9):
                sys_leave(words)
        else:
            since = 0
