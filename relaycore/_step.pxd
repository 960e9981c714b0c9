# What a flow does when it may go on: its halves move bytes, and their events run through the tables of _flow.
#
# Owns: the application of half_next(), the one dropped EPOLLIN, the look at a flow whose time has come.
# Who may touch it: the worker's loop.
# Never here: a rule that is not in the tables; a branch on which half it is.

from libc.errno cimport ECONNRESET
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from relaycore._atomic cimport bump
from relaycore._check cimport RELAY_CHECK
from relaycore._close cimport flow_close
from relaycore._ask cimport ask_read
from relaycore._core cimport Worker, queue_push
from relaycore._dial cimport dial_step, keep_alive
from relaycore._flow cimport (
    ACKNOWLEDGED, ANNOUNCED, ANSWERED, CANNOT_BE, DEADLINE, DIALLING, DISCARD, ELEMENT, EMPTIED, FAILED, OPEN, READABLE, RELAYING,
    RESETTING, SHUT, SHUT_SINK, SINK_BROKEN, SOURCE_EOF, SOURCE_RESET, SPLICE, TAKEN, UNWATCHED, WAITING, Flow, Half, HalfEvent,
    HalfState, Next, Side, after, earlier, flow_half_closed, flow_resetting, half_blocked, half_can_step, half_gives, half_next,
    half_reads, lost_by, passed,
)
from relaycore._kept cimport half_keeps, kept_drop, kept_flush, kept_next
from relaycore._libc cimport EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLL_CTL_MOD
from relaycore._mailbox cimport Settings
from relaycore._move cimport (
    ASKED, MOVED, Moved, SINK_FAILED, SINK_FULL, SOURCE_DRY, SOURCE_ENDED, SOURCE_FAILED, half_flush, half_move, half_release, half_rest,
)
from relaycore._run cimport run_read
from relaycore._stats cimport (
    CONNECT_TIMEOUT, COUNT_RESETS_FORCED, FINISHED, HALF_CLOSE_TIMEOUT, IDLE, NO_REASON, Reason, count,
)
from relaycore._sys cimport sys_epoll_set, sys_shutdown_write, sys_socket_error, sys_unacknowledged
from relaycore._table cimport flow_token, table_index
from relaycore._wheel cimport wheel_put

cdef enum:
    # What takes longer than this takes is bulk: some ten microseconds, for which nobody minds to wait.
    BULK_BYTES = 64 * 1024
    # No event tells that the send queue is empty: look at every tick first, then at longer steps of the time waited so far.
    RESET_LOOK_NS = 4000000
    # A sink whose peer acknowledges nothing for this long gets its reset over the bytes it will not have.
    RESET_PATIENCE_NS = 5000000000
    # Most flows are over by then, and need no keepalive: that is eight system calls and two timers of the kernel.
    KEEP_ALIVE_AFTER_NS = 1000000000


cdef inline void half_tell(Worker* w, Flow* flow, int h, HalfEvent event) noexcept nogil:
    """Apply one event to one half: the only place where Half.state changes."""
    cdef Half* half = &flow.half[h]
    cdef Side* sink = &flow.side[1 - h]
    cdef Next next = half_next(<HalfState>half.state, event, half.pending != 0, sink.error != 0)
    RELAY_CHECK(not next.actions & CANNOT_BE)
    if half.state == WAITING and next.state != WAITING and event != ANSWERED:
        flow.elements.until_ns[h] = 0
        flow.elements.ends[h] = False
        kept_next(flow, h)
    if next.state == RESETTING and half.state != RESETTING:
        flow.reset_seen_ns = w.gear.now_ns
        flow.unacknowledged = <uint32_t>-1
    half.state = next.state
    if next.actions & DISCARD:
        half_release(half, &w.gear)
        if flow.elements != NULL:
            kept_drop(w.batch, flow, h)
    if next.actions & SHUT_SINK and sys_shutdown_write(sink.fd) < 0:
        # A reset has arrived whose event is still on the way: it must not be taken for a polite end.
        side_ask(flow, 1 - h)
        if sink.error == 0:
            sink.error = ECONNRESET
        side_lost(w, flow, 1 - h, False)


cdef inline void side_lost(Worker* w, Flow* flow, int side, bint all_read) noexcept nogil:
    """A socket has failed (Side.error): nobody can be written to there, and what it had sent before is still read, unless it was."""
    if flow.reason == NO_REASON:
        flow.reason = <uint8_t>lost_by(side, flow.side[side].error)
        flow.error = flow.side[side].error
    half_tell(w, flow, 1 - side, SINK_BROKEN)
    if half_reads(flow, side) and not all_read:
        flow.side[side].ready |= READABLE
    else:
        half_tell(w, flow, side, SOURCE_RESET)


cdef inline void half_heard(Worker* w, Flow* flow, int h, Moved moved) noexcept nogil:
    """What a mover's answer means for the half."""
    if moved == SOURCE_ENDED:
        half_tell(w, flow, h, SOURCE_EOF)
    elif moved == SOURCE_FAILED:
        side_lost(w, flow, h, True)
    elif moved == SINK_FAILED:
        side_lost(w, flow, 1 - h, False)


cdef inline void half_emptied(Worker* w, Flow* flow, int h) noexcept nogil:
    """What was pending is given; what elements have put behind it is pending now."""
    if flow.elements != NULL:
        kept_next(flow, h)
    if flow.half[h].pending == 0:
        half_tell(w, flow, h, EMPTIED)


cdef inline void half_answered(Worker* w, Flow* flow, int h) noexcept nogil:
    """WAITING is over: what the elements passed on is kept, and is to be given now; then comes the end, if that was it."""
    cdef bint ends = flow.elements.ends[h]
    flow.elements.until_ns[h] = 0
    flow.elements.ends[h] = False
    half_tell(w, flow, h, ANSWERED)
    kept_next(flow, h)
    if ends:
        half_tell(w, flow, h, SOURCE_EOF)


cdef inline void half_step(Worker* w, Flow* flow, int h, uint32_t turn_bytes) noexcept nogil:
    """Move until the source is dry, the sink full or the turn over."""
    cdef Half* half = &flow.half[h]
    cdef Side* source = &flow.side[h]
    cdef Side* sink = &flow.side[1 - h]
    cdef uint64_t before = half.bytes, moved = 0
    cdef Moved answer = MOVED
    while half_can_step(flow, h) and moved < turn_bytes:
        if half_gives(flow, h):
            answer = kept_flush(w.batch, flow, h) if half_keeps(half) else half_flush(half, sink, &w.gear)
            if answer == MOVED:
                half_emptied(w, flow, h)
        elif half.lane == ELEMENT:
            answer = ask_read(w, flow, h) if flow.elements.run[h] == NULL else run_read(w, flow, h)
            if answer == ASKED:
                half_tell(w, flow, h, TAKEN)
            elif answer == SINK_FULL:
                break
        else:
            answer = half_move(half, source, sink, &w.gear, <uint32_t>(turn_bytes - moved), moved != 0)
        moved = half.bytes - before
        half_heard(w, flow, h, answer)
    if moved != 0:
        flow.active_ns = w.gear.now_ns
        bump(&w.stats.listeners[flow.listener].bytes[h], moved)
    if moved >= BULK_BYTES and half.lane == SPLICE:
        half.bulk = True
    if answer == SOURCE_DRY:
        half_rest(half, &w.gear, moved)


cdef inline void half_watch(Worker* w, Flow* flow, int h, bint wanted) noexcept nogil:
    """The one exception to registering once: EPOLLIN of a source whose sink is blocked, and EPOLLPRI, since a segment wakes both."""
    cdef uint32_t events = EPOLLOUT | EPOLLRDHUP | EPOLLET
    cdef uint64_t token = flow_token(table_index(&w.table, flow), flow.generation, h)
    if wanted:
        events |= EPOLLIN | EPOLLPRI
    if sys_epoll_set(w.epoll, EPOLL_CTL_MOD, flow.side[h].fd, events, token) == 0:
        flow.side[h].ready ^= UNWATCHED
    elif wanted:
        queue_push(w, flow)     # no event may be missed: the next turn tries again


cdef inline bint side_ask(Flow* flow, int side) noexcept nogil:
    """After EPOLLERR: take the error from the socket and remember it. False when there is none, or it was told before."""
    cdef int error
    flow.side[side].ready &= <uint8_t>~FAILED
    if flow.side[side].error != 0:
        return False
    error = sys_socket_error(flow.side[side].fd)
    flow.side[side].error = <short>(error if error > 0 else -error)
    return error != 0


cdef inline void side_look(Worker* w, Flow* flow, int side) noexcept nogil:
    """A side that is read to its end tells its error there; one that is not going to be read is asked."""
    if flow.side[side].ready & FAILED and not half_reads(flow, side) and side_ask(flow, side):
        side_lost(w, flow, side, False)


cdef inline void side_give_up(Worker* w, Flow* flow, int side) noexcept nogil:
    """The source has failed and nothing has moved for RESET_PATIENCE: pass the reset on without the rest."""
    if flow.side[side].error == 0 and not side_ask(flow, side):
        return
    count(w.stats, COUNT_RESETS_FORCED)
    side_lost(w, flow, side, True)
    if flow.half[side].state == RESETTING:
        half_tell(w, flow, side, DEADLINE)
    queue_push(w, flow)


cdef inline bint half_stuck(const Flow* flow, int h) noexcept nogil:
    """The source has failed, and a blocked sink keeps it from being read to its end."""
    return flow.phase == RELAYING and flow.half[h].state == OPEN and (flow.side[h].ready & FAILED or flow.side[h].error != 0)


cdef inline uint64_t flow_deadline(const Flow* flow, const Settings* settings, uint64_t now_ns) noexcept nogil:
    """When the flow has to be looked at even if nothing happens; 0: never. Derived, so that touching a flow costs a store."""
    cdef uint64_t deadline
    if flow.phase == DIALLING:
        return after(flow.started_ns, settings.connect_timeout_ns)
    if flow_resetting(flow):
        return now_ns + RESET_LOOK_NS + (now_ns - flow.reset_seen_ns) // 8
    deadline = after(flow.active_ns, settings.idle_timeout_ns)
    if flow_half_closed(flow):
        deadline = earlier(deadline, after(flow.active_ns, settings.half_close_timeout_ns))
    if half_stuck(flow, 0) or half_stuck(flow, 1):
        deadline = earlier(deadline, flow.active_ns + RESET_PATIENCE_NS)
    if flow.elements != NULL:
        deadline = earlier(earlier(deadline, flow.elements.until_ns[0]), flow.elements.until_ns[1])
    if flow.polite:
        deadline = now_ns + RESET_LOOK_NS
    if not flow.kept_alive:
        deadline = earlier(deadline, flow.connected_ns + KEEP_ALIVE_AFTER_NS)
    return deadline


cdef inline void flow_schedule(Worker* w, Flow* flow) noexcept nogil:
    cdef uint64_t deadline = flow_deadline(flow, w.settings, w.gear.now_ns)
    if deadline != 0:
        wheel_put(&w.wheel, table_index(&w.table, flow), deadline)


cdef inline void half_reset_look(Worker* w, Flow* flow, int h) noexcept nogil:
    """RESETTING: whether the sink's peer has everything, or has had its time."""
    cdef int left
    if flow.half[h].state != RESETTING:
        return
    if flow.half[h].pending == 0:
        left = sys_unacknowledged(flow.side[1 - h].fd)
        if left <= 0:
            half_tell(w, flow, h, ACKNOWLEDGED)
            return
        if <uint32_t>left < flow.unacknowledged:
            flow.unacknowledged = <uint32_t>left
            flow.reset_seen_ns = w.gear.now_ns
    elif flow.active_ns > flow.reset_seen_ns:
        flow.reset_seen_ns = flow.active_ns
    if w.gear.now_ns >= flow.reset_seen_ns + RESET_PATIENCE_NS:
        count(w.stats, COUNT_RESETS_FORCED)
        half_tell(w, flow, h, DEADLINE)


cdef inline bint flow_waits(const Flow* flow) noexcept nogil:
    """Whether elements have set a time at which it has to be looked at."""
    return flow.polite or (flow.elements != NULL and (flow.elements.until_ns[0] != 0 or flow.elements.until_ns[1] != 0))


cdef inline bint flow_lingers(Worker* w, Flow* flow) noexcept nogil:
    """Ended politely: a peer that still sends makes close() a reset, which must not come before it has what was said."""
    return (
        flow.polite
        and w.gear.now_ns < flow.reset_seen_ns + RESET_PATIENCE_NS
        and (sys_unacknowledged(flow.side[0].fd) > 0 or sys_unacknowledged(flow.side[1].fd) > 0)
    )


cdef inline void flow_step(Worker* w, Flow* flow, uint32_t turn_bytes) noexcept nogil:
    """One turn of a flow: everything that its readiness allows, at most turn_bytes per half."""
    cdef int h
    if flow.phase == DIALLING:
        dial_step(w, flow)
        if flow.phase == RELAYING:
            flow_schedule(w, flow)
    if flow.phase != RELAYING:
        return
    for h in range(2):
        # The first event that a blocked half has no use for says that more would come: not until the sink is free.
        if flow.side[h].ready & (ANNOUNCED | UNWATCHED) == ANNOUNCED and half_blocked(flow, h):
            half_watch(w, flow, h, False)
        flow.side[h].ready &= <uint8_t>~ANNOUNCED
    for h in range(2):
        half_step(w, flow, h, turn_bytes)
        side_look(w, flow, h)
    for h in range(2):
        half_reset_look(w, flow, h)
    if flow.half[0].state == SHUT and flow.half[1].state == SHUT and not flow_lingers(w, flow):
        flow_close(w, flow, FINISHED)
        return
    for h in range(2):
        if flow.side[h].ready & UNWATCHED and not half_blocked(flow, h):
            half_watch(w, flow, h, True)
    if half_can_step(flow, 0) or half_can_step(flow, 1):
        queue_push(w, flow)     # also one whose question found no place
    if flow_resetting(flow) or flow_half_closed(flow) or half_stuck(flow, 0) or half_stuck(flow, 1) or flow_waits(flow):
        flow_schedule(w, flow)


cdef inline bint flow_delivers(Worker* w, Flow* flow) noexcept nogil:
    """Whether a peer has taken bytes since the last look, out of what the relay wrote long ago. That is progress, too."""
    cdef int left, side
    cdef uint32_t queued = 0
    for side in range(2):
        left = sys_unacknowledged(flow.side[side].fd)
        if left > 0:
            queued += <uint32_t>left
    if queued == 0 or queued == flow.unacknowledged:
        return False
    flow.unacknowledged = queued
    flow.active_ns = w.gear.now_ns
    return True


cdef inline Reason flow_overdue(Worker* w, const Flow* flow) noexcept nogil:
    """The time-out that has passed, NO_REASON when none has. A reset that is being passed on has its own patience."""
    cdef const Settings* settings = w.settings
    cdef uint64_t now = w.gear.now_ns
    if flow.phase == DIALLING:
        return CONNECT_TIMEOUT if passed(now, after(flow.started_ns, settings.connect_timeout_ns)) else NO_REASON
    if flow_resetting(flow):
        return NO_REASON
    if flow_half_closed(flow) and passed(now, after(flow.active_ns, settings.half_close_timeout_ns)):
        return HALF_CLOSE_TIMEOUT
    return IDLE if passed(now, after(flow.active_ns, settings.idle_timeout_ns)) else NO_REASON


cdef inline void flow_expire(Worker* w, Flow* flow) noexcept nogil:
    """Its entry came up on the wheel: end the flow, or look again later."""
    cdef Reason overdue = flow_overdue(w, flow)
    cdef int h
    if overdue != NO_REASON and (flow.phase == DIALLING or not flow_delivers(w, flow)):
        flow_close(w, flow, overdue)
        return
    if flow.phase == RELAYING and not flow.kept_alive and w.gear.now_ns >= flow.connected_ns + KEEP_ALIVE_AFTER_NS:
        keep_alive(w.settings, flow)
    for h in range(2):
        if half_stuck(flow, h) and w.gear.now_ns >= flow.active_ns + RESET_PATIENCE_NS:
            side_give_up(w, flow, h)
    for h in range(2):
        if flow.elements != NULL and passed(w.gear.now_ns, flow.elements.until_ns[h]):
            half_answered(w, flow, h)
            queue_push(w, flow)
    if flow_resetting(flow) or flow.polite:
        queue_push(w, flow)
    flow_schedule(w, flow)
