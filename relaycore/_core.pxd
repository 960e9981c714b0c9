# A worker: everything that one thread owns, in one struct, and what all workers share.
#
# Owns: the shape of Worker, its queue of flows that have something to do, and its way to ring for Python.
# Who may touch it: the rooms above, each the part that it is about.
# Never here: anything that two workers write, but for the words of Shared.

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from relaycore._addr cimport Addr
from relaycore._atomic cimport atomic_exchange
from relaycore._calls cimport Call, Tally
from relaycore._check cimport RELAY_CHECK
from relaycore._compiled cimport Piece
from relaycore._flow cimport Capture, Direction, Elements, Flow, flow_is_bulk
from relaycore._mailbox cimport Mailbox, Settings
from relaycore._move cimport Gear
from relaycore._ring cimport Ring
from relaycore._stats cimport MAX_LISTENERS, Stats
from relaycore._libc cimport epoll_event
from relaycore._sys cimport sys_close, sys_eventfd, sys_eventfd_ring
from relaycore._table cimport NO_FLOW, Table, table_index
from relaycore._wheel cimport Wheel

cdef enum:
    # One epoll_wait: more than this makes the first flow of a batch wait for the last one's bytes.
    BATCH_EVENTS = 256
    # A flow's turn: smaller loses bulk throughput, larger lets one bulk flow delay the others.
    TURN_BYTES = 512 * 1024
    MAX_SOCKETS = 128           # listening sockets of one worker: two families of every listener
    SLOTS = 64                  # questions to elements that one taking of the GIL answers
    BATCH_BYTES = 4 * 1024 * 1024   # in all of them

    # What the spares are for: a connection that is to be reset, and the dial of one that took the last descriptor.
    SPARE_FOR_RESET = 0
    SPARE_FOR_DIAL = 1
    SPARES = 2

    # epoll tokens of what is no flow: bit 63, then what it is, then which.
    TOKEN_BELL = 1
    TOKEN_SOCKET = 2


cdef struct Listener:           # facts, fixed at start
    Direction direction
    Capture capture
    uint16_t port
    bint preserve_client
    bint elements               # its connections begin on the workers for flows with elements
    Addr target                 # capture none


cdef struct Shared:             # by all workers
    uint64_t live               # flows, and connections that are being accepted
    uint64_t asleep             # Python waits for wake_fd: the first worker that swaps it to 0 rings
    uint64_t running            # workers that have not ended
    uint64_t running_elements   # of those, the ones for flows with elements
    uint64_t squeezed           # held by the worker that looks for descriptors at the limit, so that no other takes its spare's place
    uint8_t apart[64]           # what follows is only read
    int wake_fd                 # eventfd
    void* workers               # Worker*, the plain ones first
    uint32_t plain_workers
    uint32_t all_workers
    uint32_t listener_count
    Listener listeners[MAX_LISTENERS]


cdef struct Socket:             # a listening socket of this worker
    int fd                      # owned; -1 once it is closed
    uint16_t listener


cdef struct Queue:              # of flows, linked by queue_next
    uint32_t first
    uint32_t last
    uint32_t length


cdef struct Slot:               # one question to the elements of a flow, and then their answer
    Flow* flow
    uint8_t* data               # as much of the batch's memory as was read, or that of blank
    void* blank                 # the batch's, which was read into; else NULL
    uint8_t* large              # owned: what goes on, where data has no room for it; else NULL
    uint32_t size               # of what was read; once answered, of what goes on
    uint64_t delay_ns           # it goes on so much later
    uint8_t half
    uint8_t outcome             # Outcome
    bint opening                # somebody wants to connect
    bint ends                   # the source has ended
    bint ran                    # its bytes have been through the elements; the chain has to hear what those did
    bint answered               # False: the flow had ended before it was asked for
    bint chose_origin


cdef struct Batch:              # what a worker for flows with elements has beside
    Slot slots[SLOTS]
    uint32_t count              # of slots that wait for an answer
    uint8_t* memory             # owned: BATCH_BYTES, of which slots take one after the other what they need
    uint32_t used
    void* blank                 # owned bytes of Python's that nobody has seen yet: the next large piece is read into them
    uint8_t* blank_data
    void* spent                 # owned: the last ones, which are still to be sent
    Piece piece                 # of whoever is run without the GIL; empty between two reads
    uint64_t kept_bytes         # that flows keep because their sinks do not take them
    uint64_t kept_limit
    Elements* over              # their flows have ended: to be told, and freed
    void* returned              # Elements*, the same from other workers; pushed by them
    uint64_t away               # elements whose flows are on other workers
    void* books                 # Books, kept by the engine
    Call* call                  # in them: what this thread is in
    Tally* tallies              # and what is counted of each element
    void* plans                 # by listener: its name and a list of Use; kept by the engine
    void* reasons               # the names of reasons, kept by the engine


cdef struct Parcel:             # a flow on its way to another worker
    Flow flow
    Parcel* next


cdef struct Worker:
    Shared* shared
    Settings* settings          # owned; swapped between two batches
    Mailbox mailbox
    Gear gear
    Table table
    Wheel wheel
    Ring ring
    Stats* stats                # owned
    Batch* batch                # owned; NULL: flows here have no elements
    void* arrivals              # Parcel*, pushed by other workers
    epoll_event* events
    int epoll
    int spares[SPARES]          # descriptors held back for the moment when there is no other; -1: spent
    int diag_fd                 # netlink, for spoofed dials; -1 where no listener needs it
    uint32_t number
    uint32_t workers
    uint64_t flows_opened       # ids
    uint32_t turn_bytes         # TURN_BYTES; tests make it 1
    Queue brisk                 # flows that have something to do, but for bulk
    Queue bulk                  # and bulk: the others go first
    uint64_t brisk_ns           # when one of the others last had a turn
    uint32_t socket_count
    Socket sockets[MAX_SOCKETS]
    uint64_t random             # state of the generator for spoofed ports
    uint64_t paused_since_ns    # accepting pauses at a limit; 0: it does not
    uint64_t pause_look_ns      # when to look again
    bint draining
    uint8_t apart[64]           # the next worker's words are on another cache line


cdef inline uint64_t special_token(uint32_t what, uint32_t which) noexcept nogil:
    return <uint64_t>1 << 63 | <uint64_t>what << 32 | which


cdef inline void queue_push(Worker* w, Flow* flow) noexcept nogil:
    """The flow has something to do; once is enough."""
    cdef uint32_t i = table_index(&w.table, flow)
    cdef Queue* queue = &w.bulk if flow_is_bulk(flow) else &w.brisk
    if flow.queued:
        return
    flow.queued = True
    flow.queue_next = NO_FLOW
    if queue.length == 0:
        queue.first = i
    else:
        w.table.flows[queue.last].queue_next = i
    queue.last = i
    queue.length += 1


cdef inline Flow* queue_pop(Worker* w, Queue* queue) noexcept nogil:
    """The queue must not be empty."""
    cdef Flow* flow = &w.table.flows[queue.first]
    RELAY_CHECK(queue.length != 0 and flow.queued)
    queue.first = flow.queue_next
    queue.length -= 1
    flow.queued = False
    return flow


cdef inline bint queue_holds(const Worker* w) noexcept nogil:
    """Whether any flow has something to do."""
    return w.brisk.length != 0 or w.bulk.length != 0


cdef inline bint spare_spend(Worker* w, int which) noexcept nogil:
    """Make room for one descriptor. False when it was spent before."""
    if w.spares[which] < 0:
        return False
    sys_close(w.spares[which])
    w.spares[which] = -1
    return True


cdef inline bint spares_held(Worker* w) noexcept nogil:
    """Hold all of them again, if that can be; without them nothing is accepted."""
    cdef int i
    for i in range(SPARES):
        if w.spares[i] < 0:
            w.spares[i] = sys_eventfd()
    return w.spares[SPARE_FOR_DIAL] >= 0 and w.spares[SPARE_FOR_RESET] >= 0


cdef inline void ring_for_python(Worker* w) noexcept nogil:
    """Wake Python once per batch of news: it says when it waits again."""
    if atomic_exchange(&w.shared.asleep, 0) != 0:
        sys_eventfd_ring(w.shared.wake_fd)
