# A flow, its two halves, and every rule of how they change. Pure: no system call, no clock, no memory but the flow's.
#
# Theory of operation. A flow joins two sockets, its sides: CLIENT and ORIGIN. It has two halves, one per direction, and half h
# runs from its source, side h, to its sink, side 1 - h. Both are the same code. What is known of a socket stands in its Side
# (readiness, the first error); what happened to a direction stands in its Half (state, bytes taken and not yet given). All else
# is derived: whether a half can go on, when the flow is looked at again, how it ends.
#
#     phase   DIALLING --connected--> RELAYING --both halves SHUT--> CLOSED
#                 `--refused, timeout---------`--idle, stop----------^
#     half    OPEN --eof--> DRAINING --nothing pending--> SHUT (then shutdown of the sink)
#             OPEN --elements take its bytes--> WAITING --they answer--> OPEN
#             any  --source reset--> RESETTING --pending written and acknowledged, or deadline--> SHUT (then RST to the sink)
#
# Owns: the tables half_next() and verdict_on(), which tests enumerate whole.
# Who may touch it: _step applies half_next(), _accept asks verdict_on(), everyone reads.
# Never here: `if client`. Whoever needs a direction is handed the half.

from libc.errno cimport EIO, ENOBUFS, ENOMEM
from libc.stdint cimport int16_t, int32_t, uint16_t, uint32_t, uint64_t, uint8_t

from relaycore._addr cimport Addr
from relaycore._stats cimport (
    ERROR, FOREIGN_CLIENT, FOREIGN_ORIGIN, IN_LOOP, NOT_CAPTURED, NO_REASON, RESET_BY_CLIENT, RESET_BY_ORIGIN, Reason,
)


cdef enum:
    CLIENT = 0
    ORIGIN = 1


cdef enum Direction:
    OUTBOUND
    INBOUND
    GATEWAY


cdef enum Capture:
    REDIRECT
    TPROXY
    UNCAPTURED              # "none": the fixed target


cdef enum Phase:
    # A slot of the slab that no flow uses. Nothing but table_take() may touch it.
    FREE
    # The client is accepted, the origin is being connected. Bytes of the client wait in its socket; nothing is read.
    DIALLING
    # Both sockets are connected. The halves move bytes, independently.
    RELAYING
    # Both descriptors are closed, everything is counted. The slot waits for the end of the batch; only table_reap() may touch it.
    CLOSED


cdef enum HalfState:
    OPEN                    # bytes may come: read while the source is readable and the sink writable
    DRAINING                # the source said EOF: never read it again; pending bytes are still to be given
    SHUT                    # the sink knows the end, or is gone, or will be reset when the flow closes: nothing more happens here
    RESETTING               # the source is gone: pending bytes are given and acknowledged before the sink is reset
    WAITING                 # elements have what was read: nothing more is read until they answer


cdef enum HalfEvent:
    SOURCE_EOF              # a read said 0 and the source has no error
    SOURCE_RESET            # the source has an error, and all that it had sent has been read
    EMPTIED                 # nothing is pending any more
    SINK_BROKEN             # the sink has an error
    ACKNOWLEDGED            # the sink's peer has everything that was written
    DEADLINE                # it did not acknowledge in time
    TAKEN                   # bytes, or the end of them, are with the elements
    ANSWERED                # what they pass on is pending, or given
    HALF_EVENTS


cdef enum:
    # Actions of half_next(), to be done by the caller in this order.
    NOTHING = 0
    DISCARD = 1             # drop what is pending: nobody can have it
    SHUT_SINK = 2           # pass the FIN on
    CANNOT_BE = 128         # the event contradicts the state


cdef enum Lane:
    COPY
    SPLICE
    ELEMENT


cdef enum:
    # Side.ready: set by events and cleared by EAGAIN, or by a short COPY read that came without RDHUP, HUP and PRI.
    READABLE = 1
    WRITABLE = 2
    RDHUP = 4               # sticky: the peer's FIN is queued behind the data
    HUP = 8                 # sticky
    URGENT = 16             # an urgent byte was announced and is not yet passed on
    FAILED = 32             # EPOLLERR was seen: the socket has an error that a call will tell
    ANNOUNCED = 64          # EPOLLIN came since the flow's last turn
    UNWATCHED = 128         # EPOLLIN and EPOLLPRI are dropped in epoll while this side's half is blocked


cdef struct Side:
    int fd                  # owned by the flow; -1 before it is dialled and once it is closed
    int16_t error           # the first error of this socket; errors do not stick in the kernel, so never ask twice
    uint8_t ready


cdef struct Half:
    uint64_t bytes          # given to the sink
    uint32_t pending        # taken from the source and not yet given to the sink, in the pipe or in the buffer
    uint32_t offset         # of the first pending byte in the buffer
    int32_t pipe            # held while bytes are in it, else NO_PIPE
    int32_t buffer          # held while bytes are in it, else NO_BUFFER
    uint8_t state           # HalfState
    uint8_t lane            # Lane, for the next read
    uint8_t used            # the highest lane that has moved bytes
    uint8_t large_reads     # COPY: reads in a row that were worth splicing. ELEMENT: whether the last one was large
    uint8_t small_wakes     # SPLICE: wake-ups in a row that moved too little for it
    bint bulk               # SPLICE: it has had a turn so large that others should go first
    bint pending_urgent     # the one pending byte is urgent


cdef struct Elements:           # of one flow; owned by it, and given back to the worker it began on, which alone can free it
    void* chain             # owned reference to a Chain; NULL: none of them is left
    void* run[2]            # Run*, in the chain, by half: all who hear it are compiled; NULL: ask the chain
    void* home              # Worker*
    Elements* next          # in a list of those whose flows are over
    uint8_t* kept[2]        # what elements passed on and the sink has not taken, by half; owned
    uint32_t kept_size[2]
    uint32_t kept_room[2]
    uint64_t until_ns[2]    # when a half goes on by itself; 0: when it is answered
    bint ends[2]            # its source has ended, which the sink learns then
    bint hears[2]           # whether the bytes of a half go through them
    bint hears_closed
    uint8_t reason          # Reason, once the flow is over


cdef struct Flow:
    uint64_t id             # never repeats while the process lives
    uint64_t started_ns
    uint64_t connected_ns   # 0: never
    uint64_t active_ns      # when bytes last moved
    uint64_t reset_seen_ns  # RESETTING: when the sink's peer last acknowledged something
    Side side[2]
    Half half[2]
    Addr client
    Addr origin
    Elements* elements      # NULL: none
    char* words             # what they have said for the record, owned; NULL: nothing
    uint32_t generation     # of the slot: an event of an earlier flow in this slot is stale
    uint32_t queue_next
    uint32_t unacknowledged  # what SIOCOUTQ said at the last look
    uint16_t listener
    int16_t error           # the errno that decided, for the record
    uint8_t phase           # Phase
    uint8_t reason          # Reason, NO_REASON: none yet. The first cause is the reason
    bint origin_known
    bint polite             # elements end it: FINs, not resets
    bint queued
    bint kept_alive         # both sockets probe their peers


cdef struct Next:
    uint8_t state
    uint8_t actions


cdef inline Next half_next(HalfState state, HalfEvent event, bint pending, bint sink_error) noexcept nogil:
    """The whole life of a half: what an event makes of a state, and what has to be done about it."""
    cdef Next next
    next.state = state
    next.actions = NOTHING
    if event == SINK_BROKEN:
        if state != SHUT:
            next.actions = DISCARD
        next.state = SHUT
    elif event == SOURCE_RESET:
        if sink_error:      # both ends are gone: nobody is left to be told
            next.actions = NOTHING if state == SHUT else DISCARD
            next.state = SHUT
        else:
            next.state = RESETTING
    elif state == OPEN and event == SOURCE_EOF:
        if pending:
            next.state = DRAINING
        else:
            next.state = SHUT
            next.actions = NOTHING if sink_error else SHUT_SINK
    elif state == DRAINING and event == EMPTIED:
        next.state = SHUT
        next.actions = NOTHING if sink_error else SHUT_SINK
    elif state == OPEN and event == TAKEN and not pending:
        next.state = WAITING
    elif state == WAITING and event == ANSWERED:
        next.state = OPEN
    elif (state == OPEN or state == WAITING) and event == EMPTIED:
        pass
    elif state == RESETTING and event == EMPTIED:
        pass
    elif state == RESETTING and event == ACKNOWLEDGED:
        if not pending:
            next.state = SHUT
    elif state == RESETTING and event == DEADLINE:
        next.state = SHUT
        next.actions = DISCARD
    else:
        next.actions = CANNOT_BE
    return next


cdef inline Reason verdict_on(
    Direction direction, Capture capture, bint origin_known, bint origin_own_port, bint origin_local, bint origin_is_listener,
    bint client_local,
) noexcept nogil:
    """NO_REASON (none): relay. Otherwise why the connection is refused, before anything is dialled."""
    if not origin_known:
        return NOT_CAPTURED
    # Whatever the spelling of the address: nothing is ever dialled that would come back to a listener of ours.
    if origin_own_port and (origin_local or (capture == REDIRECT and origin_is_listener)):
        return IN_LOOP
    if direction == INBOUND and not origin_local:
        return FOREIGN_ORIGIN
    if direction == OUTBOUND and not client_local:
        return FOREIGN_CLIENT
    return NO_REASON


cdef inline Reason lost_by(int side, int error) noexcept nogil:
    """What a failed socket is called: its peer's doing, unless the kernel here could not go on."""
    if error in (ENOMEM, ENOBUFS, EIO):
        return ERROR
    return RESET_BY_CLIENT if side == CLIENT else RESET_BY_ORIGIN


cdef inline bint half_reads(const Flow* flow, int h) noexcept nogil:
    """Whether the half will still read its source, now or once elements have answered."""
    return flow.half[h].state == OPEN or flow.half[h].state == WAITING


cdef inline bint half_takes(const Flow* flow, int h) noexcept nogil:
    """Whether the half may read: its source has something, its sink can have it, and nothing waits before it."""
    return (
        flow.half[h].state == OPEN
        and flow.half[h].pending == 0
        and flow.side[h].ready & READABLE
        and flow.side[1 - h].ready & WRITABLE
    )


cdef inline bint half_gives(const Flow* flow, int h) noexcept nogil:
    """Whether the half may write what is pending."""
    return flow.half[h].pending != 0 and flow.side[1 - h].ready & WRITABLE


cdef inline bint half_can_step(const Flow* flow, int h) noexcept nogil:
    return half_gives(flow, h) or half_takes(flow, h)


cdef inline bint half_blocked(const Flow* flow, int h) noexcept nogil:
    """Whether the half waits for its sink: more from its source would be of no use."""
    return flow.half[h].state == OPEN and not (flow.side[1 - h].ready & WRITABLE)


cdef inline bint flow_resetting(const Flow* flow) noexcept nogil:
    return flow.half[0].state == RESETTING or flow.half[1].state == RESETTING


cdef inline bint flow_is_bulk(const Flow* flow) noexcept nogil:
    """Whether either direction has so much to move that others should go first."""
    return flow.half[0].bulk or flow.half[1].bulk


cdef inline bint flow_half_closed(const Flow* flow) noexcept nogil:
    """One side has sent its FIN, the other not. A half that is shut because a socket failed is no half-close."""
    return (flow.half[0].state == SHUT) != (flow.half[1].state == SHUT) and flow.side[0].error == 0 and flow.side[1].error == 0


cdef inline uint8_t flow_lane(const Flow* flow) noexcept nogil:
    """The highest lane that either half has used."""
    return flow.half[0].used if flow.half[0].used > flow.half[1].used else flow.half[1].used


cdef inline uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil:
    """Of two deadlines; 0 is never."""
    if a == 0 or (b != 0 and b < a):
        return b
    return a


cdef inline uint64_t after(uint64_t since_ns, uint64_t patience_ns) noexcept nogil:
    """The deadline of a time-out; a time-out of 0 is never."""
    return since_ns + patience_ns if patience_ns != 0 else 0


cdef inline bint passed(uint64_t now_ns, uint64_t deadline_ns) noexcept nogil:
    return deadline_ns != 0 and now_ns >= deadline_ns
