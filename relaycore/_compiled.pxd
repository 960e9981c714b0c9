# The calls of compiled elements (relay_element.h): a piece of a half through one of them, and what its answer means.
#
# These functions are all that a half needs whose elements are all compiled (_run). The chain of a flow calls the same ones, with
# the GIL, where compiled elements and Python's stand side by side. What has to be told to Python (who refused the flow, what went
# wrong) is noted in the element's Compiled until the chain comes to it.
#
# Owns: the answers' meaning, what HOLD keeps, what is counted of each call.
# Who may touch it: _chain makes a Compiled and frees it, _run and _chain pass pieces on.
# Never here: a socket; Python, of which a compiled element knows nothing.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from relaycore._atomic cimport bump
from relaycore._calls cimport (
    ASKED_CLOSED, ASKED_OPENED, ASKED_REQUEST, ASKED_REQUEST_ENDED, ASKED_RESPONSE, ASKED_RESPONSE_ENDED, GOES_ON, HAS_FAILED,
    IS_CLOSED, IS_REJECTED, Asked, Call, Tally, call_begins, call_ended,
)
from relaycore._sys cimport sys_now_ns
from relaycore.compiled cimport (
    RELAY_CLOSE, RELAY_FAIL, RELAY_HOLD, RELAY_LEAST_ROOM, RELAY_ON, RELAY_REJECT, RELAY_RELEASE, relay_element, relay_flow,
)

cdef enum:
    # What a worker's piece keeps of its memory from one call to the next.
    MOST_SPARE_ROOM = 1024 * 1024


cdef enum Wrong:                # what a call has done
    NOTHING_WRONG
    SAID_FAIL
    NO_SUCH_ANSWER
    HELD_AT_THE_END
    HELD_TOO_MUCH
    PUT_BEYOND_ROOM
    PUT_TOO_MUCH
    PUT_NOTHING
    NO_MEMORY                   # ours, not the element's


cdef struct Compiled:           # one element of one flow
    const relay_element* element
    void* shared
    void* state                 # zero when the flow begins
    Tally* tally
    Call* call
    uint64_t flow
    uint64_t budget_ns
    size_t max_held
    size_t max_output
    uint8_t* held[2]            # by half; owned. NULL: nothing
    size_t held_size[2]
    uint32_t number
    bint may_drop
    bint passes_errors
    bint off                    # released, or failed and passed
    # For the chain, which comes to it later:
    bint released
    uint8_t refusal             # Outcome
    uint8_t wrong               # Wrong
    uint8_t asked               # Asked, when it went wrong
    int64_t answer              # the one that was wrong
    size_t given                # to that call


cdef struct Run:                # the compiled elements of a half, in the order in which they are asked
    Compiled** steps
    uint32_t count


cdef struct Piece:              # bytes of a half on their way through elements
    uint8_t* data               # owned
    size_t size
    size_t room
    uint8_t* copy               # owned: what the element was given, for one whose errors are passed
    size_t copy_room
    uint64_t now_ns             # when the last call ended
    bint ends                   # the half has
    uint8_t outcome             # Outcome
    bint news                   # the chain has to be told


cdef inline bint grow(uint8_t** memory, size_t* room, size_t need) noexcept nogil:
    cdef uint8_t* grown
    if need <= room[0]:
        return True
    grown = <uint8_t*>realloc(memory[0], need)
    if grown == NULL:
        return False
    memory[0] = grown
    room[0] = need
    return True


cdef inline bint piece_room(Piece* piece, size_t need) noexcept nogil:
    """Room for so many bytes in all. False: there is no memory."""
    return grow(&piece.data, &piece.room, need)


cdef inline void piece_begin(Piece* piece, size_t size, bint ends) noexcept nogil:
    """Its first bytes are there."""
    piece.size = size
    piece.ends = ends
    piece.outcome = GOES_ON
    piece.news = False
    piece.now_ns = sys_now_ns()


cdef inline void piece_free(Piece* piece) noexcept nogil:
    free(piece.data)
    free(piece.copy)
    piece.data = NULL
    piece.copy = NULL
    piece.room = 0
    piece.copy_room = 0


cdef inline void piece_rest(Piece* piece) noexcept nogil:
    """What one large message took is not kept for all that come."""
    if piece.room > MOST_SPARE_ROOM or piece.copy_room > MOST_SPARE_ROOM:
        piece_free(piece)


cdef inline int compiled_opened(Compiled* c, const relay_flow* flow) noexcept nogil:
    cdef int answer
    call_begins(c.call, c.number, ASKED_OPENED, c.flow, sys_now_ns(), c.budget_ns)
    answer = c.element.opened(c.shared, c.state, flow)
    call_ended(c.call, c.tally, c.budget_ns)
    return answer


cdef inline void compiled_closed(Compiled* c, const char* reason) noexcept nogil:
    if not c.off:
        call_begins(c.call, c.number, ASKED_CLOSED, c.flow, sys_now_ns(), c.budget_ns)
        c.element.closed(c.shared, c.state, reason)
        call_ended(c.call, c.tally, c.budget_ns)


cdef inline bint held_keep(Compiled* c, int h, const uint8_t* data, size_t size) noexcept nogil:
    """HOLD. False: there is no memory."""
    if size != 0:
        c.held[h] = <uint8_t*>malloc(size)
        if c.held[h] == NULL:
            return False
        memcpy(c.held[h], data, size)
        c.held_size[h] = size
    return True


cdef inline bint held_goes_on(Compiled* c, int h, Piece* piece, size_t at) noexcept nogil:
    """What was held becomes part of the piece, at its front or at its end. False: there is no memory."""
    cdef size_t size = c.held_size[h]
    if c.held[h] == NULL:
        return True
    if not piece_room(piece, piece.size + size):
        return False
    memmove(piece.data + at + size, piece.data + at, piece.size - at)
    memcpy(piece.data + at, c.held[h], size)
    piece.size += size
    held_drop(c, h)
    return True


cdef inline void held_drop(Compiled* c, int h) noexcept nogil:
    free(c.held[h])
    c.held[h] = NULL
    c.held_size[h] = 0


cdef inline void compiled_wrong(Compiled* c, Piece* piece, Asked asked, size_t given, int64_t answer, Wrong wrong) noexcept nogil:
    """The flow ends, or goes on without the element: then its last bytes are the ones that it was given."""
    c.wrong = <uint8_t>wrong
    c.asked = <uint8_t>asked
    c.answer = answer
    c.given = given
    piece.news = True
    if c.passes_errors and wrong != NO_MEMORY:
        c.off = True
    else:
        piece.outcome = HAS_FAILED
        piece.size = 0


cdef inline Wrong wrong_with(const Compiled* c, Asked asked, int64_t verdict, size_t given, uint64_t out, size_t room) noexcept nogil:
    """What is wrong with an answer that is not HOLD."""
    if verdict == RELAY_FAIL:
        return SAID_FAIL
    if verdict != RELAY_ON and verdict != RELAY_RELEASE and verdict != RELAY_REJECT and verdict != RELAY_CLOSE:
        return NO_SUCH_ANSWER
    if out > room:
        return PUT_BEYOND_ROOM
    if out > c.max_output:
        return PUT_TOO_MUCH
    if out == 0 and given != 0 and not c.may_drop and (verdict == RELAY_ON or verdict == RELAY_RELEASE):
        return PUT_NOTHING
    return NOTHING_WRONG


cdef inline Wrong compiled_hold(Compiled* c, int h, Piece* piece, size_t base, Asked asked) noexcept nogil:
    if asked == ASKED_REQUEST_ENDED or asked == ASKED_RESPONSE_ENDED:
        return HELD_AT_THE_END
    if piece.size - base > c.max_held:
        return HELD_TOO_MUCH
    return NOTHING_WRONG if held_keep(c, h, piece.data + base, piece.size - base) else NO_MEMORY


cdef inline void compiled_take(Compiled* c, int h, Piece* piece, size_t base, Asked asked, int64_t answer) noexcept nogil:
    """What an answer makes of the piece, whose bytes from base on were given."""
    cdef size_t given = piece.size - base
    cdef int64_t verdict = RELAY_ON
    cdef uint64_t out = <uint64_t>answer
    cdef Wrong wrong
    if answer < -16:                    # RELAY_WITH
        out = <uint64_t>-(answer + 16)
        verdict = -<int64_t>(out & 7)
        out >>= 3
    elif answer < 0:
        verdict = answer
        out = given if verdict == RELAY_RELEASE else 0
    if answer == RELAY_HOLD:
        wrong = compiled_hold(c, h, piece, base, asked)
        out = 0
    else:
        wrong = wrong_with(c, asked, verdict, given, out, piece.room - base)
    if wrong != NOTHING_WRONG:
        if c.passes_errors:
            memcpy(piece.data + base, piece.copy, given)
        compiled_wrong(c, piece, asked, given, answer, wrong)
        return
    piece.size = base + out
    bump(&c.tally.bytes_out, out)
    if verdict == RELAY_RELEASE:
        c.off = True
        c.released = True
        piece.news = True
    elif verdict == RELAY_REJECT or verdict == RELAY_CLOSE:
        piece.outcome = <uint8_t>(IS_REJECTED if verdict == RELAY_REJECT else IS_CLOSED)
        if c.refusal == GOES_ON:
            c.refusal = piece.outcome
        piece.news = True


cdef inline void compiled_ask(Compiled* c, int h, Piece* piece, size_t base, Asked asked) noexcept nogil:
    """The element is given the bytes from base on."""
    cdef size_t given = piece.size - base
    cdef int64_t answer
    if not piece_room(piece, base + 2 * given + RELAY_LEAST_ROOM):
        compiled_wrong(c, piece, asked, given, 0, NO_MEMORY)
        return
    if c.passes_errors:
        if not grow(&piece.copy, &piece.copy_room, given + 1):
            compiled_wrong(c, piece, asked, given, 0, NO_MEMORY)
            return
        memcpy(piece.copy, piece.data + base, given)
    call_begins(c.call, c.number, asked, c.flow, piece.now_ns, c.budget_ns)
    if asked == ASKED_REQUEST or asked == ASKED_RESPONSE:
        answer = c.element.data(c.shared, c.state, h, piece.data + base, given, piece.room - base)
    else:
        answer = c.element.ended(c.shared, c.state, h, piece.data + base, given, piece.room - base)
    piece.now_ns = call_ended(c.call, c.tally, c.budget_ns)
    compiled_take(c, h, piece, base, asked, answer)


cdef inline void compiled_pass(Compiled* c, int h, Piece* piece) noexcept nogil:
    """A piece of half h through one element: what goes on is the piece from then on."""
    cdef size_t base
    if piece.size != 0 or c.off:
        bump(&c.tally.bytes_in, 0 if c.off else piece.size)
        if not held_goes_on(c, h, piece, 0):
            compiled_wrong(c, piece, <Asked>(ASKED_REQUEST + h), piece.size, 0, NO_MEMORY)
        elif not c.off:
            compiled_ask(c, h, piece, 0, <Asked>(ASKED_REQUEST + h))
    if piece.ends and piece.outcome == GOES_ON and not c.off:
        base = piece.size
        if not held_goes_on(c, h, piece, base):
            compiled_wrong(c, piece, <Asked>(ASKED_REQUEST_ENDED + h), 0, 0, NO_MEMORY)
        elif c.element.ended != NULL:
            compiled_ask(c, h, piece, base, <Asked>(ASKED_REQUEST_ENDED + h))
        else:
            bump(&c.tally.bytes_out, piece.size - base)
    if piece.outcome != GOES_ON:
        piece.ends = False


cdef inline void run_pass(const Run* run, int h, Piece* piece) noexcept nogil:
    """Through all of them."""
    cdef uint32_t i
    for i in range(run.count):
        compiled_pass(run.steps[i], h, piece)
        if piece.outcome == HAS_FAILED:
            return
