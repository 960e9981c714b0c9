# Compiled elements in Cython: relay_element.h, which is the reference, as declarations. docs/elements-compiled.md has the way in.
#
#     from relaycore.compiled cimport RELAY_ELEMENT_ABI, RELAY_REQUESTS, relay_element, relay_element_capsule
#
# Owns: those declarations.
# Who may touch it: compiled elements, anywhere; the engine's _compiled.
# Never here: code. relaycore.compiled has the folder of the header.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t


cdef extern from "relay_element.h":
    enum:
        RELAY_ELEMENT_ABI
        RELAY_REQUEST
        RELAY_RESPONSE
        RELAY_REQUESTS
        RELAY_RESPONSES
        RELAY_HOLD
        RELAY_RELEASE
        RELAY_REJECT
        RELAY_CLOSE
        RELAY_FAIL
        RELAY_ON
        RELAY_LEAST_ROOM
        RELAY_MOST_STATE
    const char* RELAY_ELEMENT_CAPSULE
    const char* RELAY_SHARED_CAPSULE
    int64_t RELAY_WITH(size_t n, int verdict) noexcept nogil

    ctypedef struct relay_flow:
        uint64_t id
        const char* listener
        uint8_t client[16]
        uint8_t origin[16]
        uint16_t client_port
        uint16_t origin_port

    ctypedef struct relay_element:
        uint32_t abi
        uint32_t halves
        size_t state_bytes
        int (*opened)(void* shared, void* state, const relay_flow* flow) noexcept nogil
        int64_t (*data)(void* shared, void* state, int half, uint8_t* bytes, size_t size, size_t room) noexcept nogil
        int64_t (*ended)(void* shared, void* state, int half, uint8_t* bytes, size_t size, size_t room) noexcept nogil
        void (*closed)(void* shared, void* state, const char* reason) noexcept nogil

    object relay_element_capsule(const relay_element* element)
