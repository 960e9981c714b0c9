# Between the engine's structs and Python's values. Everything here holds the GIL.
#
# Owns: the textual form of networks, what Python is shown of a flow, and the sums over all workers.
# Who may touch it: _engine.
# Never here: a worker's thread.

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, qsort
from libc.string cimport memcmp, memcpy, memset

from relaycore._addr cimport Addr, Network, Networks, addr_is_v4
from relaycore._atomic cimport atomic_load
from relaycore._core cimport Worker
from relaycore._flow cimport DRAINING, SHUT, Flow, flow_lane
from relaycore._lines cimport LINE_BYTES, PIECES, VALUES_BYTES, Form, Second, line_of
from relaycore._mailbox cimport Settings, settings_free, settings_new
from relaycore._names cimport addr_from_python, addr_to_python
from relaycore._ring cimport Finished, ring_take
from relaycore._stats cimport COUNTER_COUNT, DIAL_ERRNOS, HISTOGRAM_BUCKETS, Histogram, MAX_LISTENERS, REASON_COUNT


cdef inline int network_from_python(Network* out, str text) except -1:
    cdef Addr base
    host, _, bits = text.partition("/")
    addr_from_python(&base, host, 0)
    v4 = addr_is_v4(&base)
    length = int(bits) if bits else (32 if v4 else 128)
    if not 0 <= length <= (32 if v4 else 128):
        raise ValueError(f"network: expected a prefix length of 0 to {32 if v4 else 128}, found {text!r}")
    memcpy(out.ip, base.ip, 16)
    out.bits = <uint8_t>(length + 96 if v4 else length)
    return 0


cdef inline int compare_networks(const void* a, const void* b) noexcept nogil:
    return memcmp((<const Network*>a).ip, (<const Network*>b).ip, 16)


cdef inline int networks_from_python(Networks* out, object texts) except -1:
    """The caller frees out, also after an exception."""
    cdef Network network
    out.wide = <Network*>calloc(len(texts) + 1, sizeof(Network))
    out.single = <Network*>calloc(len(texts) + 1, sizeof(Network))
    if out.wide == NULL or out.single == NULL:
        raise MemoryError
    for text in texts:
        network_from_python(&network, text)
        if network.bits == 128:
            out.single[out.single_count] = network
            out.single_count += 1
        else:
            out.wide[out.wide_count] = network
            out.wide_count += 1
    qsort(out.single, out.single_count, sizeof(Network), compare_networks)
    return 0


cdef inline Settings* settings_from_python(object given) except NULL:
    """What the caller posts, or frees by settings_free(). ValueError for what is out of range."""
    cdef Settings* settings = settings_new()
    if settings == NULL:
        raise MemoryError
    try:
        most_ms = 1 << 41   # 70 years, in which nanoseconds do not overflow
        for name in ("connect_timeout_ms", "idle_timeout_ms", "half_close_timeout_ms"):
            if not 0 <= getattr(given, name) <= most_ms:
                raise ValueError(f"Settings: {name}: expected 0 to {most_ms}, found {getattr(given, name)}")
        if not 0 <= given.busy_poll_us <= 1000000:
            raise ValueError(f"Settings: busy_poll_us: expected 0 to 1000000, found {given.busy_poll_us}")
        settings.max_flows = given.max_flows
        settings.busy_poll_ns = <uint64_t>given.busy_poll_us * 1000
        settings.connect_timeout_ns = <uint64_t>given.connect_timeout_ms * 1000000
        settings.idle_timeout_ns = <uint64_t>given.idle_timeout_ms * 1000000
        settings.half_close_timeout_ns = <uint64_t>given.half_close_timeout_ms * 1000000
        settings.keepalive_time_s = given.keepalive_time_s
        settings.keepalive_interval_s = given.keepalive_interval_s
        settings.keepalive_probes = given.keepalive_probes
        settings.mark = given.mark
        settings.access = given.access
        networks_from_python(&settings.own, given.own_networks)
    except BaseException:
        settings_free(settings)
        raise
    return settings


cdef inline tuple record_to_python(const Finished* f):
    return (
        f.id, f.listener, addr_to_python(&f.client), addr_to_python(&f.origin) if f.origin_known else None, f.bytes[0], f.bytes[1],
        f.started_ns, f.ended_ns, f.connected_ns - f.started_ns if f.connected_ns else -1, f.lane, f.reason, f.error,
        (<bytes>f.words).decode() if f.words != NULL else "",
    )


cdef inline int form_from_python(Form* out, object given) except -1:
    """ValueError for one that has other pieces, or too long ones. It holds pointers into what was given."""
    cdef int i
    cdef size_t total = 0
    if len(given.pieces) != PIECES:
        raise ValueError(f"Form: pieces: expected {PIECES}, found {len(given.pieces)}")
    for i in range(PIECES):
        out.pieces[i] = <bytes?>given.pieces[i]
        out.sizes[i] = len(given.pieces[i])
        total += out.sizes[i]
    out.null = <bytes?>given.null
    out.quote = <bytes?>given.quote
    out.before = <bytes?>given.before
    out.after = <bytes?>given.after
    total += len(given.before) + len(given.after)
    if total > LINE_BYTES - VALUES_BYTES or len(given.null) > 8 or len(given.quote) > 1:
        raise ValueError(f"Form: expected pieces of {LINE_BYTES - VALUES_BYTES} bytes, a null of 8 and a quote of 1 at most")
    return 0


cdef inline list lines_to_python(
    Worker* workers, uint32_t count, list forms, uint64_t to_wall_ns, int limit, tuple lanes, tuple reasons, dict errors,
):
    """Finished flows, taken out of the rings and spelt. A form for each listener; words by the number that the engine has for them."""
    cdef Form known[MAX_LISTENERS]
    cdef Finished finished
    cdef Second last
    cdef char line[LINE_BYTES]
    cdef const char* cause
    cdef bytes error
    cdef list out = []
    cdef uint32_t w
    for w in range(<uint32_t>len(forms)):
        form_from_python(&known[w], forms[w])
    memset(&last, 0, sizeof(Second))
    for w in range(count):
        while len(out) < limit and ring_take(&workers[w].ring, &finished):
            cause = NULL
            if finished.error:
                error = errors.get(finished.error, str(finished.error)).encode()
                cause = error
            size = line_of(
                line, &known[finished.listener], &finished, to_wall_ns, <bytes>lanes[finished.lane], <bytes>reasons[finished.reason],
                cause, &last,
            )
            out.append(line[:size])
            free(finished.words)
    return out


cdef inline tuple flow_to_python(const Flow* f, int worker):
    cdef int h, half_closed = 0
    for h in range(2):
        if (f.half[h].state == SHUT or f.half[h].state == DRAINING) and f.side[1 - h].error == 0:
            half_closed |= 1 << h
    return (
        f.id, f.listener, worker, addr_to_python(&f.client), addr_to_python(&f.origin) if f.origin_known else None, f.half[0].bytes,
        f.half[1].bytes, f.started_ns, f.active_ns, f.connected_ns - f.started_ns if f.connected_ns else -1, f.phase - 1, flow_lane(f),
        f.half[0].pending, f.half[1].pending, half_closed,
    )


cdef inline uint64_t summed(Worker* workers, int count, const uint64_t* first) noexcept nogil:
    """The sum of one counter over all workers; first points to it in the first worker's block."""
    cdef size_t offset = <size_t>(<const char*>first - <const char*>workers[0].stats)
    cdef uint64_t total = 0
    cdef int w
    for w in range(count):
        total += atomic_load(<const uint64_t*>(<const char*>workers[w].stats + offset))
    return total


cdef inline list counters_to_python(Worker* workers, int count):
    cdef uint32_t k
    return [summed(workers, count, &workers[0].stats.counters[k]) for k in range(COUNTER_COUNT)]


cdef inline list dial_errors_to_python(Worker* workers, int count):
    """Failed dials by errno; at 0 those of an errno that has no place."""
    cdef int k
    return [summed(workers, count, &workers[0].stats.dial_errors[k]) for k in range(DIAL_ERRNOS)]


cdef inline object opened_to_python(Worker* workers, int count, int listener):
    return summed(workers, count, &workers[0].stats.listeners[listener].opened)


cdef inline tuple bytes_to_python(Worker* workers, int count, int listener):
    """(client to origin, origin to client)"""
    return (
        summed(workers, count, &workers[0].stats.listeners[listener].bytes[0]),
        summed(workers, count, &workers[0].stats.listeners[listener].bytes[1]),
    )


cdef inline list reasons_to_python(Worker* workers, int count, int listener):
    cdef uint32_t k
    return [summed(workers, count, &workers[0].stats.listeners[listener].reasons[k]) for k in range(REASON_COUNT)]


cdef inline void histogram_add(Histogram* sums, const Histogram* one) noexcept nogil:
    cdef int k
    sums.total += atomic_load(&one.total)
    for k in range(HISTOGRAM_BUCKETS):
        sums.counts[k] += atomic_load(&one.counts[k])


cdef inline tuple histogram_to_python(const Histogram* sums, int first, int last, double unit):
    """(bounds, cumulative counts, total); bounds 4**first to 4**last of the unit."""
    cdef uint64_t below = 0
    cdef int k
    bounds = []
    cumulative = []
    for k in range(HISTOGRAM_BUCKETS):
        below += sums.counts[k]
        if first <= k <= last:
            bounds.append(4.0**k * unit)
            cumulative.append(below)
    return tuple(bounds), (*cumulative, below), sums.total * unit


cdef inline tuple histograms_to_python(Worker* workers, int count, int listener):
    """Connect time from 16 us to 17 s, duration from 1 ms to 4.8 h, bytes from 64 to 1 TiB."""
    cdef Histogram connect, duration, size
    cdef int w
    memset(&connect, 0, sizeof(Histogram))
    memset(&duration, 0, sizeof(Histogram))
    memset(&size, 0, sizeof(Histogram))
    for w in range(count):
        histogram_add(&connect, &workers[w].stats.listeners[listener].connect_us)
        histogram_add(&duration, &workers[w].stats.listeners[listener].duration_us)
        histogram_add(&size, &workers[w].stats.listeners[listener].flow_bytes)
    return histogram_to_python(&connect, 2, 12, 1e-6), histogram_to_python(&duration, 5, 17, 1e-6), histogram_to_python(&size, 3, 20, 1.0)
