# The making of a chain: an object of each element for a flow that begins.
#
# Owns: the order in which elements hear, and the memory of the compiled ones.
# Who may touch it: _ask and _driver, with the GIL.
# Never here: a call but for the making of an object.

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uint32_t

from relaycore._calls cimport ASKED_OPENED
from relaycore._capsule cimport aligned, block_make, block_next, run_add
from relaycore._chain cimport Chain, Ear, Link
from relaycore._compiled cimport Compiled
from relaycore._use cimport Books, Flow, Use


cdef inline Ear ear_of(Link link, heard, ended):
    cdef Ear ear = Ear.__new__(Ear)
    ear.link = link
    ear.heard = heard
    ear.ended = ended
    return ear


cdef inline Chain chain_of(Books books, list uses, Flow flow):
    """The elements for a flow that begins, each an object of its own. What fails in that is an answer to the opening."""
    cdef Chain chain = Chain.__new__(Chain)
    cdef Link link
    cdef Use use
    cdef Ear ear
    chain.books = books
    chain.flow = flow
    chain.links = []
    chain.requests = []
    chain.responses = []
    if books.call.thread == 0:
        books.call.thread = PyThread_get_thread_ident()
    make_block(chain, uses)
    for use in uses:
        link = Link.__new__(Link)
        link.use = use
        try:
            link.element = use.kind(flow, use.shared)
        except BaseException as error:
            link.off = True
            chain.failed(link, ASKED_OPENED, b"", error)
            continue
        if use.compiled != NULL:
            link.compiled = compiled_for(chain, use)
        chain.links.append(link)
        if use.hears_request:
            chain.requests.append(ear_of(link, link.element.request, link.element.request_ended))
        if use.hears_response:
            chain.responses.insert(0, ear_of(link, link.element.response, link.element.response_ended))
    for ear in chain.requests:
        if ear.link.compiled != NULL:
            run_add(&chain.block.runs[0], ear.link.compiled)
    for ear in chain.responses:
        if ear.link.compiled != NULL:
            run_add(&chain.block.runs[1], ear.link.compiled)
    return chain


cdef inline int make_block(Chain chain, list uses) except -1:
    """One piece of memory for all compiled elements of the flow."""
    cdef Use use
    cdef uint32_t count = 0
    cdef size_t state_bytes = 0
    for use in uses:
        if use.compiled != NULL:
            count += 1
            state_bytes += aligned(use.compiled.state_bytes)
    return block_make(&chain.block, count, state_bytes)


cdef inline Compiled* compiled_for(Chain chain, Use use):
    cdef Compiled* c = block_next(&chain.block, use.compiled)
    c.shared = use.compiled_shared
    c.tally = &chain.books.tallies[use.number]
    c.call = &chain.books.call
    c.flow = chain.flow.id
    c.budget_ns = use.budget_ns
    c.max_held = use.max_held
    c.max_output = use.max_output
    c.number = use.number
    c.may_drop = use.may_drop
    c.passes_errors = use.passes_errors
    return c
