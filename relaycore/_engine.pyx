"""The engine's face to Python: class Engine.

Owns: the memory of all workers, their threads, and the one `with nogil` that runs them (see _worker.pxd for the loop).
Who may touch it: sidecar.proxy.
Never here: a decision about a flow; anything that a worker waits for.
"""

import os
import threading
import time
from errno import errorcode

from cython cimport no_gc_clear
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from relaycore._facts import Histogram, LiveFlow, Record, StuckCall
from relaycore._use import METHODS, TALLIES
from relaycore._words import CAPTURES, COUNTERS, DIRECTIONS, HISTOGRAMS, LANES, REASONS

from relaycore._ask cimport batch_lend
from relaycore._atomic cimport atomic_acquire, atomic_exchange, atomic_load
from relaycore._check cimport RELAY_BUILD
from relaycore._convert cimport (
    addr_from_python, bytes_to_python, counters_to_python, dial_errors_to_python, flow_to_python,
    histograms_to_python, lines_to_python, opened_to_python, reasons_to_python, record_to_python, settings_from_python,
)
from relaycore._core cimport MAX_SOCKETS, TURN_BYTES, Listener, Shared, Worker
from relaycore._flow cimport Capture, Direction, Flow
from relaycore._libc cimport POLLIN
from relaycore._mailbox cimport (
    DRAIN, STOP, Mailbox, Settings, Snapshot, post_order, post_settings, post_snapshot, take_back_snapshot,
)
from relaycore._make cimport Sizes, close_if_open, worker_blank, worker_free, worker_listen, worker_make, worker_prepare_spoofing
from relaycore._pipe cimport BUFFER_BYTES, PIPE_BYTES
from relaycore._ring cimport Finished, ring_take
from relaycore._stats cimport COUNTER_COUNT, MAX_LISTENERS, REASON_COUNT
from relaycore._sys cimport sys_eventfd, sys_eventfd_clear, sys_eventfd_ring, sys_poll_one
from relaycore._use cimport Books, interrupt_call
from relaycore._warden cimport Seen, await_stuck, held_interpreter, last_resort
from relaycore._worker cimport worker_run

BUILD = (<bytes>RELAY_BUILD).decode("ascii")

LANE_WORDS = tuple(word.encode() for word in LANES)
REASON_WORDS = tuple(word.encode() for word in REASONS)

if len(REASONS) != REASON_COUNT or len(COUNTERS) != COUNTER_COUNT:
    raise ImportError("relaycore: the names of reasons or counters are not those of the engine")


cdef int check(int answer, str what) except -1:
    """OSError from a sys_*() that said no."""
    if answer < 0:
        raise OSError(-answer, f"{what}: {os.strerror(-answer)}")
    return answer


@no_gc_clear      # until the end: elements that are left are told with what it holds
cdef class Engine:
    cdef Shared* shared
    cdef Worker* workers
    cdef uint32_t worker_count
    cdef uint32_t plain_count
    cdef list books         # of the workers for flows with elements
    cdef list plans         # by listener: its name and the elements of flows that begin there
    cdef int answer_fd
    cdef object threads, asking

    def __cinit__(self):
        self.answer_fd = -1

    def __init__(
        self, settings, *, workers, element_workers=0, max_pipes=32, max_pending_bytes=64 * 1024 * 1024, table_flows=0,
        turn_bytes=TURN_BYTES, copy_bytes=BUFFER_BYTES, pipe_bytes=PIPE_BYTES,
    ):
        cdef uint32_t i
        cdef uint32_t total = workers + element_workers
        cdef Sizes sizes
        if self.shared != NULL:
            raise RuntimeError("Engine: already made")
        for name, value, least, most in (
            ("workers", workers, 1, 1024), ("element_workers", element_workers, 0, 64), ("max_pipes", max_pipes, 0, 1 << 20),
            ("max_pending_bytes", max_pending_bytes, 0, 1 << 44), ("max_flows", settings.max_flows, 1, 1 << 28),
            ("table_flows", table_flows, 0, 1 << 28),
            ("turn_bytes", turn_bytes, 1, 1 << 30), ("copy_bytes", copy_bytes, 1, BUFFER_BYTES), ("pipe_bytes", pipe_bytes, 1, 1 << 30),
        ):
            if not least <= value <= most:
                raise ValueError(f"Engine: {name}: expected {least} to {most}, found {value}")
        self.threads, self.plans, self.asking = [], [], threading.Lock()
        self.shared = <Shared*>calloc(1, sizeof(Shared))
        self.workers = <Worker*>calloc(total, sizeof(Worker))
        if self.shared == NULL or self.workers == NULL:
            raise MemoryError
        self.worker_count, self.plain_count = total, workers
        self.books = [Books() for _ in range(element_workers)]
        for i in range(self.worker_count):
            worker_blank(&self.workers[i])
        self.shared.workers = self.workers
        self.shared.plain_workers = self.plain_count
        self.shared.all_workers = self.worker_count
        self.shared.asleep = 1
        self.shared.wake_fd = -1
        self.shared.wake_fd = check(sys_eventfd(), "eventfd")
        self.answer_fd = check(sys_eventfd(), "eventfd")
        # One flow more than may live: the slot in which a connection over the limit is refused.
        sizes.flows = max(table_flows, settings.max_flows) + 1
        sizes.pipes = max_pipes // total
        sizes.buffers = max_pending_bytes // total // BUFFER_BYTES
        sizes.turn_bytes = turn_bytes
        sizes.copy_bytes = copy_bytes
        sizes.pipe_bytes = pipe_bytes
        for i in range(self.worker_count):
            sizes.elements = i >= self.plain_count
            self.workers[i].settings = settings_from_python(settings)
            self.workers[i].random = int.from_bytes(os.urandom(8), "little")
            check(worker_make(&self.workers[i], self.shared, i, self.worker_count, &sizes), f"worker {i}")
            if sizes.elements:
                batch_lend(self.workers[i].batch, self.books[i - self.plain_count], self.plans, REASONS)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.worker_count):
            worker_free(&self.workers[i])
        if self.shared != NULL:
            close_if_open(self.shared.wake_fd)
        close_if_open(self.answer_fd)
        free(self.workers)
        free(self.shared)

    def add_listener(self, fds, *, direction, capture, port, target=None, preserve_client=False, name="", elements=None):
        cdef uint32_t number = self.shared.listener_count
        cdef uint32_t i
        cdef uint32_t first = 0 if elements is None else self.plain_count
        cdef uint32_t among = self.plain_count if elements is None else self.worker_count - self.plain_count
        cdef Listener* listener = &self.shared.listeners[number]
        if self.threads:
            raise RuntimeError("add_listener: the engine has started")
        if number == MAX_LISTENERS or len(fds) > MAX_SOCKETS // MAX_LISTENERS * among:
            raise ValueError(f"add_listener: expected at most {MAX_LISTENERS} listeners of two sockets per worker")
        if not 0 <= direction < len(DIRECTIONS) or not 0 <= capture < len(CAPTURES):
            raise ValueError(f"add_listener: direction {direction}, capture {capture}: expected an index of DIRECTIONS, CAPTURES")
        if (target is None) != (CAPTURES[capture] != "none"):
            raise ValueError("add_listener: expected a target with capture none, and only there")
        if target is not None:
            addr_from_python(&listener.target, target[0], target[1])
        listener.direction = <Direction><int>direction
        listener.capture = <Capture><int>capture
        listener.port = port
        listener.preserve_client = preserve_client
        listener.elements = elements is not None
        self.plans.append((name, list(elements or ())))
        self.shared.listener_count += 1
        for i in range(<uint32_t>len(fds)):
            check(worker_listen(&self.workers[first + i % among], number, fds[i]), "epoll_ctl")
        for i in range(self.worker_count):
            if preserve_client:
                check(worker_prepare_spoofing(&self.workers[i]), "netlink: preserve_client needs sock_diag")
        return number

    def start(self):
        if self.threads:
            raise RuntimeError("start: the engine has started")
        self.shared.running = self.worker_count
        self.shared.running_elements = self.worker_count - self.plain_count
        for i in range(self.worker_count):
            # Daemons: an interpreter that ends in an error must not wait for flows.
            self.threads.append(threading.Thread(target=self._run, args=(i,), name=f"relay-worker-{i}", daemon=True))
        for thread in self.threads:
            thread.start()

    def _run(self, uint32_t number):
        cdef Worker* w = &self.workers[number]
        with nogil:
            worker_run(w)

    def use_elements(self, uint32_t listener, elements):
        if listener >= len(self.plans) or not self.shared.listeners[listener].elements:
            raise ValueError(f"use_elements: expected a listener that was added with elements, found {listener}")
        # Whoever begins a chain holds the GIL: it sees either the old list or the new one.
        self.plans[listener] = (self.plans[listener][0], list(elements))

    def tallies(self, int elements):
        found = [[book.tally(number) for book in self.books] for number in range(elements)]
        return [dict(zip(TALLIES, map(sum, zip(*each)))) if each else dict.fromkeys(TALLIES, 0) for each in found]

    def stuck_call(self):
        cdef Seen seen
        with nogil:
            found = await_stuck(self.shared, &seen)
        return StuckCall(
            seen.worker, seen.call.element, METHODS[seen.call.asked], seen.call.flow, seen.call.number, seen.call.thread,
            held_interpreter(self.shared, &seen),
        ) if found else None

    def interrupt(self, call):
        cdef Books book = self.books[call.worker - self.plain_count]
        # Only the call's own thread ends it, and that thread is not running Python now: the GIL is here.
        if book.call.number == call.number and book.call.since_ns != 0:
            interrupt_call(book)

    def leave_if_told_again(self, int signals_fd, double patience):
        with nogil:
            last_resort(self.shared, signals_fd, patience)

    def configure(self, settings):
        cdef uint32_t i
        # All are made before one is posted: a wrong value changes nothing.
        fresh = [<size_t>settings_from_python(settings) for _ in range(self.worker_count)]
        for i in range(self.worker_count):
            post_settings(&self.workers[i].mailbox, <Settings*><size_t>fresh[i])

    def drain(self):
        for i in range(self.worker_count):
            post_order(&self.workers[i].mailbox, DRAIN)

    def stop(self):
        for i in range(self.worker_count):
            post_order(&self.workers[i].mailbox, STOP)

    def join(self, timeout=None):
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self.threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    @property
    def running(self):
        return atomic_load(&self.shared.running)

    @property
    def live(self):
        return atomic_load(&self.shared.live)

    def wakeup_fileno(self):
        return self.shared.wake_fd

    def records(self, limit=4096):
        cdef Finished finished
        cdef uint32_t i
        cdef list out = []
        sys_eventfd_clear(self.shared.wake_fd)
        for i in range(self.worker_count):
            while len(out) < limit and ring_take(&self.workers[i].ring, &finished):
                out.append(Record._make(record_to_python(&finished)))
        self.listen_for_records()
        return out

    def lines(self, forms, to_wall_ns, limit=4096):
        if len(forms) != self.shared.listener_count:
            raise ValueError(f"lines: expected a form for each of {self.shared.listener_count} listeners, found {len(forms)}")
        sys_eventfd_clear(self.shared.wake_fd)
        out = lines_to_python(self.workers, self.worker_count, forms, to_wall_ns, limit, LANE_WORDS, REASON_WORDS, errorcode)
        self.listen_for_records()
        return out

    cdef void listen_for_records(self):
        """What was pushed before Python said that it waits has rung nobody: ring for it here."""
        cdef uint32_t i
        atomic_exchange(&self.shared.asleep, 1)
        for i in range(self.worker_count):
            if self.workers[i].ring.taken != atomic_acquire(&self.workers[i].ring.pushed):
                sys_eventfd_ring(self.shared.wake_fd)

    def counters(self):
        return dict(zip(COUNTERS, counters_to_python(self.workers, self.worker_count)))

    def opened(self):
        return [opened_to_python(self.workers, self.worker_count, n) for n in range(self.shared.listener_count)]

    def bytes(self):
        return [bytes_to_python(self.workers, self.worker_count, n) for n in range(self.shared.listener_count)]

    def reasons(self):
        return [dict(zip(REASONS, reasons_to_python(self.workers, self.worker_count, n))) for n in range(self.shared.listener_count)]

    def dial_errors(self):
        counted = enumerate(dial_errors_to_python(self.workers, self.worker_count))
        return {errorcode.get(number, "other"): count for number, count in counted if count}

    def histograms(self):
        return [
            {name: Histogram(*found) for name, found in zip(HISTOGRAMS, histograms_to_python(self.workers, self.worker_count, n))}
            for n in range(self.shared.listener_count)
        ]

    def flows(self, limit=0, timeout=1.0):
        found = {}
        with self.asking:
            # Those with elements first: a flow that goes to a plain worker meanwhile is seen there again, and never missed.
            for number in range(len(self.threads) - 1, -1, -1):
                if self.threads[number].is_alive():
                    patience = timeout if number < self.plain_count else timeout / 4
                    found.update((flow.flow, flow) for flow in self.flows_of(number, patience))
        return list(found.values())[:limit or None]

    cdef list flows_of(self, uint32_t number, double timeout):
        """What one worker answers. It may open flows meanwhile: room is left for some, and it is asked again when that was too little."""
        cdef Mailbox* mailbox = &self.workers[number].mailbox
        cdef Snapshot snapshot
        deadline = time.monotonic() + timeout
        while True:
            memset(&snapshot, 0, sizeof(Snapshot))
            snapshot.capacity = <uint32_t>atomic_load(&self.shared.live) + 1024
            snapshot.flows = <Flow*>malloc(snapshot.capacity * sizeof(Flow))
            snapshot.bell = self.answer_fd
            if snapshot.flows == NULL:
                raise MemoryError
            try:
                sys_eventfd_clear(self.answer_fd)
                post_snapshot(mailbox, &snapshot)
                # A signal or an earlier answer's bell may wake us; a worker that has ended answers nobody.
                while not atomic_acquire(&snapshot.answered) and time.monotonic() < deadline and self.threads[number].is_alive():
                    with nogil:
                        sys_poll_one(self.answer_fd, POLLIN, 20)
                    sys_eventfd_clear(self.answer_fd)
                if not atomic_acquire(&snapshot.answered):
                    if take_back_snapshot(mailbox):
                        # One that an element holds up is left out: the others are worth having.
                        if number >= self.plain_count or not self.threads[number].is_alive():
                            return []
                        raise TimeoutError(f"worker {number} did not list its flows within {timeout} s")
                    with nogil:     # it is being answered: that takes as long as copying does
                        while not atomic_acquire(&snapshot.answered):
                            sys_poll_one(self.answer_fd, POLLIN, 10)
                if snapshot.count <= snapshot.capacity:
                    return [LiveFlow._make(flow_to_python(&snapshot.flows[i], number)) for i in range(snapshot.count)]
            finally:
                free(snapshot.flows)
