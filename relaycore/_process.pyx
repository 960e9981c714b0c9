"""Linux privileges and namespaces: what the standard library lacks.

Owns: these few calls. Who may touch it: sidecar.privileges and the demo, before threads are started.
Never here: a decision about who the relay is.
"""

import os

from libc.stdint cimport uint32_t, uint64_t

from relaycore._libc cimport __user_cap_data_struct
from relaycore._sys cimport sys_capget, sys_capset, sys_prctl, sys_setns, sys_unshare


cdef int check(int answer, str what) except -1:
    """OSError from a sys_*() that said no."""
    if answer < 0:
        raise OSError(-answer, f"{what}: {os.strerror(-answer)}")
    return answer


def capabilities():
    cdef __user_cap_data_struct sets[2]
    check(sys_capget(sets), "capget")
    return (
        sets[0].effective | <uint64_t>sets[1].effective << 32, sets[0].permitted | <uint64_t>sets[1].permitted << 32,
        sets[0].inheritable | <uint64_t>sets[1].inheritable << 32,
    )


def set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable):
    cdef __user_cap_data_struct sets[2]
    cdef int i
    for i in range(2):
        sets[i].effective = <uint32_t>(effective >> 32 * i)
        sets[i].permitted = <uint32_t>(permitted >> 32 * i)
        sets[i].inheritable = <uint32_t>(inheritable >> 32 * i)
    check(sys_capset(sets), "capset")


def prctl(int option, unsigned long arg2=0, unsigned long arg3=0, unsigned long arg4=0, unsigned long arg5=0):
    return check(sys_prctl(option, arg2, arg3, arg4, arg5), f"prctl {option}")


def setns(int fd, int kind):
    check(sys_setns(fd, kind), "setns")


def unshare(int flags):
    check(sys_unshare(flags), "unshare")
