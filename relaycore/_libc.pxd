# What libc and the kernel's headers declare, as far as the engine uses it.
#
# Owns: declarations, nothing else.
# Who may touch it: _sys calls these functions; other rooms take constants and structs from here, never a function.
# Never here: code.

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <pthread.h>
    #include <signal.h>
    #include <time.h>
    #include <sched.h>
    #include <unistd.h>
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <linux/capability.h>
    #include <linux/inet_diag.h>
    #include <linux/netlink.h>
    #include <linux/sock_diag.h>
    #include <linux/sockios.h>

    /* As in linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h, which do not go with netinet/in.h. */
    #define RELAY_ORIGINAL_DST 80
    """
    ctypedef int socklen_t
    ctypedef unsigned short sa_family_t
    ctypedef struct sigset_t:
        pass
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr:
        sa_family_t sa_family
    struct sockaddr_in:
        sa_family_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        sa_family_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    struct sockaddr_storage:
        sa_family_t ss_family
    struct linger_option "linger":
        int l_onoff
        int l_linger
    struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
    struct inet_diag_sockid:
        uint16_t idiag_sport
        uint16_t idiag_dport
        uint32_t idiag_src[4]
        uint32_t idiag_dst[4]
        uint32_t idiag_cookie[2]
    struct inet_diag_req_v2:
        uint8_t sdiag_family
        uint8_t sdiag_protocol
        inet_diag_sockid id
    struct inet_diag_msg:
        uint8_t idiag_state
    struct __user_cap_header_struct:
        uint32_t version
        int pid
    struct __user_cap_data_struct:
        uint32_t effective
        uint32_t permitted
        uint32_t inheritable
    struct timespec:
        long tv_sec
        long tv_nsec
    ctypedef long time_t
    struct tm:
        int tm_year
    struct pollfd:
        int fd
        short events
        short revents
    union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data

    const int AF_INET, AF_INET6, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, IPPROTO_TCP, TCP_LISTEN
    const int SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SOL_IP, SOL_IPV6, SOL_TCP
    const int SO_ERROR, SO_LINGER, SO_MARK, SO_KEEPALIVE, SO_OOBINLINE, SO_REUSEADDR
    const int TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, IP_TRANSPARENT, IPV6_TRANSPARENT
    const int SO_ORIGINAL_DST "RELAY_ORIGINAL_DST"
    const int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, SHUT_WR
    const int SIOCATMARK, SIOCOUTQ
    const unsigned int SPLICE_F_MOVE, SPLICE_F_NONBLOCK
    const int F_SETPIPE_SZ, F_GETPIPE_SZ, O_CLOEXEC, O_NONBLOCK
    const uint32_t EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLET
    const int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    const int EFD_CLOEXEC, EFD_NONBLOCK
    const short POLLIN, POLLOUT
    const int CLOCK_MONOTONIC, SIG_BLOCK
    const long SYS_capget, SYS_capset
    const uint32_t _LINUX_CAPABILITY_VERSION_3
    const int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    void* MAP_FAILED

    int c_accept4 "accept4"(int fd, sockaddr* peer, socklen_t* size, int flags) nogil
    int c_bind "bind"(int fd, const sockaddr* address, socklen_t size) nogil
    int c_clock_gettime "clock_gettime"(int clock, timespec* out) nogil
    int c_close "close"(int fd) nogil
    int c_connect "connect"(int fd, const sockaddr* peer, socklen_t size) nogil
    int c_epoll_create1 "epoll_create1"(int flags) nogil
    int c_epoll_ctl "epoll_ctl"(int epoll, int operation, int fd, epoll_event* event) nogil
    int c_epoll_wait "epoll_wait"(int epoll, epoll_event* events, int capacity, int timeout_ms) nogil
    int c_eventfd "eventfd"(unsigned int value, int flags) nogil
    int c_fcntl "fcntl"(int fd, int command, int argument) nogil
    int c_getsockname "getsockname"(int fd, sockaddr* address, socklen_t* size) nogil
    int c_getsockopt "getsockopt"(int fd, int level, int name, void* value, socklen_t* size) nogil
    int c_ioctl "ioctl"(int fd, unsigned long request, int* value) nogil
    int c_pipe2 "pipe2"(int* fds, int flags) nogil
    int c_poll "poll"(pollfd* fds, unsigned long count, int timeout_ms) nogil
    ssize_t c_read "read"(int fd, void* buffer, size_t size) nogil
    ssize_t c_recv "recv"(int fd, void* buffer, size_t size, int flags) nogil
    ssize_t c_send "send"(int fd, const void* buffer, size_t size, int flags) nogil
    int c_setsockopt "setsockopt"(int fd, int level, int name, const void* value, socklen_t size) nogil
    int c_prctl "prctl"(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) nogil
    int c_setns "setns"(int fd, int kind) nogil
    int c_unshare "unshare"(int flags) nogil
    int c_shutdown "shutdown"(int fd, int how) nogil
    int c_socket "socket"(int family, int kind, int protocol) nogil
    ssize_t c_splice "splice"(int source, void* no_offset, int sink, void* no_offset2, size_t size, unsigned int flags) nogil
    void c_exit_now "_exit"(int status) nogil
    ssize_t c_write "write"(int fd, const void* buffer, size_t size) nogil
    long c_syscall "syscall"(long number, void* a, void* b) nogil
    void* c_mmap "mmap"(void* hint, size_t size, int protection, int flags, int fd, long offset) nogil
    int c_munmap "munmap"(void* place, size_t size) nogil
    int c_sigfillset "sigfillset"(sigset_t* set) nogil
    int c_pthread_sigmask "pthread_sigmask"(int how, const sigset_t* set, sigset_t* old) nogil
    tm* gmtime_r(const time_t* when, tm* out) nogil
    size_t strftime(char* out, size_t room, const char* form, const tm* parts) nogil
    const char* inet_ntop(int family, const void* address, char* out, socklen_t size) nogil
    int inet_pton(int family, const char* text, void* out) nogil
    uint16_t htons(uint16_t value) nogil
    uint16_t ntohs(uint16_t value) nogil
