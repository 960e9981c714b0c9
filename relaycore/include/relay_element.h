/*
 * Compiled elements for relay-sidecar: what a C program has to provide, and what it may rely on. This header is the reference;
 * docs/elements-compiled.md is the way in, relaycore/compiled.pxd says the same for Cython.
 *
 * A compiled element is a `relay_element`, static and constant, whose address Python is given in a capsule named
 * RELAY_ELEMENT_CAPSULE, as attribute `compiled` of a class that derives from relaycore.element.Element:
 *
 *     class Upper(Element):
 *         compiled = my_module.upper
 *
 * Threads. Every function is called without the GIL, or with it, and can rely on neither: it must not use Python at all. For one
 * flow no two calls overlap. For different flows they do, on different threads: what `shared` points to is the element's to lock,
 * and is best left unchanged. A call should not wait: it holds up every flow of its worker.
 *
 * Bytes. Requests go from the client to the origin and pass the elements in the order of the configuration; responses go back
 * and pass them in reverse. A piece has as many bytes as happened to come, at least one, without regard to where messages begin
 * or end.
 */
#ifndef RELAY_ELEMENT_H
#define RELAY_ELEMENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RELAY_ELEMENT_ABI 1
#define RELAY_ELEMENT_CAPSULE "relay_element.1"
/* configure() may return a capsule of this name; its pointer is `shared` in every call. Otherwise `shared` is NULL. */
#define RELAY_SHARED_CAPSULE "relay_element.shared"

/* What `half` may be, in calls. */
#define RELAY_REQUEST 0
#define RELAY_RESPONSE 1

/* What `halves` is made of. */
#define RELAY_REQUESTS 1
#define RELAY_RESPONSES 2

/* data() and ended() answer with the number of bytes that go on, 0 to room, which stand where they were given; or with: */
#define RELAY_HOLD (-1)    /* keep these bytes for me, and give them again in front of the next ones; never from ended() */
#define RELAY_RELEASE (-2) /* all `size` bytes go on, and I am never called again for this flow; its state stays until it ends */
#define RELAY_REJECT (-3)  /* reset the connection, on both sides; these bytes go nowhere */
#define RELAY_CLOSE (-4)   /* end it politely, on both sides; these bytes go nowhere */
#define RELAY_FAIL (-5)    /* I cannot go on: the flow ends, or goes on without me, as `on_error` of the configuration says */
/* RELEASE, REJECT or CLOSE once the first n bytes, as they are now, have gone on. */
#define RELAY_WITH(n, verdict) ((int64_t)(verdict) - 16 - (int64_t)(n) * 8)

/* opened() answers with RELAY_ON, RELAY_RELEASE, RELAY_REJECT (or CLOSE, which is the same there) or RELAY_FAIL. */
#define RELAY_ON 0

/* data() has room for twice the bytes that it is given, and so many more, or for more than that. */
#define RELAY_LEAST_ROOM 4096
#define RELAY_MOST_STATE (1 << 20)

/* What is known of a flow when it opens; it ends with the call. */
typedef struct relay_flow {
    uint64_t id;           /* as in the access record */
    const char *listener;  /* the name of its listener */
    uint8_t client[16];    /* network order; IPv4 as ::ffff:a.b.c.d */
    uint8_t origin[16];
    uint16_t client_port;  /* host order */
    uint16_t origin_port;
} relay_flow;

typedef struct relay_element {
    uint32_t abi;       /* RELAY_ELEMENT_ABI */
    uint32_t halves;    /* which bytes it hears: RELAY_REQUESTS, RELAY_RESPONSES, both, or 0 for none */
    size_t state_bytes; /* memory of each flow, zeroed when it begins, aligned for any type; at most RELAY_MOST_STATE */

    /* Somebody wants to connect; nothing is dialled yet. NULL: go on. */
    int (*opened)(void *shared, void *state, const relay_flow *flow);

    /* A piece of a half: `size` bytes, at least 1, that may be changed in place and may grow up to `room`. What the configuration
     * calls max_held limits HOLD, and max_output the answer. Without `may_drop = True` in the class, 0 is an error. What stands
     * at `bytes` is read only until the call returns, and nothing there is the element's afterwards. NULL only where halves is 0. */
    int64_t (*data)(void *shared, void *state, int half, uint8_t *bytes, size_t size, size_t room);

    /* The half has ended. What HOLD has kept, if anything, is given once more, and the answer is the last that goes on.
     * NULL: what was held goes on as it is. */
    int64_t (*ended)(void *shared, void *state, int half, uint8_t *bytes, size_t size, size_t room);

    /* The flow is over, for this reason (see the access log). Not called after a release. NULL: nothing. */
    void (*closed)(void *shared, void *state, const char *reason);
} relay_element;

/* Behind Python.h: the capsule of an element, a new reference. */
#ifdef Py_PYTHON_H
static inline PyObject *relay_element_capsule(const relay_element *element) {
    return PyCapsule_New((void *)element, RELAY_ELEMENT_CAPSULE, NULL);
}
#endif

#ifdef __cplusplus
}
#endif

#endif
