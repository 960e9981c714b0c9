# Addresses: one form for both families, what is local here, and where a captured connection was going.
#
# Owns: Addr, Networks, and the two ways to ask the kernel for an origin.
# Who may touch it: every room above _sys.
# Never here: a fall-back. An origin that cannot be found out is an error for the caller to reject.

from libc.stdint cimport uint16_t, uint32_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from relaycore._libc cimport (
    AF_INET, AF_INET6, SOL_IP, SOL_IPV6, htons, ntohs, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t,
)
from relaycore._sys cimport sys_local_address, sys_original_destination


cdef struct Addr:
    uint8_t ip[16]      # IPv4 as ::ffff:a.b.c.d, so that 1.2.3.4 is one address however it arrived
    uint32_t scope      # of a link-local IPv6 address, else 0
    uint16_t port       # host order


cdef struct Network:
    uint8_t ip[16]
    uint8_t bits        # of 128; an IPv4 network counts the 96 before it


cdef struct Networks:
    Network* wide       # few: looked through one by one
    Network* single     # bits == 128, sorted: searched by halves, a node may have thousands
    uint32_t wide_count
    uint32_t single_count


cdef inline bint addr_is_v4(const Addr* a) noexcept nogil:
    cdef uint32_t i
    for i in range(10):
        if a.ip[i] != 0:
            return False
    return a.ip[10] == 0xff and a.ip[11] == 0xff


cdef inline bint addr_is_unspecified(const Addr* a) noexcept nogil:
    """0.0.0.0 or ::"""
    cdef bint v4 = addr_is_v4(a)
    cdef uint32_t i
    for i in range(12 if v4 else 0, 16):
        if a.ip[i] != 0:
            return False
    return True


cdef inline bint addr_same_ip(const Addr* a, const Addr* b) noexcept nogil:
    return memcmp(a.ip, b.ip, 16) == 0


cdef inline bint addr_same(const Addr* a, const Addr* b) noexcept nogil:
    return a.port == b.port and a.scope == b.scope and addr_same_ip(a, b)


cdef inline bint addr_from_sockaddr(Addr* out, const sockaddr_storage* given) noexcept nogil:
    """False when the family is neither IPv4 nor IPv6; out is zero then."""
    cdef const sockaddr_in* four = <const sockaddr_in*>given
    cdef const sockaddr_in6* six = <const sockaddr_in6*>given
    memset(out, 0, sizeof(Addr))
    if given.ss_family == AF_INET:
        out.ip[10] = 0xff
        out.ip[11] = 0xff
        memcpy(&out.ip[12], &four.sin_addr, 4)
        out.port = ntohs(four.sin_port)
        return True
    if given.ss_family == AF_INET6:
        memcpy(out.ip, &six.sin6_addr, 16)
        out.port = ntohs(six.sin6_port)
        out.scope = six.sin6_scope_id
        return True
    return False


cdef inline socklen_t addr_to_sockaddr(const Addr* a, sockaddr_storage* out) noexcept nogil:
    """A mapped address becomes AF_INET again: the origin is dialled in the family that the client used."""
    cdef sockaddr_in* four = <sockaddr_in*>out
    cdef sockaddr_in6* six = <sockaddr_in6*>out
    memset(out, 0, sizeof(sockaddr_storage))
    if addr_is_v4(a):
        four.sin_family = <unsigned short>AF_INET
        four.sin_port = htons(a.port)
        memcpy(&four.sin_addr, &a.ip[12], 4)
        return sizeof(sockaddr_in)
    six.sin6_family = <unsigned short>AF_INET6
    six.sin6_port = htons(a.port)
    six.sin6_scope_id = a.scope
    memcpy(&six.sin6_addr, a.ip, 16)
    return sizeof(sockaddr_in6)


cdef inline bint network_holds(const Network* network, const Addr* a) noexcept nogil:
    cdef int whole = network.bits // 8
    cdef int rest = network.bits % 8
    if memcmp(network.ip, a.ip, whole) != 0:
        return False
    return rest == 0 or (network.ip[whole] ^ a.ip[whole]) >> (8 - rest) == 0


cdef inline bint networks_hold(const Networks* networks, const Addr* a) noexcept nogil:
    """Whether the address is one of this namespace's own."""
    cdef uint32_t low = 0, high = networks.single_count, middle, i
    cdef int order
    for i in range(networks.wide_count):
        if network_holds(&networks.wide[i], a):
            return True
    while low < high:
        middle = (low + high) // 2
        order = memcmp(networks.single[middle].ip, a.ip, 16)
        if order == 0:
            return True
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return False


cdef inline void networks_free(Networks* networks) noexcept nogil:
    free(networks.wide)
    free(networks.single)
    memset(networks, 0, sizeof(Networks))


cdef inline int origin_of_redirected(int fd, const Addr* client, Addr* origin) noexcept nogil:
    """0 or -errno: -ENOENT when conntrack knows nothing. May yield the own address: the caller compares, always."""
    cdef sockaddr_storage found
    # The level follows the client's family, not the socket's: an IPv4 client of a [::] listener has its entry at SOL_IP.
    cdef int answer = sys_original_destination(fd, SOL_IP if addr_is_v4(client) else SOL_IPV6, &found)
    if answer < 0:
        return answer
    addr_from_sockaddr(origin, &found)
    return 0


cdef inline int origin_of_transparent(int fd, Addr* origin) noexcept nogil:
    """0 or -errno. TPROXY leaves the destination in place: it is the accepted socket's own name."""
    cdef sockaddr_storage found
    cdef int answer = sys_local_address(fd, &found)
    if answer < 0:
        return answer
    addr_from_sockaddr(origin, &found)
    return 0
