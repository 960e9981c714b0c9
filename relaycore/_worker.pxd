# A worker's loop: wait, note what is ready, give every flow that has something to do its turn, look at the time, read the mail.
#
# Some facts about epoll, and what we chose.
# - A socket is registered once, edge-triggered, for everything. What an event says is added to Side.ready, and only a call that
#   says EAGAIN takes it away. So a flow can be stepped at any time, and an event costs no system call beyond epoll_wait.
# - An edge is told once: one lost readiness is a flow that stands still for ever. Debug builds sweep for it (_sweep).
# - Events of one batch may speak of a flow that an earlier one of them ended, or of its slot's next tenant. The token holds the
#   slot's generation, and slots become free at the end of the batch.
# - Listening sockets are level-triggered: a bounded number is accepted per turn, the rest is told again.
# - epoll tells who is ready, not who is in a hurry. So bulk waits for the others, and while there are any,
#   their turns are short. Neither starves: each flow that is ready has a turn, bulk has at least the time that the others had.
#
# Owns: the order of things within a turn.
# Who may touch it: _engine starts worker_run() in a thread of its own.
# Never here: Python. The loop runs from start to end without the GIL.

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from relaycore._accept cimport ACCEPT_BATCH, accept_end, accept_goes_on, accept_pause_look, accept_some, accept_stop
from relaycore._answer cimport answer_all
from relaycore._ask cimport batch_has_work
from relaycore._atomic cimport atomic_acquire, atomic_add, atomic_load, atomic_release, atomic_swap
from relaycore._check cimport RELAY_CHECK, RELAY_DEBUG
from relaycore._close cimport flow_close
from relaycore._core cimport (
    BATCH_EVENTS, TOKEN_BELL, TOKEN_SOCKET, Queue, Worker, queue_holds, queue_pop, queue_push, special_token,
)
from relaycore._flow cimport (
    ANNOUNCED, CLOSED, DIALLING, FAILED, HUP, RDHUP, READABLE, RELAYING, URGENT, WRITABLE, Flow,
)
from relaycore._libc cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from relaycore._mailbox cimport CARRY_ON, STOP, Settings, Snapshot, mailbox_hush, settings_free
from relaycore._stats cimport COUNT_TURNS, DRAINED, count
from relaycore._step cimport flow_expire, flow_schedule, flow_step
from relaycore._sweep cimport sweep
from relaycore._sys cimport sys_block_signals, sys_epoll_wait, sys_eventfd_ring, sys_now_ns
from relaycore._table cimport table_bury, table_find, table_reap
from relaycore._transfer cimport flow_is_released, flow_leave, take_arrivals
from relaycore._wheel cimport NO_ENTRY, wheel_catch_up, wheel_next_ns, wheel_pop


cdef enum:
    # A question that comes while bulk has its turn waits for the end of it: with 512 KiB a third longer than with this.
    BESIDE_TURN_BYTES = 128 * 1024
    # For so long after its last turn a flow that is no bulk is expected to come again.
    BESIDE_NS = 1000000
    # Bulk among itself asks epoll only now and then.
    ALONE_NS = 250000


cdef inline uint8_t ready_of(uint32_t events) noexcept nogil:
    """What an event adds to Side.ready. RDHUP and HUP also say that a read has something to tell."""
    cdef uint8_t ready = 0
    if events & EPOLLIN:
        ready |= READABLE | ANNOUNCED
    if events & EPOLLOUT:
        ready |= WRITABLE
    if events & EPOLLPRI:
        ready |= URGENT
    if events & EPOLLRDHUP:
        ready |= RDHUP | READABLE
    if events & EPOLLHUP:
        ready |= HUP | READABLE | WRITABLE
    if events & EPOLLERR:
        ready |= FAILED | READABLE | WRITABLE
    return ready


cdef inline void take_settings(Worker* w) noexcept nogil:
    """New settings are in force from here on; time-outs that became shorter are put on the wheel anew."""
    cdef Settings* fresh = <Settings*>atomic_swap(&w.mailbox.settings, NULL)
    cdef Flow* flow
    cdef uint32_t i
    if fresh == NULL:
        return
    settings_free(w.settings)
    w.settings = fresh
    for i in range(w.table.touched):
        flow = &w.table.flows[i]
        if flow.phase == DIALLING or flow.phase == RELAYING:
            flow_schedule(w, flow)


cdef inline void answer_snapshot(Worker* w) noexcept nogil:
    """Copy the live flows. Between two batches, so that each is whole."""
    cdef Snapshot* snapshot = <Snapshot*>atomic_swap(&w.mailbox.snapshot, NULL)
    cdef Flow* flow
    cdef uint32_t i
    cdef int bell
    if snapshot == NULL:
        return
    for i in range(w.table.touched):
        flow = &w.table.flows[i]
        if flow.phase == DIALLING or flow.phase == RELAYING:
            if snapshot.count < snapshot.capacity:
                snapshot.flows[snapshot.count] = flow[0]
            snapshot.count += 1
    bell = snapshot.bell
    atomic_release(&snapshot.answered, 1)   # from here on it may be gone
    sys_eventfd_ring(bell)


cdef inline void stop_flows(Worker* w) noexcept nogil:
    cdef Flow* flow
    cdef uint32_t i
    for i in range(w.table.touched):
        flow = &w.table.flows[i]
        if flow.phase == DIALLING or flow.phase == RELAYING:
            flow_close(w, flow, DRAINED)


cdef inline void read_mail(Worker* w) noexcept nogil:
    cdef uint64_t order
    mailbox_hush(&w.mailbox)
    take_settings(w)
    take_arrivals(w)
    answer_snapshot(w)
    order = atomic_load(&w.mailbox.order)
    if order != CARRY_ON:
        w.draining = True
    if order == STOP:
        accept_stop(w)
        stop_flows(w)


cdef struct News:               # what a batch of events brought beside readiness
    bint mail
    bint callers


cdef inline bint is_socket(uint64_t token) noexcept nogil:
    return token >> 32 == special_token(TOKEN_SOCKET, 0) >> 32


cdef inline News take_events(Worker* w, int n) noexcept nogil:
    """Note what each event says. Flows wait for their turn until all events of the batch are noted."""
    cdef News news
    cdef uint64_t token
    cdef Flow* flow
    cdef int i
    news.mail = False
    news.callers = False
    for i in range(n):
        token = w.events[i].data.u64
        if token == special_token(TOKEN_BELL, 0):
            news.mail = True
        elif is_socket(token):
            news.callers = True
        else:
            flow = table_find(&w.table, token)
            if flow != NULL:
                flow.side[token & 1].ready |= ready_of(w.events[i].events)
                queue_push(w, flow)
    return news


cdef inline void take_callers(Worker* w, int n) noexcept nogil:
    """After the mail: an order to stop comes before those who wait at the door."""
    cdef int i
    for i in range(n):
        if is_socket(w.events[i].data.u64):
            accept_some(w, <uint32_t>w.events[i].data.u64, ACCEPT_BATCH)


cdef struct Share:              # of bulk in a turn of the worker; it has one flow's turn at least
    uint32_t turn_bytes
    uint64_t until_ns           # when to ask epoll who else has come


cdef inline Share bulk_share(uint32_t turn_bytes, uint64_t begun_ns, uint64_t now_ns, uint64_t brisk_ns) noexcept nogil:
    """As much time as the others had since begun_ns, in short turns; among itself, longer turns and more of them."""
    cdef Share share
    share.turn_bytes = turn_bytes
    share.until_ns = now_ns + (now_ns - begun_ns)
    if begun_ns >= brisk_ns + BESIDE_NS:
        share.until_ns += ALONE_NS
    elif turn_bytes > BESIDE_TURN_BYTES:
        share.turn_bytes = BESIDE_TURN_BYTES
    return share


cdef inline void run_one(Worker* w, Queue* queue, uint32_t turn_bytes) noexcept nogil:
    cdef Flow* flow = queue_pop(w, queue)
    if flow.phase == CLOSED:
        table_bury(&w.table, flow)
        return
    flow_step(w, flow, turn_bytes)
    if w.batch != NULL and flow_is_released(flow):
        flow_leave(w, flow)


cdef inline void run_queue(Worker* w) noexcept nogil:
    """At most one turn for each flow that is queued now; one that has more to do goes to the back. Bulk comes last."""
    cdef uint32_t turns = w.brisk.length
    cdef uint64_t begun_ns = w.gear.now_ns
    cdef Share share
    if turns > 0:
        w.brisk_ns = begun_ns
    while turns > 0:
        turns -= 1
        run_one(w, &w.brisk, w.turn_bytes)
    turns = w.bulk.length
    if turns == 0:
        return
    w.gear.now_ns = sys_now_ns()
    share = bulk_share(w.turn_bytes, begun_ns, w.gear.now_ns, w.brisk_ns)
    while turns > 0:
        turns -= 1
        run_one(w, &w.bulk, share.turn_bytes)
        w.gear.now_ns = sys_now_ns()
        if w.gear.now_ns >= share.until_ns:
            return


cdef inline void run_timers(Worker* w) noexcept nogil:
    cdef uint32_t i = wheel_pop(&w.wheel, w.gear.now_ns)
    while i != NO_ENTRY:
        flow_expire(w, &w.table.flows[i])
        i = wheel_pop(&w.wheel, w.gear.now_ns)
    accept_pause_look(w)


cdef inline int sleep_ms(Worker* w) noexcept nogil:
    """How long the worker may wait: not at all with work queued, at most to the next timer. -1: until something happens."""
    cdef uint64_t until
    cdef uint64_t now
    if queue_holds(w) or batch_has_work(w):
        return 0
    until = wheel_next_ns(&w.wheel)
    if w.paused_since_ns != 0 and (until == 0 or w.pause_look_ns < until):
        until = w.pause_look_ns
    if until == 0:
        return -1
    now = sys_now_ns()
    # Rounded up: a worker that wakes too early would turn until the time has come.
    return <int>((until - now + 999999) // 1000000) if until > now else 0


cdef inline int worker_wait(Worker* w, int timeout_ms) noexcept nogil:
    """Events, as sys_epoll_wait() gives them. To be woken takes some 50 us, which who may spend a CPU on it can save (busy_poll)."""
    cdef uint64_t until
    cdef int n
    if timeout_ms != 0 and w.settings.busy_poll_ns != 0:
        until = sys_now_ns() + w.settings.busy_poll_ns
        while sys_now_ns() < until:
            n = sys_epoll_wait(w.epoll, w.events, BATCH_EVENTS, 0)
            if n != 0:
                return n
    return sys_epoll_wait(w.epoll, w.events, BATCH_EVENTS, timeout_ms)


cdef inline void worker_turn(Worker* w, int timeout_ms) noexcept nogil:
    cdef News news
    cdef int n = worker_wait(w, timeout_ms)
    # Only a descriptor that is no epoll, or memory that is not ours, could make it fail.
    RELAY_CHECK(n >= 0)
    w.gear.now_ns = sys_now_ns()
    wheel_catch_up(&w.wheel, w.gear.now_ns)
    count(w.stats, COUNT_TURNS)
    news = take_events(w, n)
    if news.mail:
        read_mail(w)
    if news.callers:
        take_callers(w, n)
    run_queue(w)
    if batch_has_work(w):
        answer_all(w)
    run_timers(w)
    if w.draining:
        accept_end(w)
    table_reap(&w.table)
    if RELAY_DEBUG:
        sweep(w, n)


cdef inline bint worker_done(Worker* w) noexcept nogil:
    """Drained, and nothing will come from another worker: one with elements waits for those whose flows are elsewhere."""
    if not w.draining or w.table.used != 0 or accept_goes_on(w):
        return False
    if w.batch != NULL:
        return w.batch.away == 0 and not batch_has_work(w)
    return atomic_acquire(&w.shared.running_elements) == 0 and w.arrivals == NULL


cdef inline void elements_end(Worker* w) noexcept nogil:
    """The plain workers may have waited for this one."""
    cdef uint32_t i
    if w.batch != NULL and atomic_add(&w.shared.running_elements, <uint64_t>-1) == 0:
        for i in range(w.shared.plain_workers):
            sys_eventfd_ring((<Worker*>w.shared.workers)[i].mailbox.bell)


cdef inline void worker_run(Worker* w) noexcept nogil:
    """The life of a worker's thread. Ends after DRAIN with the last flow, after STOP at once."""
    sys_block_signals()
    while not worker_done(w):
        worker_turn(w, sleep_ms(w))
    # Nobody may be left waiting for an answer.
    answer_snapshot(w)
    elements_end(w)
    atomic_add(&w.shared.running, <uint64_t>-1)
    sys_eventfd_ring(w.shared.wake_fd)
