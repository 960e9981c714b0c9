"""What chains are made of: see _use.pxd. Here are the loaded element, the flow as elements see it, and the books."""

import json

from cpython.pystate cimport PyThreadState_SetAsyncExc
from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t
from libc.string cimport memset

from relaycore._atomic cimport atomic_load
from relaycore._calls cimport Call, Tally, patience
from relaycore._capsule cimport element_of, shared_of
from relaycore._lines cimport WORDS_BYTES
from relaycore._names cimport addr_from_python, addr_to_python
from relaycore.compiled cimport RELAY_REQUESTS, RELAY_RESPONSES

METHODS = ("opened", "request", "response", "request_ended", "response_ended", "closed")
TALLIES = (
    "calls", "bytes_in", "bytes_out", "time_ns", "errors", "overruns", "releases", "refusals", "stuck", "gil_held",
)

cdef enum:
    MOST_LABELS = 8
    MOST_LABEL_CHARS = 128
    # What elements have sent on their own and a peer has not taken: nothing else would stop them where it does not read.
    MOST_SENT = 4 * 1024 * 1024


class Stuck(Exception):
    """Raised in a call that has been running for a second."""


class BadAnswer(TypeError):
    """An element answered with something that cannot be passed on."""


cdef class Books:
    """What is counted of the elements on one worker, and the call that its thread is in."""

    def __cinit__(self):
        memset(self.tallies, 0, sizeof(self.tallies))
        memset(&self.call, 0, sizeof(Call))

    def tally(self, uint32_t number):
        """The counters of one element, in the order of TALLIES."""
        cdef Tally* t = &self.tallies[number]
        return (
            atomic_load(&t.calls), atomic_load(&t.bytes_in), atomic_load(&t.bytes_out), atomic_load(&t.time_ns),
            atomic_load(&t.errors), atomic_load(&t.overruns), atomic_load(&t.releases), atomic_load(&t.refusals),
            atomic_load(&t.stuck), atomic_load(&t.gil_held),
        )


def check_compiled(kind):
    """TypeError for a class whose functions cannot be called."""
    element_of(kind)


cdef class Use:
    """One element of a listener as it was loaded, for all flows that begin until it is loaded again."""

    def __init__(self, uint32_t number, str name, kind, shared, faults, *, passes_errors, budget_ns, max_held, max_output):
        from relaycore.element import Element
        if number >= MAX_ELEMENTS:
            raise ValueError(f"Use: expected a number below {MAX_ELEMENTS}, found {number}")
        self.number = number
        self.name = name
        self.kind = kind
        self.shared = shared
        self.faults = faults
        self.passes_errors = passes_errors
        self.budget_ns = budget_ns
        self.patience_ns = patience(budget_ns)
        self.max_held = max_held
        self.max_output = max_output
        self.may_drop = kind.may_drop
        self.hears_opened = kind.opened is not Element.opened
        self.hears_request = kind.request is not Element.request or kind.request_ended is not Element.request_ended
        self.hears_response = kind.response is not Element.response or kind.response_ended is not Element.response_ended
        self.hears_closed = kind.closed is not Element.closed
        self.compiled = element_of(kind)
        if self.compiled != NULL:
            self.compiled_shared = shared_of(shared)
            self.hears_opened = self.hears_opened or self.compiled.opened != NULL
            self.hears_closed = self.hears_closed or self.compiled.closed != NULL
            self.hears_request = self.compiled.halves & RELAY_REQUESTS != 0
            self.hears_response = self.compiled.halves & RELAY_RESPONSES != 0


cdef class Flow:
    """What an element is told of its flow."""

    def __init__(self, flow_id=1, listener="", client=("127.0.0.1", 1), origin=("127.0.0.1", 2)):
        addr_from_python(&self.client_address, client[0], client[1])
        addr_from_python(&self.origin_address, origin[0], origin[1])
        self.id = flow_id
        self.listener = listener
        self.labels = {}

    @property
    def client(self):
        if self.client_text is None:
            self.client_text = addr_to_python(&self.client_address)
        return self.client_text

    @property
    def origin(self):
        if self.origin_text is None:
            self.origin_text = addr_to_python(&self.origin_address)
        return self.origin_text

    def label(self, str name, str value):
        if len(name) > MOST_LABEL_CHARS or len(value) > MOST_LABEL_CHARS:
            raise ValueError(f"label: expected at most {MOST_LABEL_CHARS} characters, found {max(len(name), len(value))}")
        if name not in self.labels and len(self.labels) == MOST_LABELS:
            raise ValueError(f"label: expected at most {MOST_LABELS} of a flow")
        self.labels[name] = value

    def to_client(self, bytes data not None):
        self.for_client = self.more(1, self.for_client, data)

    def to_origin(self, bytes data not None):
        self.for_origin = self.more(0, self.for_origin, data)

    cdef bytes more(self, int h, bytes sent, bytes data):
        """What was sent, and this. BufferError where nobody takes it."""
        cdef bytes both = data if sent is None else sent + data
        if self.waiting[h] + <size_t>len(both) > MOST_SENT:
            raise BufferError(f"expected at most {MOST_SENT} bytes that wait, found {self.waiting[h] + <size_t>len(both)}")
        return both

    def __repr__(self):
        return f"<Flow {self.id} {self.listener}: {self.client[0]}:{self.client[1]} to {self.origin[0]}:{self.origin[1]}>"


cdef bytes words_of(str by, dict given):
    """Which element decided, and labels, as members of a JSON object; empty: nothing."""
    cdef dict labels = dict(given)
    cdef dict said = {} if by is None else {"element": by}
    while True:
        if labels:
            said["labels"] = labels
        else:
            said.pop("labels", None)
        text = json.dumps(said).removeprefix("{").removesuffix("}").encode()
        if len(text) < WORDS_BYTES:
            return text
        labels.popitem()    # the last ones do not fit


cdef str described(object answer):
    """For a message: what it is, and no more of it than a message can bear."""
    text = repr(answer)
    return f"{type(answer).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


cdef void interrupt_call(Books books):
    """Have Stuck raised in it, at its next line of Python. Whoever calls holds the GIL: the call does not end meanwhile."""
    if not books.call.compiled:
        PyThreadState_SetAsyncExc(<unsigned long>books.call.thread, <PyObject*>Stuck)
