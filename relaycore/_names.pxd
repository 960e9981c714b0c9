# Addresses as Python knows them: ("1.2.3.4", 80), ("fe80::1%2", 80). Everything here holds the GIL.
#
# Owns: the textual form of addresses.
# Who may touch it: _convert, and _chain for elements.
# Never here: a name that is no number.

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memset

from relaycore._addr cimport Addr, addr_is_v4
from relaycore._libc cimport AF_INET, AF_INET6, inet_ntop, inet_pton


cdef inline object addr_to_python(const Addr* a):
    cdef char text[64]
    if addr_is_v4(a):
        inet_ntop(AF_INET, &a.ip[12], text, sizeof(text))
    else:
        inet_ntop(AF_INET6, a.ip, text, sizeof(text))
    host = (<bytes>text).decode("ascii")
    return (f"{host}%{a.scope}" if a.scope else host, a.port)


cdef inline int addr_from_python(Addr* out, str host, int port) except -1:
    """ValueError for what is no numeric address."""
    cdef bytes text
    if not 0 <= port <= 65535:
        raise ValueError(f"port: expected 0 to 65535, found {port}")
    host, _, scope = host.partition("%")
    text = host.encode("ascii")
    memset(out, 0, sizeof(Addr))
    out.port = <uint16_t>port
    out.scope = <uint32_t>int(scope) if scope else 0
    out.ip[10] = 0xff
    out.ip[11] = 0xff
    if inet_pton(AF_INET, text, &out.ip[12]) != 1 and inet_pton(AF_INET6, text, out.ip) != 1:
        raise ValueError(f"address: expected a numeric IPv4 or IPv6 address, found {host!r}")
    return 0
