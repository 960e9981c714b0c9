# New connections: accepted in batches, looked at, and dialled on or refused. And what happens at a limit.
#
# A limit (max_flows, descriptors, kernel memory) pauses accepting: the backlog waits. When it lasts for PAUSE_PATIENCE, one
# connection per PAUSE_LOOK is taken by the spare descriptor and reset, so that clients learn of it before they time out.
#
# Owns: the way into the table; the listening sockets' readiness.
# Who may touch it: the worker's loop.
# Never here: a connection that is dialled although its verdict is another.

from libc.errno cimport EAGAIN, EBADF, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOTSOCK
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from relaycore._addr cimport (
    Addr, addr_from_sockaddr, addr_is_unspecified, addr_same, networks_hold, origin_of_redirected, origin_of_transparent,
)
from relaycore._ask cimport ask_opening
from relaycore._atomic cimport atomic_add, atomic_exchange, atomic_release, bump
from relaycore._check cimport RELAY_CHECK
from relaycore._close cimport flow_close
from relaycore._core cimport SLOTS, SPARE_FOR_RESET, TOKEN_SOCKET, Listener, Worker, spare_spend, spares_held, special_token
from relaycore._dial cimport count_limit, dial, limit_of, side_register
from relaycore._flow cimport CLIENT, DIALLING, TPROXY, UNCAPTURED, WRITABLE, Flow, verdict_on
from relaycore._libc cimport EPOLLIN, EPOLL_CTL_DEL, EPOLL_CTL_MOD, sockaddr_storage
from relaycore._stats cimport (
    CLIENT_LEFT, COUNTER_COUNT, COUNT_ACCEPT_ERRORS, COUNT_ACCEPT_PAUSES, COUNT_FILES_LIMITED, COUNT_FLOWS_LIMITED,
    COUNT_SHED, ERROR, LIMIT, NO_REASON, Counter, Reason, count,
)
from relaycore._sys cimport sys_accept, sys_close, sys_epoll_set, sys_reset_on_close, sys_socket_error
from relaycore._table cimport table_take

cdef enum:
    # Connections of one socket per turn: a storm of new ones does not stop the flows that there are.
    ACCEPT_BATCH = 64
    PAUSE_LOOK_NS = 10000000
    PAUSE_PATIENCE_NS = 1000000000


cdef inline bint is_own_port(const Worker* w, unsigned int port) noexcept nogil:
    cdef uint32_t i
    for i in range(w.shared.listener_count):
        if w.shared.listeners[i].port == port:
            return True
    return False


cdef inline bint origin_is_own_name(const Flow* flow) noexcept nogil:
    cdef Addr name
    return origin_of_transparent(flow.side[CLIENT].fd, &name) == 0 and addr_same(&name, &flow.origin)


cdef inline Reason flow_verdict(const Worker* w, Flow* flow) noexcept nogil:
    """Find the origin and judge: NO_REASON means relay."""
    cdef const Listener* listener = &w.shared.listeners[flow.listener]
    cdef int answer = 0
    cdef bint own_port, local
    if listener.capture == UNCAPTURED:
        flow.origin = listener.target
    elif listener.capture == TPROXY:
        answer = origin_of_transparent(flow.side[CLIENT].fd, &flow.origin)
    else:
        answer = origin_of_redirected(flow.side[CLIENT].fd, &flow.client, &flow.origin)
    flow.error = <short>-answer
    flow.origin_known = answer == 0
    own_port = flow.origin_known and is_own_port(w, flow.origin.port)
    # To dial 0.0.0.0 or :: is to dial this host.
    local = networks_hold(&w.settings.own, &flow.origin) or addr_is_unspecified(&flow.origin)
    return verdict_on(
        listener.direction, listener.capture, flow.origin_known, own_port, local, own_port and origin_is_own_name(flow),
        networks_hold(&w.settings.own, &flow.client),
    )


cdef inline Flow* flow_open(Worker* w, uint32_t listener, int fd, const sockaddr_storage* peer) noexcept nogil:
    """A flow that owns fd, for which a place was claimed; NULL when the table has no room, and fd is still the caller's."""
    cdef Flow* flow = table_take(&w.table)
    if flow == NULL:
        return NULL
    # Unique without a shared counter: worker k counts k+1, k+1+n, k+1+2n ...
    flow.id = w.flows_opened * w.workers + w.number + 1
    w.flows_opened += 1
    flow.phase = DIALLING
    flow.listener = <unsigned short>listener
    flow.started_ns = w.gear.now_ns
    flow.active_ns = w.gear.now_ns
    flow.side[CLIENT].fd = fd
    flow.side[CLIENT].ready = WRITABLE      # a fresh socket is
    addr_from_sockaddr(&flow.client, peer)
    bump(&w.stats.listeners[listener].opened, 1)
    return flow


cdef inline void flow_begin(Worker* w, Flow* flow) noexcept nogil:
    """Refuse the connection or dial on, once its elements agree."""
    cdef int error = sys_socket_error(flow.side[CLIENT].fd)
    cdef Reason reason
    if error != 0:
        # accept() succeeds on a connection that was reset in the backlog: nobody is there to be dialled for.
        flow.error = <short>(error if error > 0 else -error)
        flow_close(w, flow, CLIENT_LEFT)
        return
    reason = flow_verdict(w, flow)
    if reason != NO_REASON:
        flow_close(w, flow, reason)
        return
    error = side_register(w, flow, CLIENT)
    if error < 0:
        flow.error = <short>-error
        count_limit(w, -error)
        flow_close(w, flow, LIMIT if limit_of(-error) != COUNTER_COUNT else ERROR)
        return
    if not w.shared.listeners[flow.listener].elements:
        dial(w, flow)
    elif not ask_opening(w, flow):
        flow_close(w, flow, LIMIT)


cdef inline void place_claim(Worker* w) noexcept nogil:
    atomic_add(&w.shared.live, 1)


cdef inline void place_return(Worker* w) noexcept nogil:
    """Of a claim that became no flow; a flow's own place is given back when it closes."""
    atomic_add(&w.shared.live, <uint64_t>-1)


cdef inline bint place_claimed(Worker* w) noexcept nogil:
    """Claim a place for one flow, if max_flows and the table allow it. Claimed first, so that two workers cannot share the last."""
    if w.table.used >= w.table.capacity - 1:
        return False
    if atomic_add(&w.shared.live, 1) <= w.settings.max_flows:
        return True
    place_return(w)
    return False


cdef inline void accept_watch(Worker* w, bint on) noexcept nogil:
    cdef uint32_t i
    for i in range(w.socket_count):
        if w.sockets[i].fd >= 0:
            sys_epoll_set(w.epoll, EPOLL_CTL_MOD, w.sockets[i].fd, EPOLLIN if on else 0, special_token(TOKEN_SOCKET, i))


cdef inline void accept_pause(Worker* w, Counter limit) noexcept nogil:
    """A limit was met. Listening sockets are level-triggered: what waits is seen again when the pause ends."""
    w.pause_look_ns = w.gear.now_ns + PAUSE_LOOK_NS
    if w.paused_since_ns == 0:
        w.paused_since_ns = w.gear.now_ns
        count(w.stats, COUNT_ACCEPT_PAUSES)
        count(w.stats, limit)
        accept_watch(w, False)


cdef inline void accept_close(Worker* w, uint32_t which) noexcept nogil:
    if w.sockets[which].fd >= 0:
        # Whoever handed the socket over may hold it too, and while anybody does, epoll goes on reporting it.
        sys_epoll_set(w.epoll, EPOLL_CTL_DEL, w.sockets[which].fd, 0, 0)
        sys_close(w.sockets[which].fd)
        w.sockets[which].fd = -1


cdef inline int accept_failed(Worker* w, uint32_t which, int error) noexcept nogil:
    """As accept_one(), after accept4() said error."""
    if error == EAGAIN:
        return 0
    if error in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
        return -error
    count(w.stats, COUNT_ACCEPT_ERRORS)
    if error in (EINVAL, EBADF, ENOTSOCK):
        # It listens no more (shut down through another descriptor, or killed), and would be reported for ever.
        accept_close(w, which)
        return 0
    return 1


cdef inline int accept_one(Worker* w, uint32_t which) noexcept nogil:
    """1: accepted (or lost, and counted). 0: nobody waits. -errno: a limit. A place was claimed before."""
    cdef sockaddr_storage peer
    cdef Flow* flow
    cdef int fd
    memset(&peer, 0, sizeof(sockaddr_storage))
    fd = sys_accept(w.sockets[which].fd, &peer)
    if fd < 0:
        place_return(w)
        return accept_failed(w, which, -fd)
    flow = flow_open(w, w.sockets[which].listener, fd, &peer)
    RELAY_CHECK(flow != NULL)
    flow_begin(w, flow)
    return 1


cdef inline int accept_some(Worker* w, uint32_t which, uint32_t most) noexcept nogil:
    """As accept_one() for the last connection of at most `most`; pauses at a limit."""
    cdef int answer = 1
    cdef uint32_t _i
    for _i in range(most):
        if w.sockets[which].fd < 0:
            return 0
        if w.batch != NULL and w.batch.count == SLOTS:
            return 1        # whoever waits is seen again once elements have answered
        if not spares_held(w):
            accept_pause(w, COUNT_FILES_LIMITED)
            return -EMFILE
        if not place_claimed(w):
            accept_pause(w, COUNT_FLOWS_LIMITED)
            return -ENOBUFS
        answer = accept_one(w, which)
        if answer < 0:
            accept_pause(w, limit_of(-answer))
        if answer <= 0:
            return answer
    return answer


cdef inline void shed_one(Worker* w) noexcept nogil:
    """Reset one connection that waits, in the place of the descriptor that was kept for this."""
    cdef sockaddr_storage peer
    cdef Flow* flow
    cdef uint32_t i
    cdef int fd
    spare_spend(w, SPARE_FOR_RESET)
    for i in range(w.socket_count):
        if w.sockets[i].fd < 0:
            continue
        memset(&peer, 0, sizeof(sockaddr_storage))
        fd = sys_accept(w.sockets[i].fd, &peer)
        if fd < 0:
            continue
        place_claim(w)
        flow = flow_open(w, w.sockets[i].listener, fd, &peer)
        if flow == NULL:
            place_return(w)
            sys_reset_on_close(fd)
            sys_close(fd)
        else:
            flow_close(w, flow, LIMIT)
        count(w.stats, COUNT_SHED)
        break
    spares_held(w)


cdef inline void accept_pause_look(Worker* w) noexcept nogil:
    """Time to see whether the limit is over; if it has lasted, tell one client."""
    if w.paused_since_ns == 0 or w.gear.now_ns < w.pause_look_ns:
        return
    if atomic_exchange(&w.shared.squeezed, 1) != 0:
        w.pause_look_ns = w.gear.now_ns + PAUSE_LOOK_NS
        return
    accept_resume(w)
    atomic_release(&w.shared.squeezed, 0)


cdef inline void accept_resume(Worker* w) noexcept nogil:
    """Accept again; where the limit still holds and has lasted, tell one client instead."""
    cdef uint32_t i
    for i in range(w.socket_count):
        if w.sockets[i].fd >= 0 and accept_some(w, i, ACCEPT_BATCH) < 0:
            if w.gear.now_ns >= w.paused_since_ns + PAUSE_PATIENCE_NS:
                shed_one(w)
            return
    w.paused_since_ns = 0
    accept_watch(w, True)


cdef inline void accept_stop(Worker* w) noexcept nogil:
    """Now: what waits in the backlog is reset by the kernel."""
    cdef uint32_t i
    for i in range(w.socket_count):
        accept_close(w, i)
    w.paused_since_ns = 0


cdef inline void accept_end(Worker* w) noexcept nogil:
    """Drain: what has arrived is still served, a batch per turn; a socket closes when nobody waits there, or at a limit."""
    cdef uint32_t i
    for i in range(w.socket_count):
        if w.sockets[i].fd >= 0 and accept_some(w, i, ACCEPT_BATCH) <= 0:
            accept_close(w, i)
    if not accept_goes_on(w):
        w.paused_since_ns = 0


cdef inline bint accept_goes_on(const Worker* w) noexcept nogil:
    cdef uint32_t i
    for i in range(w.socket_count):
        if w.sockets[i].fd >= 0:
            return True
    return False
