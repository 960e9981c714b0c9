# The only door to the kernel: a sys_*() for each call that the engine makes.
#
# Owns: errno. A sys_*() returns a value >= 0 or -errno, and goes on after EINTR. Nobody else reads errno.
# Who may touch it: every room calls it; it alone calls libc.
# Never here: a decision. What an error means is said where it is handled.

from libc.errno cimport EALREADY, EINPROGRESS, EINTR, EISCONN, errno
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset, strlen

from relaycore._libc cimport (
    AF_NETLINK, CLOCK_MONOTONIC, EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, F_GETPIPE_SZ, F_SETPIPE_SZ, IPPROTO_TCP,
    MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, MSG_NOSIGNAL, NETLINK_SOCK_DIAG, NLM_F_REQUEST, O_CLOEXEC,
    O_NONBLOCK, PROT_READ, PROT_WRITE, SHUT_WR, SIG_BLOCK, SIOCATMARK, SIOCOUTQ, SOCK_CLOEXEC, SOCK_DIAG_BY_FAMILY,
    SOCK_NONBLOCK, SOCK_RAW, SOCK_STREAM, SOL_SOCKET, SO_ERROR, SO_LINGER, SO_ORIGINAL_DST, SPLICE_F_MOVE, SPLICE_F_NONBLOCK,
    SYS_capget, SYS_capset, TCP_LISTEN, _LINUX_CAPABILITY_VERSION_3, __user_cap_data_struct, __user_cap_header_struct,
    c_accept4, c_bind, c_clock_gettime, c_close, c_connect, c_epoll_create1, c_epoll_ctl, c_epoll_wait, c_eventfd,
    c_exit_now, c_fcntl, c_getsockname, c_getsockopt, c_ioctl, c_mmap, c_munmap, c_pipe2, c_poll, c_prctl, c_pthread_sigmask, c_read,
    c_recv, c_send, c_setns, c_setsockopt, c_shutdown, c_sigfillset, c_socket, c_splice, c_syscall, c_unshare, c_write, epoll_event,
    inet_diag_msg, inet_diag_req_v2, linger_option, nlmsghdr, pollfd, sigset_t, sockaddr, sockaddr_storage, socklen_t, timespec,
)


cdef inline ssize_t sys_recv(int fd, void* buffer, size_t size, int flags) noexcept nogil:
    cdef ssize_t n
    while True:
        n = c_recv(fd, buffer, size, flags)
        if n >= 0:
            return n
        if errno != EINTR:
            return -errno


cdef inline ssize_t sys_send(int fd, const void* buffer, size_t size, int flags) noexcept nogil:
    """SIGPIPE is always held back: a broken sink is an answer here, not a signal."""
    cdef ssize_t n
    while True:
        n = c_send(fd, buffer, size, flags | MSG_NOSIGNAL)
        if n >= 0:
            return n
        if errno != EINTR:
            return -errno


cdef inline ssize_t sys_splice(int source, int sink, size_t size) noexcept nogil:
    """One end is a pipe. Into a reset socket it raises SIGPIPE, which every worker blocks (sys_block_signals)."""
    cdef ssize_t n
    while True:
        n = c_splice(source, NULL, sink, NULL, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if n >= 0:
            return n
        if errno != EINTR:
            return -errno


cdef inline int sys_accept(int fd, sockaddr_storage* peer) noexcept nogil:
    """The caller owns the descriptor."""
    cdef int accepted
    cdef socklen_t size = sizeof(sockaddr_storage)
    while True:
        accepted = c_accept4(fd, <sockaddr*>peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if accepted >= 0:
            return accepted
        if errno != EINTR:
            return -errno


cdef inline int sys_socket(int family) noexcept nogil:
    """A TCP socket, non-blocking, close-on-exec; the caller owns it."""
    cdef int fd = c_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    return fd if fd >= 0 else -errno


cdef inline int sys_connect(int fd, const sockaddr_storage* peer, socklen_t size) noexcept nogil:
    """0 when connected, -EINPROGRESS while the attempt is under way. Asked again after EINTR, it answers what has come of it."""
    while c_connect(fd, <const sockaddr*>peer, size) < 0:
        if errno == EISCONN:
            return 0
        if errno == EALREADY:
            return -EINPROGRESS
        if errno != EINTR:
            return -errno
    return 0


cdef inline int sys_bind(int fd, const sockaddr_storage* address, socklen_t size) noexcept nogil:
    return 0 if c_bind(fd, <const sockaddr*>address, size) == 0 else -errno


cdef inline int sys_close(int fd) noexcept nogil:
    """Linux frees the descriptor even when it answers EINTR: never ask twice."""
    return 0 if c_close(fd) == 0 else -errno


cdef inline int sys_shutdown_write(int fd) noexcept nogil:
    return 0 if c_shutdown(fd, SHUT_WR) == 0 else -errno


cdef inline int sys_set_int(int fd, int level, int name, int value) noexcept nogil:
    return 0 if c_setsockopt(fd, level, name, &value, sizeof(int)) == 0 else -errno


cdef inline int sys_reset_on_close(int fd) noexcept nogil:
    """SO_LINGER 0: the coming close() sends RST and destroys what is still queued."""
    cdef linger_option now
    now.l_onoff = 1
    now.l_linger = 0
    return 0 if c_setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(linger_option)) == 0 else -errno


cdef inline int sys_socket_error(int fd) noexcept nogil:
    """The socket's pending error, >= 0, which this call takes: errors do not stick. -errno when it cannot be asked."""
    cdef int error = 0
    cdef socklen_t size = sizeof(int)
    return error if c_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 else -errno


cdef inline int sys_original_destination(int fd, int level, sockaddr_storage* out) noexcept nogil:
    """SO_ORIGINAL_DST: what conntrack knows. Also answers, with the own address, when nothing was redirected."""
    cdef socklen_t size = sizeof(sockaddr_storage)
    return 0 if c_getsockopt(fd, level, SO_ORIGINAL_DST, out, &size) == 0 else -errno


cdef inline int sys_local_address(int fd, sockaddr_storage* out) noexcept nogil:
    cdef socklen_t size = sizeof(sockaddr_storage)
    return 0 if c_getsockname(fd, <sockaddr*>out, &size) == 0 else -errno


cdef inline int sys_at_mark(int fd) noexcept nogil:
    """1 when the next byte to read is the urgent one, 0 when not."""
    cdef int answer = 0
    return (answer != 0) if c_ioctl(fd, SIOCATMARK, &answer) == 0 else -errno


cdef inline int sys_unacknowledged(int fd) noexcept nogil:
    """Bytes in the send queue that the peer's kernel has not acknowledged."""
    cdef int answer = 0
    return answer if c_ioctl(fd, SIOCOUTQ, &answer) == 0 else -errno


cdef inline int sys_pipe(int* fds) noexcept nogil:
    """fds[0] reads, fds[1] writes; the caller owns both."""
    return 0 if c_pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0 else -errno


cdef inline int sys_pipe_grow(int fd, int capacity) noexcept nogil:
    """The capacity that the pipe has afterwards."""
    cdef int size = c_fcntl(fd, F_SETPIPE_SZ, capacity)
    if size < 0:
        size = c_fcntl(fd, F_GETPIPE_SZ, 0)
    return size if size >= 0 else -errno


cdef inline int sys_epoll() noexcept nogil:
    cdef int fd = c_epoll_create1(EPOLL_CLOEXEC)
    return fd if fd >= 0 else -errno


cdef inline int sys_epoll_set(int epoll, int operation, int fd, uint32_t events, uint64_t token) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = token
    return 0 if c_epoll_ctl(epoll, operation, fd, &event) == 0 else -errno


cdef inline int sys_epoll_wait(int epoll, epoll_event* events, int capacity, int timeout_ms) noexcept nogil:
    """An interruption is an empty batch: the caller computes its time-out anew."""
    cdef int n = c_epoll_wait(epoll, events, capacity, timeout_ms)
    if n >= 0:
        return n
    return 0 if errno == EINTR else -errno


cdef inline int sys_eventfd() noexcept nogil:
    cdef int fd = c_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    return fd if fd >= 0 else -errno


cdef inline void sys_eventfd_ring(int fd) noexcept nogil:
    """EAGAIN means that it rings already."""
    cdef uint64_t one = 1
    while c_write(fd, &one, sizeof(uint64_t)) < 0 and errno == EINTR:
        pass


cdef inline void sys_eventfd_clear(int fd) noexcept nogil:
    cdef uint64_t count = 0
    while c_read(fd, &count, sizeof(uint64_t)) < 0 and errno == EINTR:
        pass


cdef inline int sys_poll_one(int fd, short events, int timeout_ms) noexcept nogil:
    """The events that hold for fd, 0 at the time-out."""
    cdef pollfd entry
    entry.fd = fd
    entry.events = events
    entry.revents = 0
    cdef int n = c_poll(&entry, 1, timeout_ms)
    if n > 0:
        return entry.revents
    return 0 if n == 0 or errno == EINTR else -errno


cdef inline uint64_t sys_now_ns() noexcept nogil:
    """CLOCK_MONOTONIC: a step of the wall clock moves no timer."""
    cdef timespec now
    c_clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


cdef inline void sys_leave(const char* words) noexcept nogil:
    """End the process with status 1, and with a line on stderr."""
    c_write(2, words, strlen(words))
    c_exit_now(1)


cdef inline void sys_block_signals() noexcept nogil:
    """For the calling thread: the main thread keeps the signals, and SIGPIPE kills nobody."""
    cdef sigset_t everything
    c_sigfillset(&everything)
    c_pthread_sigmask(SIG_BLOCK, &everything, NULL)


cdef inline void* sys_map(size_t size) noexcept nogil:
    """Zeroed address space whose pages cost memory once they are touched; NULL when there is none."""
    cdef void* place = c_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return NULL if place == MAP_FAILED else place


cdef inline void sys_unmap(void* place, size_t size) noexcept nogil:
    if place != NULL:
        c_munmap(place, size)


cdef inline int sys_capget(__user_cap_data_struct* out) noexcept nogil:
    """The calling thread's sets, two words of each."""
    cdef __user_cap_header_struct header
    header.version = _LINUX_CAPABILITY_VERSION_3
    header.pid = 0
    return 0 if c_syscall(SYS_capget, &header, out) == 0 else -errno


cdef inline int sys_capset(__user_cap_data_struct* sets) noexcept nogil:
    cdef __user_cap_header_struct header
    header.version = _LINUX_CAPABILITY_VERSION_3
    header.pid = 0
    return 0 if c_syscall(SYS_capset, &header, sets) == 0 else -errno


cdef inline int sys_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) noexcept nogil:
    cdef int answer = c_prctl(option, a, b, c, d)
    return answer if answer >= 0 else -errno


cdef inline int sys_setns(int fd, int kind) noexcept nogil:
    return 0 if c_setns(fd, kind) == 0 else -errno


cdef inline int sys_unshare(int flags) noexcept nogil:
    return 0 if c_unshare(flags) == 0 else -errno


cdef struct DiagQuestion:
    nlmsghdr header
    inet_diag_req_v2 request


cdef inline int sys_diag_open() noexcept nogil:
    """A netlink socket for sys_diag_held(); the caller owns it."""
    cdef int fd = c_socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    return fd if fd >= 0 else -errno


cdef inline bint sys_diag_held(
    int fd, uint32_t sequence, int family, const uint8_t* local, const uint8_t* remote, size_t size, uint16_t local_port,
    uint16_t remote_port,
) noexcept nogil:
    """Whether this namespace has a TCP socket with exactly these ends, in any state; ports in network order. False when unknown.

    The kernel answers within send(): nothing is waited for.
    """
    cdef DiagQuestion question
    cdef uint8_t answer[1024]
    cdef ssize_t n
    memset(&question, 0, sizeof(DiagQuestion))
    question.header.nlmsg_len = sizeof(DiagQuestion)
    question.header.nlmsg_type = <uint16_t>SOCK_DIAG_BY_FAMILY
    question.header.nlmsg_flags = <uint16_t>NLM_F_REQUEST
    question.header.nlmsg_seq = sequence
    question.request.sdiag_family = <uint8_t>family
    question.request.sdiag_protocol = <uint8_t>IPPROTO_TCP
    question.request.id.idiag_sport = local_port
    question.request.id.idiag_dport = remote_port
    memcpy(question.request.id.idiag_src, local, size)
    memcpy(question.request.id.idiag_dst, remote, size)
    memset(question.request.id.idiag_cookie, 0xff, sizeof(question.request.id.idiag_cookie))
    if sys_send(fd, &question, sizeof(DiagQuestion), 0) < 0:
        return False
    n = sys_recv(fd, answer, sizeof(answer), 0)
    while n >= <ssize_t>sizeof(nlmsghdr) and (<nlmsghdr*>answer).nlmsg_seq != sequence:     # left over from a question that failed
        n = sys_recv(fd, answer, sizeof(answer), 0)
    if n < <ssize_t>(sizeof(nlmsghdr) + sizeof(inet_diag_msg)) or (<nlmsghdr*>answer).nlmsg_type != SOCK_DIAG_BY_FAMILY:
        return False
    # The look-up falls back to a listener of the local port: that one holds no pair of ends.
    return (<inet_diag_msg*>(answer + sizeof(nlmsghdr))).idiag_state != TCP_LISTEN
