"""The clients of the load generator: ping-pong, short connections, bulk.

Owns: what each sends and when. Churn owns its connections; the others borrow those that they are given.
Built as benchmarks._load when RELAY_PROBE=1; never shipped.
A latency counts from the moment at which the request was due. With a rate that is the schedule, whatever became of the answers
before it (no coordinated omission); without one it is when the answer before it was there.
"""

from libc.errno cimport EAGAIN, EINPROGRESS
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free

from benchmarks._client cimport CHUNK, Client, NEVER, Slot
from relaycore._addr cimport Addr, addr_to_sockaddr
from relaycore._convert cimport addr_from_python
from relaycore._libc cimport (
    EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CTL_ADD, MSG_TRUNC, SOL_TCP, TCP_NODELAY, sockaddr_storage,
    socklen_t,
)
from relaycore._sys cimport (
    sys_close, sys_connect, sys_epoll_set, sys_now_ns, sys_recv, sys_send, sys_set_int, sys_socket, sys_socket_error,
    sys_unacknowledged,
)

cdef enum:
    ASK = 64                # bytes of a question of Churn, and of its answer
    RETRY_NS = 1000000      # after a connection that could not even begin

cdef uint32_t ONCE = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
cdef uint32_t OVER = EPOLLRDHUP | EPOLLHUP | EPOLLERR


cdef class Exchange(Client):
    """Ping-pong: on each connection `size` bytes there and `size` bytes back. Without a rate the next follows the answer."""
    cdef uint32_t size
    cdef double apart_ns            # of two requests, over all connections; 0: no rate
    cdef uint64_t origin            # when the schedule began
    cdef uint64_t released
    cdef uint8_t* question

    def __init__(self, list fds, uint32_t size, double rate=0):
        if not size:
            raise ValueError("size: expected at least 1 byte")
        self.size = size
        self.apart_ns = 1e9 / rate if rate else 0
        self.question = <uint8_t*>calloc(1, size)
        if self.question == NULL:
            raise MemoryError
        self.watch(ONCE)

    def __dealloc__(self):
        free(self.question)

    cdef uint64_t due(self, uint64_t number) noexcept nogil:
        return self.origin + <uint64_t>(<double>number * self.apart_ns)

    cdef uint64_t release(self, uint64_t now) noexcept nogil:
        if not self.origin:
            self.origin = now
        if self.apart_ns == 0:
            while self.released < self.count:
                self.demand(&self.slots[self.released], now)
            return NEVER
        while self.due(self.released) <= now:
            self.demand(&self.slots[self.released % self.count], self.due(self.released))
        return self.due(self.released)

    cdef void demand(self, Slot* slot, uint64_t since) noexcept nogil:
        """The next request is due on this connection, whether or not it has answered the one before."""
        if slot.fd < 0:
            self.errnos[slot.error] += 1
        else:
            self.outstanding += 1
            if slot.waiting:
                slot.backlog += 1
            else:
                slot.number = self.released
                self.ask(slot, since)
        self.released += 1

    cdef void ask(self, Slot* slot, uint64_t since) noexcept nogil:
        slot.since = since
        slot.waiting = True
        slot.to_send = slot.to_receive = self.size
        self.send(slot)

    cdef void send(self, Slot* slot) noexcept nogil:
        cdef ssize_t n
        while slot.to_send:
            n = sys_send(slot.fd, self.question, slot.to_send, 0)
            if n < 0:
                if n != -EAGAIN:
                    self.lose(slot, <int>-n)
                return
            slot.to_send -= <uint32_t>n

    cdef void handle(self, Slot* slot, uint32_t happened) noexcept nogil:
        cdef ssize_t n
        if slot.fd >= 0 and slot.to_send:
            self.send(slot)
        while slot.fd >= 0 and slot.waiting:
            n = sys_recv(slot.fd, self.buffer, min(slot.to_receive, <uint32_t>CHUNK), 0)
            if n == -EAGAIN:
                break
            if n <= 0:
                self.lose(slot, <int>-n)
                return
            slot.to_receive -= <uint32_t>n
            if slot.to_receive == 0:
                self.complete(slot)
                break       # the next answer has an edge of its own
        if slot.fd >= 0 and happened & OVER:
            self.lose(slot, sys_socket_error(slot.fd))

    cdef void complete(self, Slot* slot) noexcept nogil:
        cdef uint64_t now = sys_now_ns()
        slot.waiting = False
        self.answered(slot.since, now)
        if slot.backlog:
            slot.backlog -= 1
            slot.number += self.count
            self.ask(slot, self.due(slot.number))
        elif self.apart_ns == 0 and not self.closing:
            self.outstanding += 1
            self.ask(slot, now)

    cdef void give_up(self, uint64_t now) noexcept nogil:
        cdef uint32_t i
        cdef uint64_t behind
        for i in range(self.count):
            if self.slots[i].waiting:
                self.ignored(self.slots[i].since, now)
                for behind in range(1, self.slots[i].backlog + 1):
                    self.ignored(self.due(self.slots[i].number + behind * self.count), now)


cdef class Churn(Client):
    """`total` connections, in each slot one after the other: connect, ask, read the answer, close."""
    cdef sockaddr_storage peer
    cdef socklen_t peer_size
    cdef uint64_t unborn

    def __init__(self, list fds, str host, int port, uint64_t total):
        cdef Addr address
        if any(fd != -1 for fd in fds):
            raise ValueError("fds: expected -1 for each slot, because the connections are made here")
        addr_from_python(&address, host, port)
        self.peer_size = addr_to_sockaddr(&address, &self.peer)
        self.alive = self.unborn = total

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            if self.slots[i].fd >= 0:
                sys_close(self.slots[i].fd)

    cdef uint64_t release(self, uint64_t now) noexcept nogil:
        cdef uint32_t i
        cdef int answer
        for i in range(self.count):
            if self.slots[i].fd >= 0 or not self.unborn or now >= self.until:
                continue
            self.unborn -= 1
            answer = self.dial(&self.slots[i], i)
            if answer < 0:
                self.alive -= 1
                self.errnos[-answer] += 1
                return now + RETRY_NS
        return NEVER

    cdef int dial(self, Slot* slot, uint32_t i) noexcept nogil:
        """0 or -errno; the connection is the slot's."""
        cdef uint64_t since = sys_now_ns()
        cdef int fd = sys_socket(self.peer.ss_family), answer
        if fd < 0:
            return fd
        sys_set_int(fd, SOL_TCP, TCP_NODELAY, 1)
        answer = sys_connect(fd, &self.peer, self.peer_size)
        if answer == 0 or answer == -EINPROGRESS:
            answer = sys_epoll_set(self.epoll, EPOLL_CTL_ADD, fd, ONCE, i)
        if answer < 0:
            sys_close(fd)
            return answer
        slot.fd = fd
        slot.since = since
        slot.waiting = True
        slot.to_send = slot.to_receive = ASK
        self.outstanding += 1
        return 0

    cdef void handle(self, Slot* slot, uint32_t happened) noexcept nogil:
        cdef int fd = slot.fd
        cdef ssize_t n
        if slot.to_send:
            n = sys_send(fd, self.buffer, slot.to_send, 0)     # of an attempt that failed: its error
            if n < 0:
                if n != -EAGAIN:
                    self.lose(slot, <int>-n)
                    sys_close(fd)
                return
            slot.to_send -= <uint32_t>n
            if not happened & (EPOLLIN | OVER):
                return
        while slot.to_receive:
            n = sys_recv(fd, self.buffer, slot.to_receive, 0)
            if n == -EAGAIN:
                return
            if n <= 0:
                self.lose(slot, <int>-n)
                sys_close(fd)
                return
            slot.to_receive -= <uint32_t>n
        self.end(slot)
        self.answered(slot.since, sys_now_ns())

    cdef void end(self, Slot* slot) noexcept nogil:
        sys_close(slot.fd)
        slot.fd = -1
        slot.waiting = False
        self.alive -= 1

    cdef void give_up(self, uint64_t now) noexcept nogil:
        cdef uint32_t i
        for i in range(self.count):
            if self.slots[i].fd >= 0:
                self.end(&self.slots[i])
                self.ignored(self.slots[i].since, now)


cdef class Bulk(Client):
    """As many bytes as go through, on each connection, in one direction.

    What arrives is discarded in the kernel (MSG_TRUNC) unless `copy`: it costs this end less than any program that reads.
    """
    cdef bint up
    cdef int flags

    def __init__(self, list fds, bint up, bint copy=False):
        self.up = up
        self.flags = 0 if copy else MSG_TRUNC
        self.watch(EPOLLOUT if up else EPOLLIN)

    def moved(self):
        """Bytes that were sent or received so far."""
        return sum(self.slots[i].moved for i in range(self.count))

    def arrived(self):
        """The same without what the peer's kernel has not acknowledged."""
        return self.moved() - sum(self.queued(self.slots[i].fd) for i in range(self.count))

    cdef uint64_t queued(self, int fd) noexcept nogil:
        return max(sys_unacknowledged(fd), 0) if self.up and fd >= 0 else 0

    cdef void handle(self, Slot* slot, uint32_t happened) noexcept nogil:
        cdef uint64_t queued
        cdef ssize_t n = sys_send(slot.fd, self.buffer, CHUNK, 0) if self.up else sys_recv(slot.fd, self.buffer, CHUNK, self.flags)
        if n > 0:
            slot.moved += <uint64_t>n
        elif n != -EAGAIN:
            queued = self.queued(slot.fd)
            slot.moved -= min(queued, slot.moved)
            self.lose(slot, <int>-n)
