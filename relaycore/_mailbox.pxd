# How Python speaks to a worker: a slot per command, and an eventfd that wakes it.
#
# Owns: what was posted and not yet taken. A slot holds one thing: newer settings replace those that were not taken yet, so
# the mailbox cannot overflow. Whoever swaps a pointer out of a slot owns it.
# Who may touch it: the engine posts, the worker takes between two batches.
# Never here: waiting, and no other way from Python into a running worker.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from relaycore._addr cimport Networks, networks_free
from relaycore._atomic cimport atomic_exchange, atomic_load, atomic_swap
from relaycore._flow cimport Flow
from relaycore._sys cimport sys_close, sys_eventfd, sys_eventfd_clear, sys_eventfd_ring


cdef struct Settings:           # immutable once posted; each worker owns a copy
    uint64_t max_flows          # of all workers together
    uint64_t connect_timeout_ns
    uint64_t idle_timeout_ns
    uint64_t half_close_timeout_ns
    uint64_t busy_poll_ns       # how long a worker looks for news before it sleeps; 0: not at all
    int32_t keepalive_time_s
    int32_t keepalive_interval_s
    int32_t keepalive_probes
    uint32_t mark
    bint access
    Networks own


cdef struct Snapshot:           # a question: which flows live?
    Flow* flows                 # room for capacity flows, given by Python
    uint32_t capacity
    uint32_t count              # how many there were; more than capacity: ask again
    uint64_t answered           # published last
    int bell                    # eventfd of the one who asks


cdef enum:
    CARRY_ON = 0
    DRAIN = 1                   # no new flows, finish the ones there are
    STOP = 2                    # reset what is left and end


cdef struct Mailbox:
    int bell                    # eventfd, in the worker's epoll
    void* settings              # Settings*
    void* snapshot              # Snapshot*
    uint64_t order              # CARRY_ON, DRAIN, STOP: only ever raised


cdef inline int mailbox_make(Mailbox* mailbox) noexcept nogil:
    """0 or -errno."""
    mailbox.settings = NULL
    mailbox.snapshot = NULL
    mailbox.order = CARRY_ON
    mailbox.bell = sys_eventfd()
    return 0 if mailbox.bell >= 0 else mailbox.bell


cdef inline void mailbox_free(Mailbox* mailbox) noexcept nogil:
    if mailbox.bell >= 0:
        sys_close(mailbox.bell)
    mailbox.bell = -1
    settings_free(<Settings*>atomic_swap(&mailbox.settings, NULL))


cdef inline Settings* settings_new() noexcept nogil:
    return <Settings*>calloc(1, sizeof(Settings))


cdef inline void settings_free(Settings* settings) noexcept nogil:
    if settings != NULL:
        networks_free(&settings.own)
        free(settings)


cdef inline void post_settings(Mailbox* mailbox, Settings* settings) noexcept nogil:
    """The mailbox owns them from now on."""
    settings_free(<Settings*>atomic_swap(&mailbox.settings, settings))
    sys_eventfd_ring(mailbox.bell)


cdef inline void post_order(Mailbox* mailbox, uint64_t order) noexcept nogil:
    """The single poster is the thread that holds the engine, so that reading before writing is no race."""
    if order > atomic_load(&mailbox.order):
        atomic_exchange(&mailbox.order, order)
    sys_eventfd_ring(mailbox.bell)


cdef inline void post_snapshot(Mailbox* mailbox, Snapshot* snapshot) noexcept nogil:
    """The caller still owns it: it waits for `answered`, or takes it back by take_back_snapshot()."""
    atomic_swap(&mailbox.snapshot, snapshot)
    sys_eventfd_ring(mailbox.bell)


cdef inline bint take_back_snapshot(Mailbox* mailbox) noexcept nogil:
    """True when the worker has not begun with it. False: it will be answered at once, wait for it."""
    return atomic_swap(&mailbox.snapshot, NULL) != NULL


cdef inline void mailbox_hush(Mailbox* mailbox) noexcept nogil:
    """Silence the bell before the slots are looked at, so that what is posted meanwhile rings again."""
    sys_eventfd_clear(mailbox.bell)
