"""An element for protocols of lines: a client that sends a line too long is cut off, one that sends too many is shown out.

    [[element]]
    name = "lines"
    use = "line_limits:LineLimits"
    options = { longest = "8KiB", most = 1000 }

Every byte of every client is looked at, without the GIL. Compare relaycore.messages.Lines, which does more and is slower.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr

from relaycore.compiled cimport (
    RELAY_CLOSE, RELAY_ELEMENT_ABI, RELAY_REJECT, RELAY_REQUESTS, RELAY_SHARED_CAPSULE, RELAY_WITH, relay_element,
    relay_element_capsule,
)

from relaycore.element import Element


cdef struct Limits:             # of all flows; never changed once it is made
    size_t longest
    size_t most                 # 0: any number


cdef struct State:              # of one flow; zero when it begins
    size_t line                 # bytes of the line that has not ended
    size_t lines                # that have


cdef int64_t look(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    cdef const Limits* limits = <const Limits*>shared
    cdef State* flow = <State*>state
    cdef uint8_t* at = data
    cdef uint8_t* end = data + size
    cdef uint8_t* newline
    while at < end:
        newline = <uint8_t*>memchr(at, b"\n", end - at)
        flow.line += (newline if newline != NULL else end) - at
        if flow.line > limits.longest:
            return RELAY_REJECT
        if newline == NULL:
            break
        at = newline + 1
        flow.line = 0
        flow.lines += 1
        if flow.lines == limits.most:
            return RELAY_WITH(at - data, RELAY_CLOSE)     # up to the end of this line
    return size


# Only requests are looked at, so responses cost nothing. No opened(), ended() and closed().
cdef relay_element FUNCTIONS = [RELAY_ELEMENT_ABI, RELAY_REQUESTS, sizeof(State), NULL, look, NULL, NULL]


cdef void forget(capsule) noexcept:
    free(PyCapsule_GetPointer(capsule, RELAY_SHARED_CAPSULE))


class LineLimits(Element):
    compiled = relay_element_capsule(&FUNCTIONS)

    @classmethod
    def configure(cls, options):
        cdef Limits* limits = <Limits*>malloc(sizeof(Limits))
        if limits == NULL:
            raise MemoryError
        capsule = PyCapsule_New(limits, RELAY_SHARED_CAPSULE, forget)
        limits.longest = options.size("longest", 8192)
        limits.most = options.integer("most", 0, 1 << 62, 0)
        return capsule
