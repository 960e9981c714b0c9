"""Compiled elements for tests: one that does what the bytes say, and some that always do the same.

Built as relaycore._probe_elements when RELAY_PROBE=1; never shipped. A wrong one (an element that lies) is here, too.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uint32_t, uint8_t
from libc.stdlib cimport calloc
from libc.string cimport memcmp, memcpy, memset, strlen, strncpy

from relaycore.compiled cimport (
    RELAY_CLOSE, RELAY_ELEMENT_ABI, RELAY_FAIL, RELAY_HOLD, RELAY_ON, RELAY_REJECT, RELAY_RELEASE, RELAY_REQUEST, RELAY_REQUESTS,
    RELAY_RESPONSES, RELAY_SHARED_CAPSULE, RELAY_WITH, relay_element, relay_element_capsule, relay_flow,
)

cdef extern from "unistd.h":
    int usleep(unsigned int us) nogil

cdef enum:
    BOTH = RELAY_REQUESTS | RELAY_RESPONSES


cdef struct Shared:             # what configure() made
    char mark[16]               # of Tag, and what Opening does
    char reason[32]             # of the flow that was closed last
    char seen[128]              # by opened()
    uint32_t opened
    uint32_t closed
    uint32_t dirty              # states that did not begin as zeros


cdef bint ends_with(const uint8_t* data, size_t size, const char* word) noexcept nogil:
    cdef size_t length = strlen(word)
    return size >= length and memcmp(data + size - length, word, length) == 0


cdef size_t put(uint8_t* data, const char* word) noexcept nogil:
    memcpy(data, word, strlen(word))
    return strlen(word)


cdef int64_t words_data(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    """Does what the last word says. Like Words of tests/loopback/test_elements.py."""
    if half != RELAY_REQUEST:
        return size
    if ends_with(data, size, b"hold"):
        return RELAY_HOLD
    if ends_with(data, size, b"reject"):
        return RELAY_REJECT
    if ends_with(data, size, b"close"):
        return RELAY_CLOSE
    if ends_with(data, size, b"release"):
        return RELAY_RELEASE
    if ends_with(data, size, b"last"):
        data[size] = b"!"
        return RELAY_WITH(size + 1, RELAY_RELEASE)
    if ends_with(data, size, b"refuse"):
        return RELAY_WITH(put(data, b"bye"), RELAY_REJECT)
    if ends_with(data, size, b"end"):
        return RELAY_WITH(put(data, b"bye"), RELAY_CLOSE)
    if ends_with(data, size, b"stuck"):
        usleep(1500000)
        return size
    return words_wrong(data, size, room)


cdef int64_t words_wrong(uint8_t* data, size_t size, size_t room) noexcept nogil:
    """Each changes what it was given first: with on_error "pass" that must not show."""
    if ends_with(data, size, b"fail"):
        data[0] = b"#"
        return RELAY_FAIL
    if ends_with(data, size, b"beyond"):
        data[0] = b"#"
        return room + 1
    if ends_with(data, size, b"much"):
        memset(data, b"#", room)
        return room
    if ends_with(data, size, b"nothing"):
        data[0] = b"#"
        return 0
    if ends_with(data, size, b"nonsense"):
        data[0] = b"#"
        return -7
    if ends_with(data, size, b"confused"):
        return RELAY_WITH(1, RELAY_HOLD)
    if ends_with(data, size, b"huge"):
        return <int64_t>1 << 62
    if ends_with(data, size, b"least"):
        return -<int64_t>0x7fffffffffffffff - 1
    return size


cdef int64_t words_ended(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    if half == RELAY_REQUEST and ends_with(data, size, b"forever hold"):
        return RELAY_HOLD
    if half == RELAY_REQUEST and ends_with(data, size, b"then reject hold"):
        return RELAY_REJECT
    if half == RELAY_REQUEST and ends_with(data, size, b"then close hold"):
        return RELAY_WITH(put(data, b"bye"), RELAY_CLOSE)
    if half == RELAY_REQUEST and ends_with(data, size, b"more hold"):
        return size + put(data + size, b"|end")
    return size


cdef int64_t pass_data(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    return size


cdef int64_t double_data(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    """Every byte twice: what grows most of what is promised to have room."""
    cdef size_t i = size
    while i > 0:
        i -= 1
        data[2 * i] = data[i]
        data[2 * i + 1] = data[i]
    return 2 * size


cdef int64_t halve_data(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    """Undoes double_data, however its bytes come: state is the parity of each half."""
    cdef uint8_t* odd = <uint8_t*>state + half
    cdef size_t i, out = 0
    for i in range(size):
        if not odd[0]:
            data[out] = data[i]
            out += 1
        odd[0] ^= 1
    return out


cdef int64_t tag_data(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    return size + put(data + size, (<Shared*>shared).mark)


cdef int64_t tag_ended(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    return size + put(data + size, (<Shared*>shared).mark)


cdef int opening_opened(void* shared, void* state, const relay_flow* flow) noexcept nogil:
    cdef Shared* all = <Shared*>shared
    cdef char* word = all.mark
    all.opened += 1
    memcpy(all.seen, &flow.client_port, 2)
    memcpy(all.seen + 2, &flow.origin_port, 2)
    memcpy(all.seen + 4, flow.client, 16)
    memcpy(all.seen + 20, flow.origin, 16)
    memcpy(all.seen + 36, &flow.id, 8)
    strncpy(all.seen + 44, flow.listener, 32)
    if (<uint8_t*>state)[0] != 0 or (<uint8_t*>state)[99] != 0:
        all.dirty += 1
    (<uint8_t*>state)[0] = (<uint8_t*>state)[99] = 1
    return (
        RELAY_REJECT if word[0] == b"r" else RELAY_CLOSE if word[0] == b"c" else RELAY_RELEASE if word[0] == b"l"
        else RELAY_FAIL if word[0] == b"f" else 17 if word[0] == b"n" else RELAY_ON
    )


cdef void opening_closed(void* shared, void* state, const char* reason) noexcept nogil:
    cdef Shared* all = <Shared*>shared
    all.closed += 1
    strncpy(all.reason, reason, 31)


cdef int64_t slow_data(void* shared, void* state, int half, uint8_t* data, size_t size, size_t room) noexcept nogil:
    usleep(2000)
    return size


cdef relay_element WORDS = [RELAY_ELEMENT_ABI, BOTH, 0, NULL, words_data, words_ended, NULL]
cdef relay_element PASS = [RELAY_ELEMENT_ABI, BOTH, 0, NULL, pass_data, NULL, NULL]
cdef relay_element REQUESTS = [RELAY_ELEMENT_ABI, RELAY_REQUESTS, 0, NULL, pass_data, NULL, NULL]
cdef relay_element DOUBLE = [RELAY_ELEMENT_ABI, BOTH, 0, NULL, double_data, NULL, NULL]
cdef relay_element HALVE = [RELAY_ELEMENT_ABI, BOTH, 2, NULL, halve_data, NULL, NULL]
cdef relay_element TAG = [RELAY_ELEMENT_ABI, BOTH, 0, NULL, tag_data, NULL, NULL]
cdef relay_element TAG_ENDS = [RELAY_ELEMENT_ABI, BOTH, 0, NULL, tag_data, tag_ended, NULL]
cdef relay_element OPENING = [RELAY_ELEMENT_ABI, RELAY_REQUESTS, 100, opening_opened, pass_data, NULL, opening_closed]
cdef relay_element SLOW = [RELAY_ELEMENT_ABI, BOTH, 0, NULL, slow_data, NULL, NULL]
cdef relay_element WRONG_ABI = [RELAY_ELEMENT_ABI + 1, BOTH, 0, NULL, pass_data, NULL, NULL]
cdef relay_element WRONG_HALVES = [RELAY_ELEMENT_ABI, 4, 0, NULL, pass_data, NULL, NULL]
cdef relay_element DEAF = [RELAY_ELEMENT_ABI, BOTH, 0, NULL, NULL, NULL, NULL]
cdef relay_element FAT = [RELAY_ELEMENT_ABI, BOTH, (1 << 20) + 1, NULL, pass_data, NULL, NULL]

words = relay_element_capsule(&WORDS)
passes = relay_element_capsule(&PASS)
passes_requests = relay_element_capsule(&REQUESTS)
doubles = relay_element_capsule(&DOUBLE)
halves = relay_element_capsule(&HALVE)
tags = relay_element_capsule(&TAG)
tags_ends = relay_element_capsule(&TAG_ENDS)
opening = relay_element_capsule(&OPENING)
slow = relay_element_capsule(&SLOW)
wrong_abi = relay_element_capsule(&WRONG_ABI)
wrong_halves = relay_element_capsule(&WRONG_HALVES)
deaf = relay_element_capsule(&DEAF)
fat = relay_element_capsule(&FAT)


def shared_of(str mark):
    """What configure() of Tag and Opening returns; it is never freed."""
    cdef Shared* made = <Shared*>calloc(1, sizeof(Shared))
    strncpy(made.mark, mark.encode(), 15)
    return PyCapsule_New(made, RELAY_SHARED_CAPSULE, NULL)


def told(capsule):
    """What Opening was told: (openings, closings, the last reason, dirty states, what opened() saw)."""
    cdef Shared* made = <Shared*>PyCapsule_GetPointer(capsule, RELAY_SHARED_CAPSULE)
    return made.opened, made.closed, (<bytes>made.reason).decode(), made.dirty, (<char*>made.seen)[:76]
