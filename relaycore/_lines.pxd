# Finished flows as lines of a log. Python says once what stands between the values; here the values are put there.
#
# An access record made from Python's objects costs more than a tenth of a short connection, one from here about a hundredth.
#
# Owns: the spelling of times, addresses and numbers in records.
# Who may touch it: _engine, with the GIL, on Python's side of the ring.
# Never here: a word of a record that is not a value (Form has them); a line longer than LINE_BYTES.

from libc.stdint cimport uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from relaycore._addr cimport Addr, addr_is_v4
from relaycore._libc cimport AF_INET, AF_INET6, gmtime_r, inet_ntop, strftime, time_t, tm
from relaycore._ring cimport Finished

cdef enum:
    # Before time, flow, client, origin, sent, received, duration, connect, lane, reason and error, and after the last.
    PIECES = 12
    LINE_BYTES = 6144
    WORDS_BYTES = 2048
    # Of a line, beside its pieces: eleven values, none longer than an address with its scope, and what elements said.
    VALUES_BYTES = 1024 + WORDS_BYTES


cdef struct Form:
    const char* pieces[PIECES]
    size_t sizes[PIECES]
    const char* null
    const char* quote       # around words, on both sides; may be empty
    const char* before      # what elements said
    const char* after


cdef struct Second:         # the last one that was spelt: records of a batch share it
    uint64_t seconds
    char text[24]


cdef inline char* put_bytes(char* out, const char* what, size_t size) noexcept nogil:
    memcpy(out, what, size)
    return out + size


cdef inline char* put_word(char* out, const Form* form, const char* word) noexcept nogil:
    """A word, or null."""
    if word == NULL:
        return put_bytes(out, form.null, strlen(form.null))
    out = put_bytes(out, form.quote, strlen(form.quote))
    out = put_bytes(out, word, strlen(word))
    return put_bytes(out, form.quote, strlen(form.quote))


cdef inline char* put_number(char* out, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = <char>(48 + value % 10)
        value //= 10
        if value == 0:
            return put_bytes(out, &digits[at], 20 - at)


cdef inline char* put_milliseconds(char* out, uint64_t ns) noexcept nogil:
    """To the microsecond, in as few digits as Python writes a float: 0.25, 5.0."""
    cdef uint64_t us = (ns + 500) // 1000
    cdef uint64_t rest = us % 1000
    out = put_number(out, us // 1000)
    out[0] = 46
    out[1] = <char>(48 + rest // 100)
    out[2] = <char>(48 + rest // 10 % 10)
    out[3] = <char>(48 + rest % 10)
    return out + (4 if rest % 10 else 3 if rest % 100 else 2)


cdef inline char* put_time(char* out, uint64_t wall_ns, Second* last) noexcept nogil:
    """UTC with microseconds, RFC 3339."""
    cdef time_t seconds = <time_t>(wall_ns // 1000000000)
    cdef uint64_t us = wall_ns % 1000000000 // 1000
    cdef tm parts
    cdef int i
    if last.seconds != <uint64_t>seconds or last.text[0] == 0:
        gmtime_r(&seconds, &parts)
        strftime(last.text, sizeof(last.text), "%Y-%m-%dT%H:%M:%S.", &parts)
        last.seconds = <uint64_t>seconds
    out = put_bytes(out, last.text, strlen(last.text))
    for i in range(5, -1, -1):
        out[i] = <char>(48 + us % 10)
        us //= 10
    return put_bytes(out + 6, "Z", 1)


cdef inline char* put_address(char* out, const Form* form, const Addr* a) noexcept nogil:
    """1.2.3.4:80, [fe80::1%2]:80"""
    cdef char host[64]
    cdef char text[96]
    if addr_is_v4(a):
        inet_ntop(AF_INET, &a.ip[12], host, sizeof(host))
        snprintf(text, sizeof(text), "%s:%u", host, <unsigned int>a.port)
    else:
        inet_ntop(AF_INET6, a.ip, host, sizeof(host))
        if a.scope:
            snprintf(text, sizeof(text), "[%s%%%u]:%u", host, <unsigned int>a.scope, <unsigned int>a.port)
        else:
            snprintf(text, sizeof(text), "[%s]:%u", host, <unsigned int>a.port)
    return put_word(out, form, text)


cdef inline size_t line_of(
    char* line, const Form* form, const Finished* f, uint64_t to_wall_ns, const char* lane, const char* reason, const char* error,
    Second* last,
) noexcept nogil:
    """How long it is. There is room for LINE_BYTES, and the form leaves VALUES_BYTES of them."""
    cdef char* out = line
    cdef int piece
    for piece in range(PIECES):
        out = put_bytes(out, form.pieces[piece], form.sizes[piece])
        if piece == 0:
            out = put_time(out, f.ended_ns + to_wall_ns, last)
        elif piece == 1:
            out = put_number(out, f.id)
        elif piece == 2:
            out = put_address(out, form, &f.client)
        elif piece == 3:
            out = put_address(out, form, &f.origin) if f.origin_known else put_word(out, form, NULL)
        elif piece == 4 or piece == 5:
            out = put_number(out, f.bytes[piece - 4])
        elif piece == 6:
            out = put_milliseconds(out, f.ended_ns - f.started_ns)
        elif piece == 7:
            out = put_milliseconds(out, f.connected_ns - f.started_ns) if f.connected_ns else put_word(out, form, NULL)
        elif piece == 8:
            out = put_word(out, form, lane)
        elif piece == 9:
            out = put_word(out, form, reason)
        elif piece == 10:
            out = put_word(out, form, error)
            if f.words != NULL:
                out = put_bytes(out, form.before, strlen(form.before))
                out = put_bytes(out, f.words, strlen(f.words))
                out = put_bytes(out, form.after, strlen(form.after))
    return <size_t>(out - line)
