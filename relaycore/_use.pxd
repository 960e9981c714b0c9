# What chains are made of: an element as it was loaded, a flow as elements see it, and the books of one worker.
#
# Owns: what all flows of a listener share of an element; labels, and what elements send on their own.
# Who may touch it: _chain, and whoever makes chains.
# Never here: an answer.

from libc.stdint cimport uint32_t, uint64_t

from relaycore._addr cimport Addr
from relaycore._calls cimport Call, Tally
from relaycore.compiled cimport relay_element

cdef enum:
    MAX_ELEMENTS = 64           # of one configuration


cdef class Books:
    cdef Tally tallies[MAX_ELEMENTS]
    cdef Call call


cdef class Use:
    cdef readonly uint32_t number
    cdef readonly str name
    cdef readonly object kind
    cdef readonly object shared
    cdef readonly object faults
    cdef readonly bint passes_errors
    cdef readonly uint64_t budget_ns
    cdef uint64_t patience_ns
    cdef readonly size_t max_held
    cdef readonly size_t max_output
    cdef readonly bint may_drop
    cdef const relay_element* compiled      # NULL: it is Python's
    cdef void* compiled_shared  # of `shared`
    cdef readonly bint hears_opened
    cdef readonly bint hears_request
    cdef readonly bint hears_response
    cdef readonly bint hears_closed


cdef class Flow:
    cdef readonly uint64_t id
    cdef readonly str listener
    cdef readonly dict labels
    cdef Addr client_address
    cdef Addr origin_address
    cdef object client_text
    cdef object origin_text
    cdef bytes for_origin       # what elements have sent on their own since the engine looked; None: nothing
    cdef bytes for_client
    cdef size_t waiting[2]      # by half: what its sink had not taken when the engine asked

    cdef bytes more(self, int h, bytes sent, bytes data)


cdef bytes words_of(str by, dict given)
cdef str described(object answer)
cdef void interrupt_call(Books books)
