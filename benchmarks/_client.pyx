"""What the clients of the load generator share: one thread, one epoll, and a loop that holds no GIL.

Owns: the window of time and what is counted in it. The descriptors that a client is given stay their giver's.
Built as benchmarks._client when RELAY_PROBE=1; never shipped.
"""

import errno
import os

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from relaycore._libc cimport EPOLL_CTL_ADD, EPOLL_CTL_DEL, epoll_event, timespec
from relaycore._sys cimport sys_close, sys_epoll, sys_epoll_set, sys_now_ns, sys_prctl

cdef extern from "<sys/epoll.h>" nogil:
    int epoll_pwait2(int epoll, epoll_event* events, int capacity, const timespec* timeout, const void* signals)

cdef extern from "<sys/prctl.h>":
    const int PR_SET_TIMERSLACK


cdef class Latencies:
    """A tally by itself."""
    cdef Tally tally

    def add(self, uint64_t value):
        tally_add(&self.tally, value)

    def at(self, double fraction):
        return tally_at(&self.tally, fraction)


cdef class Client:
    """Slots, of which each carries one connection at a time; a subclass says what is sent when."""

    def __cinit__(self, list fds, *_rest, **_named):
        cdef uint32_t i
        self.epoll = sys_epoll()
        if self.epoll < 0:
            raise OSError(-self.epoll, os.strerror(-self.epoll))
        self.count = len(fds)
        self.slots = <Slot*>calloc(self.count + 1, sizeof(Slot))
        self.buffer = <uint8_t*>calloc(1, CHUNK)
        if self.slots == NULL or self.buffer == NULL:
            raise MemoryError
        self.alive = self.count
        for i in range(self.count):
            self.slots[i].fd = fds[i]
        # By default the kernel may wake a thread 50 us after the time that it asked for: a schedule would be late by that.
        sys_prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)

    def __dealloc__(self):
        if self.epoll > 0:
            sys_close(self.epoll)
        free(self.slots)
        free(self.buffer)

    def run(self, double seconds):
        """Load for that long, or until nothing is left to do; the seconds that it took."""
        cdef uint64_t start = sys_now_ns()
        with nogil:
            self.turns(start + <uint64_t>(seconds * 1e9))
        return (sys_now_ns() - start) / 1e9

    def drain(self, double seconds):
        """Let what was due be answered, for that long. What still is not then counts with its age."""
        cdef uint64_t start = sys_now_ns()
        self.closing = True
        with nogil:
            self.turns(start + <uint64_t>(seconds * 1e9))
            self.give_up(sys_now_ns())

    def begin(self):
        """The window begins: what was counted so far was for warming up. Errors stay."""
        memset(&self.tally, 0, sizeof(Tally))
        self.done = 0

    def errors(self):
        """How often each happened, by name."""
        return {errno.errorcode.get(i, "EOF"): self.errnos[i] for i in range(ERRNOS) if self.errnos[i]}

    def at_us(self, double fraction):
        return tally_at(&self.tally, fraction) / 1000.0 if self.tally.total else None

    def greatest_us(self):
        return self.tally.greatest / 1000.0 if self.tally.total else None

    cdef int watch(self, uint32_t events) except -1:
        cdef uint32_t i
        cdef int error
        for i in range(self.count):
            error = -sys_epoll_set(self.epoll, EPOLL_CTL_ADD, self.slots[i].fd, events, i)
            if error:
                raise OSError(error, os.strerror(error))
        return 0

    cdef void turns(self, uint64_t end) noexcept nogil:
        cdef uint64_t now = sys_now_ns(), due
        cdef timespec rest
        cdef int i, n
        self.until = end
        while self.outstanding if self.closing else self.alive:
            # Also what became due while this thread did not run, up to the end and no further.
            due = NEVER if self.closing else self.release(min(now, end))
            if now >= end:
                return
            due = end if due == NEVER or due > end else due
            due -= min(due, now)
            rest.tv_sec = <long>(due // 1000000000)
            rest.tv_nsec = <long>(due % 1000000000)
            n = epoll_pwait2(self.epoll, self.events, BATCH, &rest, NULL)     # < 0: interrupted, as good as none
            for i in range(n):
                self.handle(&self.slots[self.events[i].data.u64], self.events[i].events)
            now = sys_now_ns()

    cdef uint64_t release(self, uint64_t now) noexcept nogil:
        """Begin what is due; when the next is."""
        return NEVER

    cdef void handle(self, Slot* slot, uint32_t happened) noexcept nogil:
        pass

    cdef void give_up(self, uint64_t now) noexcept nogil:
        """Call ignored() for each request that is outstanding."""
        pass

    cdef void answered(self, uint64_t since, uint64_t now) noexcept nogil:
        tally_add(&self.tally, now - since)
        self.outstanding -= 1
        if self.closing:
            self.late += 1
        else:
            self.done += 1

    cdef void ignored(self, uint64_t since, uint64_t now) noexcept nogil:
        tally_add(&self.tally, now - since)
        self.outstanding -= 1
        self.unanswered += 1

    cdef void lose(self, Slot* slot, int error) noexcept nogil:
        """The connection is over, and what was due on it; its owner closes it."""
        cdef uint64_t lost = slot.waiting + slot.backlog
        slot.error = error if 0 < error < ERRNOS else END_OF_FILE
        self.errnos[slot.error] += max(lost, <uint64_t>1)
        self.outstanding -= lost
        self.alive -= 1
        sys_epoll_set(self.epoll, EPOLL_CTL_DEL, slot.fd, 0, 0)
        slot.fd = -1
        slot.waiting = False
        slot.backlog = slot.to_send = 0
