# Dialling as the client (preserve_client): which local port a borrowed address may use without hurting a stranger.
#
# Two connections meet in this namespace: the client's (origin <- client:P) and ours (client:Q -> origin). The app's end of ours
# has the same four-tuple as the client's own when Q equals P: the kernel then takes one for the other and a stranger is reset.
# So Q comes from a range that clients do not use by themselves (Linux begins at 32768, others at 49152), and before it is used the
# kernel is asked (sock_diag) whether anybody holds the four-tuple or its mirror image.
#
# Owns: the choice of Q; the netlink socket by which the kernel is asked.
# Who may touch it: _dial.
# Never here: the client's own port.

from libc.errno cimport EADDRINUSE, EADDRNOTAVAIL
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from relaycore._addr cimport Addr, addr_is_v4, addr_to_sockaddr
from relaycore._core cimport Worker
from relaycore._flow cimport ORIGIN, Flow
from relaycore._libc cimport (
    AF_INET, AF_INET6, IPV6_TRANSPARENT, IP_TRANSPARENT, SOL_IP, SOL_IPV6, SOL_SOCKET, SO_REUSEADDR, htons, sockaddr_storage,
    socklen_t,
)
from relaycore._sys cimport sys_bind, sys_diag_held, sys_set_int

cdef enum:
    SPOOF_FIRST_PORT = 10240
    SPOOF_PORTS = 32768 - 10240
    # With a tenth of the range in use, 16 tries fail once in 10**16 dials.
    SPOOF_TRIES = 16


cdef inline uint32_t next_random(Worker* w) noexcept nogil:
    """splitmix64: ports that are hard to run into, not secrets."""
    cdef uint64_t z
    w.random += 0x9e3779b97f4a7c15ULL
    z = w.random
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL
    return <uint32_t>((z ^ (z >> 31)) >> 32)


cdef inline bint ends_held(Worker* w, const Addr* local, const Addr* remote) noexcept nogil:
    """Whether a socket here joins these two."""
    cdef bint v4 = addr_is_v4(local)
    cdef int from_byte = 12 if v4 else 0
    return sys_diag_held(
        w.diag_fd, next_random(w), AF_INET if v4 else AF_INET6, &local.ip[from_byte], &remote.ip[from_byte], 16 - from_byte,
        htons(local.port), htons(remote.port),
    )


cdef inline int bind_as_client(Worker* w, Flow* flow) noexcept nogil:
    """0 or -errno. Needs CAP_NET_RAW or CAP_NET_ADMIN, which the start made sure of."""
    cdef int fd = flow.side[ORIGIN].fd
    cdef Addr source = flow.client
    cdef sockaddr_storage address
    cdef socklen_t size
    cdef int answer, _try
    if addr_is_v4(&source):
        answer = sys_set_int(fd, SOL_IP, IP_TRANSPARENT, 1)
    else:
        answer = sys_set_int(fd, SOL_IPV6, IPV6_TRANSPARENT, 1)
    # A port may serve several origins: what must be unique is the four-tuple, which is looked at below.
    if answer == 0:
        answer = sys_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1)
    if answer < 0:
        return answer
    for _try in range(SPOOF_TRIES):
        source.port = <uint16_t>(SPOOF_FIRST_PORT + next_random(w) % SPOOF_PORTS)
        if ends_held(w, &flow.origin, &source) or ends_held(w, &source, &flow.origin):
            continue
        size = addr_to_sockaddr(&source, &address)
        answer = sys_bind(fd, &address, size)
        if answer != -EADDRINUSE:
            return answer
    return -EADDRNOTAVAIL
