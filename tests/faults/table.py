"""The faults, as data: how each is made here, what is correct then, over which captures, families and lanes it is tried.

Owns: the list. test_faults.py plays each row's scenario for every variant, lane, capture and family; a row without one fails.
Never: how a fault is made; that is in the scenario modules, by the row's id.
"""

from dataclasses import dataclass

from tests.support.adversity import REJECTIONS
from tests.support.network import FAMILIES, V4

CAPTURED = ("redirect", "tproxy")
EVERYWHERE = ("redirect", "tproxy", "none")
LANES = ("copy", "splice")
SIDES = ("client", "origin")
RESET_STATES = ("idle", "data", "after-own-fin", "after-peer-fin", "blocked")
INJECTED = (
    *(f"accept4-{error}" for error in ("ENFILE", "EMFILE", "ENOMEM", "ENOBUFS", "EINTR", "ECONNABORTED")),
    *(f"socket-{error}" for error in ("ENFILE", "EMFILE", "ENOMEM", "ENOBUFS")),
    *(f"epoll_ctl-{error}" for error in ("ENOMEM", "ENOSPC")),
    *(f"pipe2-{error}" for error in ("ENFILE", "EMFILE")),
    *(f"splice-{error}" for error in ("ENOMEM", "EINTR")),
    *(f"{call}-EINTR" for call in ("recvfrom", "sendto", "connect", "epoll_wait")),
)
OWN_ADDRESSES = ("loopback", "loopback-other", "mapped", "pod", "mapped-pod", "wildcard")


@dataclass(frozen=True)
class Row:
    """One fault. `directions` are where it makes a difference whether the relay stands before the app or behind it."""

    id: str
    made: str
    correct: str
    variants: tuple[str, ...] = ("",)
    captures: tuple[str, ...] = CAPTURED
    families: tuple[int, ...] = FAMILIES
    directions: tuple[str, ...] = ("outbound",)
    lanes: tuple[str, ...] = ("",)


ROWS = [
    Row(
        "refused",
        "the origin's machine rejects, in each way there is",
        "the client gets RST, never FIN; counted by errno",
        variants=tuple(REJECTIONS),
        directions=("outbound", "inbound"),
    ),
    Row("closed-port", "nobody listens at the origin", "the client gets RST; reason refused", captures=EVERYWHERE),
    Row(
        "black-hole",
        "SYNs are dropped, or the origin's backlog is full",
        "RST at connect_timeout +- 10 %; bytes buffered meanwhile bounded",
        variants=("drop", "full-backlog", "bounded"),
    ),
    Row(
        "client-leaves-while-dialling",
        "the client resets before the origin has answered",
        "the dial is cancelled within 10 ms",
        variants=("drop",),
    ),
    Row("client-fin-while-dialling", "the client sends all it has and its FIN before the origin answers", "it is relayed"),
    Row("reset-before-accept", "the client resets while it waits to be accepted", "nothing is dialled", captures=EVERYWHERE),
    Row(
        "reset",
        "SO_LINGER 0 in mid-stream, on either side, in every state of the halves",
        "what was received is delivered, then the reset is passed on; one reason, naming the side",
        variants=tuple(f"{side}-{state}" for side in SIDES for state in RESET_STATES),
        captures=EVERYWHERE,
        lanes=LANES,
    ),
    Row(
        "socket-killed",
        "ss -K on the relay's own socket of either side",
        "both ends get RST; other flows go on",
        variants=SIDES,
    ),
    Row(
        "half-close",
        "shutdown(WR) by either side first, and by both at once",
        "FIN after the last byte; the other half stays open; reason finished",
        variants=("client-first", "origin-first", "at-once"),
        captures=EVERYWHERE,
        lanes=LANES,
    ),
    Row(
        "urgent-data",
        "MSG_OOB at every offset, inside bulk, and right before the FIN",
        "no byte lost, no spin",
        variants=tuple(f"{side}-{place}" for side in SIDES for place in ("every-offset", "in-bulk", "before-fin")),
        captures=EVERYWHERE,
    ),
    Row(
        "slow-peer",
        "a receiver with a window of 4 KB that does not read",
        "memory per flow bounded; every byte arrives once it reads",
        variants=SIDES,
        captures=EVERYWHERE,
    ),
    Row(
        "idle",
        "a receiver that reads a little from time to time, then nothing",
        "the idle timeout counts progress: alive while bytes move, RST once they do not",
        captures=EVERYWHERE,
    ),
    Row(
        "half-open-peer",
        "the peer's link goes down while the flow is idle; keepalive 1/1/3",
        "ETIMEDOUT by keepalive; RST to the other side",
        directions=("outbound", "inbound"),
    ),
    Row(
        "bad-link",
        "packets lost, an MSS of 88, a link of 50 Mbit/s",
        "bytes exact, no stall",
        variants=("loss", "small-mss", "low-bandwidth"),
        directions=("outbound", "inbound"),
    ),
    Row(
        "descriptors-gone",
        "RLIMIT_NOFILE",
        "accepting pauses, the backlog waits; after 1 s one connection per 10 ms is reset; counted",
        variants=("freed-in-time", "lasting"),
        captures=EVERYWHERE,
    ),
    Row(
        "flows-limited",
        "more connections than max_flows",
        "as for descriptors",
        variants=("freed-in-time", "lasting"),
        captures=EVERYWHERE,
    ),
    Row(
        "injected",
        "strace -e inject, call by call, error by error",
        "one connection lost per error at most, none by EINTR, never a worker",
        variants=INJECTED,
        families=(V4,),
        captures=("redirect",),
    ),
    Row(
        "pipes-gone",
        "another process of the same user holds all the pipes that the user may have",
        "COPY stands in; every byte arrives; at least half the throughput",
    ),
    Row(
        "ports-gone",
        "ip_local_port_range of 100 ports, 100 of them in use to one destination",
        "EADDRNOTAVAIL counted, RST",
    ),
    Row(
        "conntrack-flushed",
        "conntrack -F under live flows",
        "REDIRECT flows may die, with one reason; TPROXY flows go on, whoever speaks first",
        variants=("client-speaks", "origin-speaks"),
    ),
    Row(
        "rules-removed",
        "the relay's table is deleted and applied again",
        "noticed within 5 s and reported; repair without duplicates; the relay lives, and captures again",
    ),
    Row(
        "loop",
        "connections straight to the relay's ports, at every address that is its own, in every spelling",
        "RST within 10 ms, ten times over; nothing dialled",
        variants=OWN_ADDRESSES,
    ),
    Row(
        "not-captured",
        "a connection that no rule brought, without conntrack",
        "RST; nothing dialled",
        captures=("redirect",),
    ),
    Row(
        "open-relay",
        "a neighbour sends to the relay's ports, routes a foreign address to us, or profits from bad rules",
        "RST or nothing at all; nothing dialled",
        variants=("direct-inbound", "direct-outbound", "routed", "foreign-origin", "foreign-client"),
    ),
    Row(
        "storm",
        "8,000 connections at once",
        "memory bounded, over 99 % served",
        captures=EVERYWHERE,
    ),
    Row(
        "sigterm",
        "SIGTERM with 1,000 flows; with flows that do not end; twice",
        "no accept, flows finish, exit 0 when empty; RST at the deadline; the second one: now",
        variants=("flows-end", "deadline", "twice"),
        captures=EVERYWHERE,
    ),
    Row(
        "bad-reload",
        "SIGHUP with 100 spoilt files",
        "the old configuration goes on; the error names file and key",
        captures=("none",),
    ),
    Row(
        "clock-step",
        "the wall clock jumps a year ahead and back (libfaketime)",
        "nothing: timers are monotonic",
        captures=("none",),
    ),
    Row(
        "log-stuck",
        "stdout is /dev/full, or a pipe that nobody reads",
        "the data path is untouched; drops counted; memory bounded",
        variants=("disk-full", "blocked"),
        captures=("none",),
    ),
]
