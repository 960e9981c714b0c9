# Dialling: the socket towards the origin, from socket() to connected or to the reason why not.
#
# Owns: the options of dialled sockets, and what a failed dial is called.
# Who may touch it: _accept begins a dial, _step goes on with it.
# Never here: a second origin. What cannot be reached is passed on to the client as a reset.

from libc.errno cimport (
    EACCES, EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINPROGRESS, EMFILE, ENETDOWN,
    ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EPERM, EPIPE, ETIMEDOUT,
)
from libc.stdint cimport uint8_t

from relaycore._addr cimport addr_is_v4, addr_to_sockaddr
from relaycore._close cimport flow_close
from relaycore._core cimport SPARE_FOR_DIAL, Listener, Worker, spare_spend
from relaycore._flow cimport CLIENT, FAILED, HUP, ORIGIN, RELAYING, WRITABLE, Flow
from relaycore._mailbox cimport Settings
from relaycore._spoof cimport bind_as_client
from relaycore._stats cimport (
    CLIENT_LEFT, CONNECT_TIMEOUT, COUNTER_COUNT, COUNT_FILES_LIMITED, COUNT_MEMORY_LIMITED, COUNT_PORTS_LIMITED, ERROR, LIMIT,
    REFUSED, UNREACHABLE, Counter, Reason, count, count_dial_error,
)
from relaycore._libc cimport (
    AF_INET, AF_INET6, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLL_CTL_ADD, SOL_SOCKET, SOL_TCP, SO_KEEPALIVE,
    SO_MARK, SO_OOBINLINE, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY, sockaddr_storage, socklen_t,
)
from relaycore._sys cimport sys_connect, sys_epoll_set, sys_set_int, sys_socket, sys_socket_error
from relaycore._table cimport flow_token, table_index
from relaycore._wheel cimport wheel_put


cdef inline Reason dial_reason(int error) noexcept nogil:
    """What a user calls it."""
    if error == ECONNREFUSED:
        return REFUSED
    if error == ETIMEDOUT:
        return CONNECT_TIMEOUT
    if error in (EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ENETDOWN, EACCES, EPERM):
        return UNREACHABLE
    if limit_of(error) != COUNTER_COUNT:
        return LIMIT
    return ERROR


cdef inline Counter limit_of(int error) noexcept nogil:
    """Which limit of the system an errno speaks of; COUNTER_COUNT: of none."""
    if error == EMFILE or error == ENFILE:
        return COUNT_FILES_LIMITED
    if error in (ENOBUFS, ENOMEM, ENOSPC):
        return COUNT_MEMORY_LIMITED
    if error == EADDRNOTAVAIL or error == EADDRINUSE:
        return COUNT_PORTS_LIMITED
    return COUNTER_COUNT


cdef inline void count_limit(Worker* w, int error) noexcept nogil:
    cdef Counter limit = limit_of(error)
    if limit != COUNTER_COUNT:
        count(w.stats, limit)


cdef inline void dial_failed(Worker* w, Flow* flow, int error) noexcept nogil:
    flow.error = <short>error
    count_dial_error(w.stats, error)
    count_limit(w, error)
    flow_close(w, flow, dial_reason(error))


cdef inline int side_register(Worker* w, Flow* flow, int side) noexcept nogil:
    """Into epoll, once for the socket's life, edge-triggered. 0 or -errno."""
    return sys_epoll_set(
        w.epoll, EPOLL_CTL_ADD, flow.side[side].fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
        flow_token(table_index(&w.table, flow), flow.generation, side),
    )


cdef inline int dial_options(const Settings* settings, int fd) noexcept nogil:
    """0 or -errno. The client's side has inherited the same from its listener."""
    cdef int answer
    if settings.mark != 0:
        # Without the mark the rules would send this socket back to us: that must not be ignored.
        answer = sys_set_int(fd, SOL_SOCKET, SO_MARK, <int>settings.mark)
        if answer < 0:
            return answer
    sys_set_int(fd, SOL_TCP, TCP_NODELAY, 1)
    sys_set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1)
    return 0


cdef inline void keep_alive(const Settings* settings, Flow* flow) noexcept nogil:
    """Have the kernel probe both peers from now on, if that is wanted."""
    cdef int side
    flow.kept_alive = True
    for side in range(2 if settings.keepalive_time_s != 0 else 0):
        sys_set_int(flow.side[side].fd, SOL_SOCKET, SO_KEEPALIVE, 1)
        # In this order the silence that there was so far counts.
        sys_set_int(flow.side[side].fd, SOL_TCP, TCP_KEEPIDLE, settings.keepalive_time_s)
        sys_set_int(flow.side[side].fd, SOL_TCP, TCP_KEEPINTVL, settings.keepalive_interval_s)
        sys_set_int(flow.side[side].fd, SOL_TCP, TCP_KEEPCNT, settings.keepalive_probes)


cdef inline int socket_or_spare(Worker* w, int family) noexcept nogil:
    """A connection that took the last descriptor at accept() still gets its second one. Accepting waits for a new spare."""
    cdef int answer = sys_socket(family)
    if (answer == -EMFILE or answer == -ENFILE) and spare_spend(w, SPARE_FOR_DIAL):
        answer = sys_socket(family)
    return answer


cdef inline void dial(Worker* w, Flow* flow) noexcept nogil:
    """Begin to connect to flow.origin. The flow may be closed when this returns."""
    cdef Listener* listener = &w.shared.listeners[flow.listener]
    cdef sockaddr_storage origin
    cdef socklen_t size = addr_to_sockaddr(&flow.origin, &origin)
    cdef int answer = socket_or_spare(w, AF_INET if addr_is_v4(&flow.origin) else AF_INET6)
    if answer < 0:
        dial_failed(w, flow, -answer)
        return
    flow.side[ORIGIN].fd = answer
    answer = dial_options(w.settings, flow.side[ORIGIN].fd)
    if answer == 0 and listener.preserve_client:
        answer = bind_as_client(w, flow)
    if answer == 0:
        answer = sys_connect(flow.side[ORIGIN].fd, &origin, size)
    if answer == 0 or answer == -EINPROGRESS:
        answer = side_register(w, flow, ORIGIN)
    if answer < 0:
        dial_failed(w, flow, -answer)
    elif w.settings.connect_timeout_ns != 0:
        wheel_put(&w.wheel, table_index(&w.table, flow), flow.started_ns + w.settings.connect_timeout_ns)


cdef inline void look_after_client(Worker* w, Flow* flow) noexcept nogil:
    """EPOLLERR on the client while the origin has not answered: if it is gone, the dial ends with it."""
    cdef int error = sys_socket_error(flow.side[CLIENT].fd)
    flow.side[CLIENT].ready &= <uint8_t>~FAILED
    if error != 0:
        flow.error = <short>(error if error > 0 else -error)
        flow_close(w, flow, CLIENT_LEFT)


cdef inline void dial_step(Worker* w, Flow* flow) noexcept nogil:
    """An event came while dialling: the origin has answered, the client has gone, or neither.

    The origin first: once it is connected, what the client sent before its reset belongs to the origin.
    """
    cdef uint8_t heard = flow.side[ORIGIN].ready
    cdef int error
    if not heard & (WRITABLE | FAILED | HUP):
        if flow.side[CLIENT].ready & FAILED:
            look_after_client(w, flow)
        return
    if heard & (FAILED | HUP):
        error = sys_socket_error(flow.side[ORIGIN].fd)
        flow.side[ORIGIN].ready &= <uint8_t>~FAILED
        if error == ECONNRESET or error == EPIPE:
            # It was made, and reset before this worker looked: what came before the reset is still to be read.
            flow.side[ORIGIN].error = <short>error
        elif error != 0:
            dial_failed(w, flow, error if error > 0 else -error)
            return
    flow.phase = RELAYING
    flow.connected_ns = w.gear.now_ns
    flow.active_ns = w.gear.now_ns
    flow.side[ORIGIN].ready |= WRITABLE
