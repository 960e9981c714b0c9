# Compiled elements as Python has them: capsules, and what is said of their mistakes. All of it holds the GIL.
#
# Owns: what a capsule must hold to be called; the one block of memory that a flow's compiled elements have.
# Who may touch it: _chain.
# Never here: the meaning of an answer (_compiled).

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from relaycore._addr cimport Addr
from relaycore._compiled cimport (
    HELD_AT_THE_END, HELD_TOO_MUCH, NO_SUCH_ANSWER, PUT_BEYOND_ROOM, PUT_NOTHING, PUT_TOO_MUCH, Compiled, Piece, Run,
    compiled_pass, held_drop, piece_begin, piece_free, piece_room,
)
from relaycore.compiled cimport (
    RELAY_ELEMENT_ABI, RELAY_ELEMENT_CAPSULE, RELAY_LEAST_ROOM, RELAY_MOST_STATE, RELAY_REQUESTS, RELAY_RESPONSES,
    RELAY_SHARED_CAPSULE, relay_element, relay_flow,
)

cdef enum:
    ALIGNED = 16                # for any type


cdef struct Block:              # the compiled elements of a flow
    void* memory                # owned, with all that follows
    Compiled* elements
    uint32_t count
    char* next_state
    Run runs[2]                 # by half


cdef inline const relay_element* element_of(kind) except? NULL:
    """What a class has as `compiled`; NULL: it is none of these. TypeError for what cannot be called."""
    cdef const relay_element* element
    capsule = kind.compiled
    if capsule is None:
        return NULL
    where = f"{kind.__name__}.compiled: expected"
    if not PyCapsule_IsValid(capsule, RELAY_ELEMENT_CAPSULE):
        raise TypeError(f'{where} a capsule "{RELAY_ELEMENT_CAPSULE.decode()}", found {capsule!r}')
    element = <const relay_element*>PyCapsule_GetPointer(capsule, RELAY_ELEMENT_CAPSULE)
    if element.abi != RELAY_ELEMENT_ABI:
        raise TypeError(f"{where} abi {RELAY_ELEMENT_ABI}, found {element.abi}")
    if element.halves > (RELAY_REQUESTS | RELAY_RESPONSES) or (element.halves != 0) != (element.data != NULL):
        raise TypeError(f"{where} halves of 0 to 3, and data() where they are not 0, found {element.halves}")
    if element.state_bytes > <size_t>RELAY_MOST_STATE:
        raise TypeError(f"{where} state_bytes of at most {RELAY_MOST_STATE}, found {element.state_bytes}")
    check_methods(kind, element)
    return element


cdef inline int check_methods(kind, const relay_element* element) except -1:
    """A class may have opened() and closed() in Python, where there are no functions for them."""
    from relaycore.element import Element
    given = ["request", "response", "request_ended", "response_ended"]
    if element.opened != NULL:
        given.append("opened")
    if element.closed != NULL:
        given.append("closed")
    for name in given:
        if getattr(kind, name) is not getattr(Element, name):
            raise TypeError(f"{kind.__name__}: expected no method {name}() beside `compiled`, which stands in for it")
    return 0


cdef inline void* shared_of(made) except? NULL:
    """What configure() made for the functions."""
    if not PyCapsule_IsValid(made, RELAY_SHARED_CAPSULE):
        return NULL
    return PyCapsule_GetPointer(made, RELAY_SHARED_CAPSULE)


cdef inline size_t aligned(size_t size) noexcept nogil:
    return (size + ALIGNED - 1) // ALIGNED * ALIGNED


cdef inline int block_make(Block* block, uint32_t count, size_t state_bytes) except -1:
    """Memory for so many elements whose states, each aligned, take so many bytes."""
    cdef size_t elements = aligned(count * sizeof(Compiled))
    cdef size_t steps = aligned(count * sizeof(Compiled*))
    if count == 0:
        return 0
    block.memory = calloc(1, elements + 2 * steps + state_bytes)
    if block.memory == NULL:
        raise MemoryError
    block.elements = <Compiled*>block.memory
    block.runs[0].steps = <Compiled**>(<char*>block.memory + elements)
    block.runs[1].steps = <Compiled**>(<char*>block.memory + elements + steps)
    block.next_state = <char*>block.memory + elements + 2 * steps
    return 0


cdef inline Compiled* block_next(Block* block, const relay_element* element) noexcept:
    """The next element, with its state."""
    cdef Compiled* c = &block.elements[block.count]
    block.count += 1
    c.element = element
    c.state = block.next_state
    block.next_state += aligned(element.state_bytes)
    return c


cdef inline void block_free(Block* block) noexcept:
    cdef uint32_t i
    for i in range(block.count):
        held_drop(&block.elements[i], 0)
        held_drop(&block.elements[i], 1)
    free(block.memory)
    block.memory = NULL


cdef inline void run_add(Run* run, Compiled* c) noexcept:
    run.steps[run.count] = c
    run.count += 1


cdef inline bytes passed_through(Compiled* c, int h, bytes data, bint ends, unsigned char* outcome):
    """Bytes through one element, where it stands beside Python's; the outcome is changed if it ends the flow."""
    cdef Piece piece = [NULL, 0, 0, NULL, 0, 0, False, 0, False]
    cdef size_t size = PyBytes_GET_SIZE(data)
    if not piece_room(&piece, 2 * size + RELAY_LEAST_ROOM):
        raise MemoryError
    memcpy(piece.data, PyBytes_AS_STRING(data), size)
    piece_begin(&piece, size, ends)
    piece.outcome = outcome[0]
    try:
        compiled_pass(c, h, &piece)
        outcome[0] = piece.outcome
        return PyBytes_FromStringAndSize(<char*>piece.data, piece.size)
    finally:
        piece_free(&piece)


cdef inline relay_flow facts_of(unsigned long long number, bytes listener, const Addr* client, const Addr* origin) noexcept:
    """What opened() is told, for as long as `listener` lives."""
    cdef relay_flow facts
    facts.id = number
    facts.listener = PyBytes_AS_STRING(listener)
    memcpy(facts.client, client.ip, 16)
    memcpy(facts.origin, origin.ip, 16)
    facts.client_port = client.port
    facts.origin_port = origin.port
    return facts


cdef inline str wrong_words(const Compiled* c, str method):
    """For the record of an element that has failed."""
    said = f"{method}() answered {c.answer}"
    if c.wrong == HELD_AT_THE_END:
        return f"{method}() answered RELAY_HOLD: nothing more will come"
    if c.wrong == HELD_TOO_MUCH:
        return f"RELAY_HOLD of {c.given} bytes: max_held is {c.max_held}"
    if c.wrong == NO_SUCH_ANSWER:
        return f"{said}: expected a number of bytes or one of the codes of relay_element.h"
    if c.wrong == PUT_BEYOND_ROOM:
        return f"{said}: that is more than the room it was given"
    if c.wrong == PUT_TOO_MUCH:
        return f"{said}: max_output is {c.max_output}"
    if c.wrong == PUT_NOTHING:
        return f"{method}() answered with no bytes: a piece of a stream cannot be left out; RELAY_HOLD keeps it, and may_drop allows it"
    return f"{method}() answered RELAY_FAIL"
