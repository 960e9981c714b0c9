"""The pure rooms of the engine, opened to the tests: each function hands its arguments to the real nogil code.

Built as relaycore._probe when RELAY_PROBE=1; never shipped.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from relaycore._addr cimport Addr, Networks, addr_from_sockaddr, addr_same, addr_to_sockaddr, networks_free, networks_hold
from relaycore._convert cimport addr_from_python, addr_to_python, form_from_python, networks_from_python
from relaycore._core cimport Worker, queue_holds, queue_pop, queue_push
from relaycore._dial cimport dial_reason
from relaycore._flow cimport (
    CANNOT_BE, CLOSED, DIALLING, DISCARD, HALF_EVENTS, RESETTING, SHUT, SHUT_SINK, Capture, Direction, Flow, HalfEvent,
    HalfState, half_can_step, half_next, verdict_on,
)
from relaycore._libc cimport sockaddr_storage
from relaycore._lines cimport LINE_BYTES, Form, Second, line_of
from relaycore._pipe cimport NO_PIPE, PipePool, pipe_drop, pipe_give, pipe_pool_free, pipe_pool_make, pipe_take
from relaycore._ring cimport RING_SLOTS, Finished, Ring, ring_free, ring_make, ring_push, ring_reserve, ring_take
from relaycore._stats cimport NO_REASON, Stats, histogram_bucket
from relaycore._table cimport Table, flow_token, table_bury, table_find, table_free, table_index, table_make, table_reap, table_take
from relaycore._wheel cimport (
    COARSE_TICKS, NO_ENTRY, TICK_BITS, WHEEL_SLOTS, Wheel, wheel_free, wheel_make, wheel_next_ns, wheel_pop, wheel_put, wheel_remove,
)
from relaycore._worker cimport bulk_share

STATES = ("OPEN", "DRAINING", "SHUT", "RESETTING", "WAITING")
EVENTS = ("SOURCE_EOF", "SOURCE_RESET", "EMPTIED", "SINK_BROKEN", "ACKNOWLEDGED", "DEADLINE", "TAKEN", "ANSWERED")
RELAY = NO_REASON
TICK_NS = 1 << TICK_BITS
HORIZON_NS = <uint64_t>(WHEEL_SLOTS - COARSE_TICKS) << TICK_BITS
RING = RING_SLOTS
if len(EVENTS) != HALF_EVENTS or STATES.index("SHUT") != SHUT or STATES.index("RESETTING") != RESETTING:
    raise ImportError("tests/unit/_probe.pyx: the names are not those of _flow.pxd")


def next_of(str state, str event, bint pending, bint sink_error):
    """(state, actions) as words; None where the event contradicts the state."""
    after = half_next(<HalfState><int>STATES.index(state), <HalfEvent><int>EVENTS.index(event), pending, sink_error)
    if after.actions & CANNOT_BE:
        return None
    words = {word for word, bit in (("discard", DISCARD), ("shut sink", SHUT_SINK)) if after.actions & bit}
    return STATES[after.state], frozenset(words)


def verdict(int direction, int capture, bint known, bint own_port, bint origin_local, bint is_listener, bint client_local):
    return verdict_on(<Direction>direction, <Capture>capture, known, own_port, origin_local, is_listener, client_local)


def can_step(int state, uint32_t pending, int source_ready, int sink_ready):
    cdef Flow flow
    memset(&flow, 0, sizeof(Flow))
    flow.half[0].state = state
    flow.half[0].pending = pending
    flow.side[0].ready = source_ready
    flow.side[1].ready = sink_ready
    return bool(half_can_step(&flow, 0))


def address(str host, int port):
    """Through both forms of the kernel and back."""
    cdef Addr given, back
    cdef sockaddr_storage middle
    addr_from_python(&given, host, port)
    addr_to_sockaddr(&given, &middle)
    addr_from_sockaddr(&back, &middle)
    if not addr_same(&given, &back):
        raise AssertionError(f"{host} {port} became {addr_to_python(&back)}")
    return addr_to_python(&back)


def holds(list networks, str host):
    cdef Networks own
    cdef Addr a
    memset(&own, 0, sizeof(Networks))
    try:
        networks_from_python(&own, networks)
        addr_from_python(&a, host, 0)
        return bool(networks_hold(&own, &a))
    finally:
        networks_free(&own)


def reason_of_dial(int error):
    return dial_reason(error)


def bucket(uint64_t value):
    return histogram_bucket(value)


cdef class WheelProbe:
    cdef Wheel wheel

    def __cinit__(self, uint32_t capacity, uint64_t now_ns):
        wheel_make(&self.wheel, capacity, now_ns)

    def __dealloc__(self):
        wheel_free(&self.wheel)

    def put(self, uint32_t i, uint64_t deadline_ns):
        wheel_put(&self.wheel, i, deadline_ns)

    def remove(self, uint32_t i):
        wheel_remove(&self.wheel, i)

    def pop(self, uint64_t now_ns):
        i = wheel_pop(&self.wheel, now_ns)
        return None if i == NO_ENTRY else i

    def next_ns(self):
        return wheel_next_ns(&self.wheel)


cdef class TableProbe:
    cdef Table table

    def __cinit__(self, uint32_t capacity):
        table_make(&self.table, capacity)

    def __dealloc__(self):
        table_free(&self.table)

    def take(self):
        """The token of the new flow's client side, None when the table is full."""
        cdef Flow* flow = table_take(&self.table)
        if flow == NULL:
            return None
        flow.phase = DIALLING
        return flow_token(table_index(&self.table, flow), flow.generation, 0)

    def lives(self, uint64_t token):
        return table_find(&self.table, token) != NULL

    def bury(self, uint64_t token):
        cdef Flow* flow = table_find(&self.table, token)
        flow.phase = CLOSED
        table_bury(&self.table, flow)

    def reap(self):
        table_reap(&self.table)

    @property
    def used(self):
        return self.table.used


cdef class PipesProbe:
    cdef PipePool pool
    cdef Stats* stats

    def __cinit__(self, int limit, int capacity):
        self.stats = <Stats*>calloc(1, sizeof(Stats))
        pipe_pool_make(&self.pool, limit, capacity)

    def __dealloc__(self):
        pipe_pool_free(&self.pool)
        free(self.stats)

    def take(self, uint64_t now_ns):
        i = pipe_take(&self.pool, self.stats, now_ns)
        return None if i == NO_PIPE else i

    def give(self, int i):
        pipe_give(&self.pool, i)

    def drop(self, int i):
        pipe_drop(&self.pool, i)

    def ends(self, int i):
        return self.pool.pipes[i].ends[0], self.pool.pipes[i].ends[1]

    def counts(self):
        """(exhausted, denied)"""
        from relaycore import COUNTERS
        return self.stats.counters[COUNTERS.index("pipes_exhausted")], self.stats.counters[COUNTERS.index("pipes_denied")]


cdef class RingProbe:
    cdef Ring ring

    def __cinit__(self):
        ring_make(&self.ring)

    def __dealloc__(self):
        ring_free(&self.ring)

    def push(self, uint64_t number):
        cdef Finished* slot = ring_reserve(&self.ring)
        if slot == NULL:
            return False
        slot.id = number
        ring_push(&self.ring)
        return True

    def take(self):
        cdef Finished out
        return out.id if ring_take(&self.ring, &out) else None


cdef class QueueProbe:
    """A worker's queues, without a worker's thread."""
    cdef Worker w

    def __cinit__(self, uint32_t capacity):
        memset(&self.w, 0, sizeof(Worker))
        table_make(&self.w.table, capacity)

    def __dealloc__(self):
        table_free(&self.w.table)

    def take(self, bint bulk_up=False, bint bulk_down=False):
        """A flow's number, with bulk in these halves."""
        flow = table_take(&self.w.table)
        flow.half[0].bulk = bulk_up
        flow.half[1].bulk = bulk_down
        return table_index(&self.w.table, flow)

    def push(self, uint32_t i):
        queue_push(&self.w, &self.w.table.flows[i])

    def holds(self):
        return bool(queue_holds(&self.w))

    def pop_all(self):
        """(brisk, bulk), each in its order."""
        brisk = [table_index(&self.w.table, queue_pop(&self.w, &self.w.brisk)) for _ in range(self.w.brisk.length)]
        bulk = [table_index(&self.w.table, queue_pop(&self.w, &self.w.bulk)) for _ in range(self.w.bulk.length)]
        return brisk, bulk


def share_of_bulk(uint32_t turn_bytes, uint64_t begun_ns, uint64_t now_ns, uint64_t brisk_ns):
    """(bytes of a flow's turn, until when)"""
    share = bulk_share(turn_bytes, begun_ns, now_ns, brisk_ns)
    return share.turn_bytes, share.until_ns


def line(object given, uint64_t flow, str client_host, int client_port, object origin, uint64_t sent, uint64_t received,
         uint64_t started_ns, uint64_t connected_ns, uint64_t ended_ns, uint64_t to_wall_ns, bytes lane, bytes reason, object error,
         object words=None):
    """A finished flow as a line of this form, and the same again with what the first has left of the second."""
    cdef Form form
    cdef Finished finished
    cdef Second last
    cdef char text[LINE_BYTES]
    cdef const char* cause = NULL
    memset(&finished, 0, sizeof(Finished))
    memset(&last, 0, sizeof(Second))
    form_from_python(&form, given)
    addr_from_python(&finished.client, client_host, client_port)
    finished.origin_known = origin is not None
    if origin is not None:
        addr_from_python(&finished.origin, origin[0], origin[1])
    finished.id = flow
    finished.bytes[0] = sent
    finished.bytes[1] = received
    finished.started_ns = started_ns
    finished.connected_ns = connected_ns
    finished.ended_ns = ended_ns
    finished.words = NULL if words is None else <char*><bytes>words
    if error is not None:
        cause = <bytes>error
    found = []
    for _ in range(2):
        size = line_of(text, &form, &finished, to_wall_ns, lane, reason, cause, &last)
        found.append(text[:size])
    if found[0] != found[1]:
        raise AssertionError(f"{found[0]} became {found[1]}")
    return found[0]
