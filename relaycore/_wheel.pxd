# The timer wheel: one entry per flow, by the flow's index. Pure: it is told the time.
#
# Owns: when a flow is looked at next. The deadline itself is derived from the flow (see flow_deadline); an entry that
# comes up too early is put back, so that a flow which moves bytes pays one store and no relinking.
# Who may touch it: the worker that owns it.
# Never here: a clock, a system call, a flow.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from relaycore._check cimport RELAY_CHECK

cdef enum:
    TICK_BITS = 22              # a tick is 2**22 ns, 4.2 ms: a wait for SIOCOUTQ 0 is looked at every few milliseconds
    WHEEL_SLOTS = 2048          # one turn is 8.6 s
    COARSE_TICKS = 256          # what is further away wakes the worker at multiples of 1.07 s, many flows at once
    NO_ENTRY = 0xffffffff


cdef struct WheelEntry:
    uint32_t next
    uint32_t previous           # NO_ENTRY: first of its slot
    uint64_t tick               # 0: not on the wheel


cdef struct Wheel:
    WheelEntry* entries
    uint32_t heads[WHEEL_SLOTS]
    uint64_t done               # every tick up to this one has been looked at
    uint64_t soonest            # no entry is before this tick
    uint32_t count


cdef inline bint wheel_make(Wheel* wheel, uint32_t capacity, uint64_t now_ns) noexcept nogil:
    cdef int slot
    wheel.entries = <WheelEntry*>calloc(capacity, sizeof(WheelEntry))
    wheel.done = now_ns >> TICK_BITS
    wheel.soonest = 0
    wheel.count = 0
    for slot in range(WHEEL_SLOTS):
        wheel.heads[slot] = NO_ENTRY
    return wheel.entries != NULL


cdef inline void wheel_free(Wheel* wheel) noexcept nogil:
    free(wheel.entries)
    wheel.entries = NULL


cdef inline bint wheel_holds(Wheel* wheel, uint32_t i) noexcept nogil:
    return wheel.entries[i].tick != 0


cdef inline void wheel_remove(Wheel* wheel, uint32_t i) noexcept nogil:
    """Nothing happens when it is not there."""
    cdef WheelEntry* entry = &wheel.entries[i]
    if entry.tick == 0:
        return
    if entry.previous == NO_ENTRY:
        wheel.heads[entry.tick % WHEEL_SLOTS] = entry.next
    else:
        wheel.entries[entry.previous].next = entry.next
    if entry.next != NO_ENTRY:
        wheel.entries[entry.next].previous = entry.previous
    entry.tick = 0
    wheel.count -= 1


cdef inline void wheel_put(Wheel* wheel, uint32_t i, uint64_t deadline_ns) noexcept nogil:
    """Comes up at the deadline or a tick after it, beyond the horizon earlier. An entry that is there already only moves forward."""
    cdef uint64_t tick = (deadline_ns >> TICK_BITS) + 1
    cdef uint64_t horizon = wheel.done + WHEEL_SLOTS - 1
    cdef WheelEntry* entry = &wheel.entries[i]
    cdef uint32_t* head
    if tick <= wheel.done:
        tick = wheel.done + 1
    if tick > horizon:
        tick = horizon - horizon % COARSE_TICKS
    if entry.tick != 0:
        if entry.tick <= tick:
            return
        wheel_remove(wheel, i)
    if wheel.count == 0 or tick < wheel.soonest:
        wheel.soonest = tick
    head = &wheel.heads[tick % WHEEL_SLOTS]
    entry.tick = tick
    entry.previous = NO_ENTRY
    entry.next = head[0]
    if head[0] != NO_ENTRY:
        wheel.entries[head[0]].previous = i
    head[0] = i
    wheel.count += 1


cdef inline void wheel_catch_up(Wheel* wheel, uint64_t now_ns) noexcept nogil:
    """After a sleep with nothing on the wheel: what is put on it next is not measured from before the sleep."""
    if wheel.count == 0:
        wheel.done = now_ns >> TICK_BITS


cdef inline uint32_t wheel_pop(Wheel* wheel, uint64_t now_ns) noexcept nogil:
    """An entry whose tick has come, taken off the wheel; NO_ENTRY when there is none."""
    cdef uint64_t now = now_ns >> TICK_BITS
    cdef uint32_t i
    while wheel.done < now:
        if wheel.count == 0:
            wheel.done = now
            break
        i = wheel.heads[(wheel.done + 1) % WHEEL_SLOTS]
        if i != NO_ENTRY:
            RELAY_CHECK(wheel.entries[i].tick == wheel.done + 1)
            wheel_remove(wheel, i)
            return i
        wheel.done += 1
    return NO_ENTRY


cdef inline uint64_t wheel_next_ns(Wheel* wheel) noexcept nogil:
    """When to call wheel_pop() again; 0 when the wheel is empty."""
    if wheel.count == 0:
        return 0
    if wheel.soonest <= wheel.done:
        wheel.soonest = wheel.done + 1
    while wheel.heads[wheel.soonest % WHEEL_SLOTS] == NO_ENTRY:
        wheel.soonest += 1
        RELAY_CHECK(wheel.soonest < wheel.done + WHEEL_SLOTS)
    return wheel.soonest << TICK_BITS
