# Loads and stores between a worker and Python, and between workers.
#
# Owns: the memory orders in use. A counter has one writer and is relaxed; a slot of the mailbox is handed over by an
# exchange; a ring publishes its head with release and reads its tail with acquire; what goes from worker to worker is
# pushed on a list that its taker empties whole.
# Who may touch it: every room of relaycore.
# Never here: a lock. The GIL is none either.

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t relay_load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void relay_store(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline uint64_t relay_acquire(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void relay_release(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uint64_t relay_add(uint64_t *p, uint64_t v) { return __atomic_add_fetch(p, v, __ATOMIC_ACQ_REL); }
    static inline uint64_t relay_exchange(uint64_t *p, uint64_t v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }
    static inline void *relay_swap(void **p, void *v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }
    static inline int relay_push(void **head, void *node, void **next) {
        void *first = __atomic_load_n(head, __ATOMIC_RELAXED);
        do {
            *next = first;
        } while (!__atomic_compare_exchange_n(head, &first, node, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
        return first == NULL;
    }
    """
    uint64_t atomic_load "relay_load"(const uint64_t* place) noexcept nogil
    void atomic_store "relay_store"(uint64_t* place, uint64_t value) noexcept nogil
    uint64_t atomic_acquire "relay_acquire"(const uint64_t* place) noexcept nogil
    void atomic_release "relay_release"(uint64_t* place, uint64_t value) noexcept nogil
    uint64_t atomic_add "relay_add"(uint64_t* place, uint64_t value) noexcept nogil       # the new value
    uint64_t atomic_exchange "relay_exchange"(uint64_t* place, uint64_t value) noexcept nogil
    void* atomic_swap "relay_swap"(void** place, void* value) noexcept nogil
    # In front of a list that many add to and one takes whole, by atomic_swap(head, NULL). True: it was empty. The node may be gone.
    bint atomic_push "relay_push"(void** head, void* node, void** next) noexcept nogil


cdef inline void bump(uint64_t* counter, uint64_t by) noexcept nogil:
    """Raise a counter that this thread alone writes: no locked instruction is needed, only a store nobody sees torn."""
    atomic_store(counter, atomic_load(counter) + by)
