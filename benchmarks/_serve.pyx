"""The server of the load generator: echo, sink and source in one thread with one epoll that holds no GIL.

Owns: the connections that it accepts. The listeners stay their giver's.
Built as benchmarks._serve when RELAY_PROBE=1; never shipped.
"""

import os

from libc.errno cimport EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from relaycore._libc cimport (
    EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CTL_ADD, MSG_TRUNC, epoll_event, sockaddr_storage,
)
from relaycore._sys cimport sys_accept, sys_close, sys_epoll, sys_epoll_set, sys_epoll_wait, sys_recv, sys_send

cdef enum Role:
    ECHO
    SINK
    SOURCE
    ROLES
    STOP = ROLES

cdef enum:
    BATCH = 256
    CHUNK = 262144
    FOREVER = -1

cdef uint32_t OVER = EPOLLRDHUP | EPOLLHUP | EPOLLERR


cdef struct Peer:
    Role role
    bint listens
    uint64_t moved          # bytes received; by a source, sent
    uint8_t* held           # what an echo could not send at once: malloc'd, freed when it has gone or the connection ends
    size_t held_size
    size_t held_sent


cdef class Server:
    """Serves until its stop descriptor says something or ends."""
    cdef int epoll
    cdef int flags
    cdef uint32_t capacity
    cdef Peer* peers        # by descriptor
    cdef uint8_t* buffer
    cdef uint64_t connections[ROLES]
    cdef uint64_t moved[ROLES]
    cdef uint32_t events_of[ROLES]
    cdef epoll_event events[BATCH]

    def __cinit__(self, int echo, int sink, int source, int stop, uint32_t descriptors, bint copy=False):
        cdef int fd, error
        self.epoll = sys_epoll()
        self.capacity = descriptors
        self.flags = 0 if copy else MSG_TRUNC
        self.peers = <Peer*>calloc(descriptors, sizeof(Peer))
        self.buffer = <uint8_t*>calloc(1, CHUNK)
        if self.peers == NULL or self.buffer == NULL:
            raise MemoryError
        # An echo asks and answers in turns: edges. The others have always more to do: levels, so that all get their turn.
        self.events_of[<int>ECHO] = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
        self.events_of[<int>SINK] = EPOLLIN
        self.events_of[<int>SOURCE] = EPOLLOUT
        for role, fd in enumerate((echo, sink, source, stop)):
            self.peers[fd].role = role
            self.peers[fd].listens = role != STOP
            error = -sys_epoll_set(self.epoll, EPOLL_CTL_ADD, fd, EPOLLIN, fd)
            if error:
                raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        cdef uint32_t fd
        if self.epoll > 0:
            sys_close(self.epoll)
        if self.peers != NULL:
            for fd in range(self.capacity):
                free(self.peers[fd].held)
        free(self.peers)
        free(self.buffer)

    def run(self):
        """OSError when descriptors or memory run out: a server that goes on without would be the limit."""
        cdef int error
        with nogil:
            error = -self.turns()
        if error:
            raise OSError(error, os.strerror(error))

    def totals(self):
        """Connections accepted and bytes moved, by role."""
        return {
            name: {"connections": self.connections[role], "bytes": self.moved[role]}
            for role, name in enumerate(("echo", "sink", "source"))
        }

    cdef int turns(self) noexcept nogil:
        """0 when told to stop, or -errno."""
        cdef int i, n, fd, answer
        while True:
            n = sys_epoll_wait(self.epoll, self.events, BATCH, FOREVER)
            if n < 0:
                return n
            for i in range(n):
                fd = <int>self.events[i].data.u64
                if self.peers[fd].role == STOP:
                    return 0
                if self.peers[fd].listens:
                    answer = self.accept(fd, self.peers[fd].role)
                    if answer < 0:
                        return answer
                elif not self.serve(fd, &self.peers[fd], self.events[i].events):
                    self.end(fd, &self.peers[fd])

    cdef int accept(self, int listener, Role role) noexcept nogil:
        """All that wait. TCP_NODELAY is inherited from the listener."""
        cdef sockaddr_storage whom
        cdef int fd, answer
        while True:
            fd = sys_accept(listener, &whom)
            if fd < 0:
                return fd if fd in (-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM) else 0
            if <uint32_t>fd >= self.capacity:
                sys_close(fd)
                return -EMFILE
            memset(&self.peers[fd], 0, sizeof(Peer))
            self.peers[fd].role = role
            self.connections[<int>role] += 1
            answer = sys_epoll_set(self.epoll, EPOLL_CTL_ADD, fd, self.events_of[<int>role], fd)
            if answer < 0:
                return answer

    cdef void end(self, int fd, Peer* peer) noexcept nogil:
        free(peer.held)
        peer.held = NULL
        sys_close(fd)

    cdef bint serve(self, int fd, Peer* peer, uint32_t happened) noexcept nogil:
        """Whether the connection goes on."""
        cdef ssize_t n
        if peer.role == ECHO:
            return self.echo(fd, peer, happened)
        if peer.role == SOURCE:
            n = sys_send(fd, self.buffer, CHUNK, 0)
        else:
            n = sys_recv(fd, self.buffer, CHUNK, self.flags)
            if n == 0:
                self.tell(fd, peer)
        if n > 0:
            self.count(peer, n)
        return n > 0 or n == -EAGAIN

    cdef void count(self, Peer* peer, ssize_t n) noexcept nogil:
        peer.moved += <uint64_t>n
        self.moved[<int>peer.role] += <uint64_t>n

    cdef void tell(self, int fd, Peer* peer) noexcept nogil:
        """How much a sink has received."""
        cdef char text[32]
        cdef int size = snprintf(text, sizeof(text), "%llu", <unsigned long long>peer.moved)
        sys_send(fd, text, size, 0)

    cdef bint echo(self, int fd, Peer* peer, uint32_t happened) noexcept nogil:
        cdef ssize_t n
        while True:
            if peer.held != NULL and not self.flush(fd, peer):
                return False
            if peer.held != NULL:
                return True     # until it can send: there is an edge then
            n = sys_recv(fd, self.buffer, CHUNK, 0)
            if n == -EAGAIN:
                return True
            if n <= 0:
                return False
            self.count(peer, n)
            if not self.send(fd, peer, n):
                return False
            if n < CHUNK and peer.held == NULL and not happened & OVER:
                return True     # a short read: nothing more has come, and what comes has an edge of its own

    cdef bint send(self, int fd, Peer* peer, ssize_t size) noexcept nogil:
        """Send the buffer, and hold what does not go."""
        cdef ssize_t n = sys_send(fd, self.buffer, size, 0)
        if n == size:
            return True
        if n < 0 and n != -EAGAIN:
            return False
        n = max(n, 0)
        peer.held = <uint8_t*>malloc(size - n)
        if peer.held == NULL:
            return False
        memcpy(peer.held, self.buffer + n, size - n)
        peer.held_size = size - n
        peer.held_sent = 0
        return True

    cdef bint flush(self, int fd, Peer* peer) noexcept nogil:
        cdef ssize_t n = sys_send(fd, peer.held + peer.held_sent, peer.held_size - peer.held_sent, 0)
        if n < 0:
            return n == -EAGAIN
        peer.held_sent += n
        if peer.held_sent == peer.held_size:
            free(peer.held)
            peer.held = NULL
        return True
