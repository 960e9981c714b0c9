"""Linux privileges and namespaces: what the standard library lacks. Per thread in the kernel; call before start()."""

def capabilities() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) as bit masks; bit 13 is CAP_NET_RAW, bit 12 CAP_NET_ADMIN."""

def set_capabilities(effective: int, permitted: int, inheritable: int) -> None: ...
def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2); raises OSError."""

def setns(fd: int, kind: int) -> None:
    """setns(2): this thread enters the namespace of a descriptor; raises OSError."""

def unshare(flags: int) -> None:
    """unshare(2): this thread gets namespaces of its own; raises OSError."""
