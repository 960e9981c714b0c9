# The making and freeing of a worker: its memory, its descriptors, its listening sockets.
#
# Owns: what a worker needs before its thread runs and after it has ended.
# Who may touch it: _engine, from the thread that made the engine.
# Never here: a running worker.

from libc.errno cimport EMFILE, ENOMEM
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc

from relaycore._ask cimport batch_free, batch_make
from relaycore._core cimport BATCH_EVENTS, SPARES, TOKEN_BELL, TOKEN_SOCKET, Shared, Worker, spares_held, special_token
from relaycore._libc cimport EPOLLIN, EPOLL_CTL_ADD, epoll_event
from relaycore._mailbox cimport mailbox_free, mailbox_make, settings_free
from relaycore._pipe cimport BUFFER_BYTES, buffer_pool_free, buffer_pool_make, pipe_pool_free, pipe_pool_make
from relaycore._ring cimport ring_free, ring_make
from relaycore._stats cimport Stats
from relaycore._sys cimport sys_close, sys_diag_open, sys_epoll, sys_epoll_set, sys_map, sys_now_ns, sys_unmap
from relaycore._table cimport table_free, table_make
from relaycore._transfer cimport drop_arrivals
from relaycore._wheel cimport wheel_free, wheel_make


cdef struct Sizes:              # of one worker
    uint32_t flows
    int32_t pipes
    int32_t buffers
    uint32_t turn_bytes
    uint32_t copy_bytes
    int32_t pipe_bytes
    bint elements           # it is one for flows with elements


cdef inline void worker_blank(Worker* w) noexcept nogil:
    """So that worker_free() can be called whatever happens next; the memory is zero."""
    cdef int i
    w.epoll = -1
    for i in range(SPARES):
        w.spares[i] = -1
    w.diag_fd = -1
    w.mailbox.bell = -1


cdef inline int worker_make(Worker* w, Shared* shared, uint32_t number, uint32_t workers, const Sizes* sizes) noexcept nogil:
    """0 or -errno. On failure worker_free() gives back what was made."""
    cdef int answer
    w.shared = shared
    w.number = number
    w.workers = workers
    w.turn_bytes = sizes.turn_bytes
    w.stats = <Stats*>sys_map(sizeof(Stats))
    w.gear.stats = w.stats
    w.gear.copy_bytes = sizes.copy_bytes
    w.gear.scratch = <uint8_t*>malloc(BUFFER_BYTES)
    w.gear.now_ns = sys_now_ns()
    w.events = <epoll_event*>calloc(BATCH_EVENTS, sizeof(epoll_event))
    if w.stats == NULL or w.gear.scratch == NULL or w.events == NULL:
        return -ENOMEM
    if not table_make(&w.table, sizes.flows) or not wheel_make(&w.wheel, sizes.flows, w.gear.now_ns) or not ring_make(&w.ring):
        return -ENOMEM
    if not pipe_pool_make(&w.gear.pipes, sizes.pipes, sizes.pipe_bytes) or not buffer_pool_make(&w.gear.buffers, sizes.buffers):
        return -ENOMEM
    if sizes.elements:
        w.batch = batch_make(<uint64_t>sizes.buffers * BUFFER_BYTES)
        if w.batch == NULL:
            return -ENOMEM
    answer = mailbox_make(&w.mailbox)
    if answer < 0:
        return answer
    w.epoll = sys_epoll()
    if w.epoll < 0:
        return w.epoll
    if not spares_held(w):
        return -EMFILE
    return sys_epoll_set(w.epoll, EPOLL_CTL_ADD, w.mailbox.bell, EPOLLIN, special_token(TOKEN_BELL, 0))


cdef inline int worker_listen(Worker* w, uint32_t listener, int fd) noexcept nogil:
    """0 or -errno. The worker owns fd from now on."""
    cdef uint32_t which = w.socket_count
    w.sockets[which].fd = fd
    w.sockets[which].listener = <unsigned short>listener
    w.socket_count += 1
    return sys_epoll_set(w.epoll, EPOLL_CTL_ADD, fd, EPOLLIN, special_token(TOKEN_SOCKET, which))


cdef inline int worker_prepare_spoofing(Worker* w) noexcept nogil:
    """0 or -errno. Opened at start: a dial at the descriptor limit must not go without its question."""
    if w.diag_fd < 0:
        w.diag_fd = sys_diag_open()
    return 0 if w.diag_fd >= 0 else w.diag_fd


cdef inline void close_if_open(int fd) noexcept nogil:
    if fd >= 0:
        sys_close(fd)


cdef inline void worker_free(Worker* w) noexcept:
    """Its thread has ended or never ran. With the GIL: elements may be left to free."""
    cdef uint32_t i
    cdef int k
    drop_arrivals(w)
    batch_free(w)
    settings_free(w.settings)
    mailbox_free(&w.mailbox)
    pipe_pool_free(&w.gear.pipes)
    buffer_pool_free(&w.gear.buffers)
    table_free(&w.table)
    wheel_free(&w.wheel)
    ring_free(&w.ring)
    free(w.gear.scratch)
    free(w.events)
    sys_unmap(w.stats, sizeof(Stats))
    for i in range(w.socket_count):
        close_if_open(w.sockets[i].fd)
    close_if_open(w.epoll)
    for k in range(SPARES):
        close_if_open(w.spares[k])
    close_if_open(w.diag_fd)
