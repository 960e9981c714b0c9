"""The elements of one flow: see _chain.pxd for what this room owns. Here are the calls and the meaning of their answers."""

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.pystate cimport PyThreadState_SetAsyncExc
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uint64_t

from relaycore._use import METHODS, BadAnswer
from relaycore.answers import After, Close, Open, Reject, Release, Verdict

from relaycore._atomic cimport atomic_release, atomic_store, bump
from relaycore._calls cimport (
    ASKED_CLOSED, ASKED_OPENED, ASKED_REQUEST, ASKED_REQUEST_ENDED, ASKED_RESPONSE, ASKED_RESPONSE_ENDED, GOES_ON, HAS_FAILED,
    IS_CLOSED, IS_REJECTED, Asked, Call, Outcome, Tally,
)
from relaycore._capsule cimport block_free, facts_of, passed_through, wrong_words
from relaycore._compiled cimport NO_MEMORY, NOTHING_WRONG, Compiled, Run, compiled_closed, compiled_opened
from relaycore._names cimport addr_from_python
from relaycore._sys cimport sys_now_ns
from relaycore._use cimport described, words_of
from relaycore.compiled cimport RELAY_CLOSE, RELAY_ON, RELAY_REJECT, RELAY_RELEASE, relay_flow

cdef object HOLD = Verdict.HOLD
cdef object RELEASE = Verdict.RELEASE
cdef object REJECT = Verdict.REJECT
cdef object CLOSE = Verdict.CLOSE
cdef object NO_ANSWER = object()


cdef class Chain:
    """See chain_of()."""

    def __dealloc__(self):
        block_free(&self.block)

    cdef bytes opened(self):
        """Tell every element that somebody wants to connect; what the origin is to get first."""
        cdef Link link
        cdef bytes first = b""
        for link in self.links:
            if link.off or not link.use.hears_opened:
                continue
            if link.compiled != NULL and link.use.compiled.opened != NULL:
                answer = self.open_compiled(link)
            else:
                answer = self.ask(link, ASKED_OPENED, link.element.opened, NO_ANSWER)
            if answer is None or link.off:
                pass
            elif answer is RELEASE:
                self.leave(link)
            elif answer is REJECT or answer is CLOSE:
                self.refused(link, IS_REJECTED)
            elif type(answer) is Open:
                first += self.open_as(link, answer)
            elif answer is not NO_ANSWER:
                self.failed(link, ASKED_OPENED, b"", BadAnswer(
                    f"opened() answered with {described(answer)}: expected None, REJECT, RELEASE or an Open"))
            if self.outcome != GOES_ON:
                return b""
        return first

    cdef bytes open_as(self, Link link, answer):
        """What an Open asks for; its first bytes."""
        cdef bytes first = b""
        try:
            if answer.origin is not None:
                addr_from_python(&self.flow.origin_address, answer.origin[0], answer.origin[1])
                self.flow.origin_text = None
                self.origin = self.flow.origin
            first = bytes(answer.first)
        except Exception as error:
            return self.failed(link, ASKED_OPENED, b"", error)
        bump(&self.books.tallies[link.use.number].bytes_out, len(first))
        if answer.release:
            self.leave(link)
        return first

    cdef bytes passed_on(self, int h, bytes data, bint ended):
        """Bytes of half h, and whether they were its last, through all elements that hear it; what goes on to the sink."""
        cdef list ears = self.responses if h else self.requests
        cdef Ear ear
        cdef Asked what = ASKED_RESPONSE if h else ASKED_REQUEST
        cdef Asked what_ended = ASKED_RESPONSE_ENDED if h else ASKED_REQUEST_ENDED
        cdef bytes given, last
        self.delay = 0.0
        self.unsettled[h] = False
        for ear in ears:
            if ear.link.compiled != NULL:
                data = self.pass_compiled(ear.link, h, data, ended)
            elif ear.link.off:
                if ear.held is not None:
                    data = ear.held + data
                    ear.held = None
                continue
            elif PyBytes_GET_SIZE(data) != 0:
                given = data if ear.held is None else ear.held + data
                ear.held = None
                bump(&self.books.tallies[ear.link.use.number].bytes_in, PyBytes_GET_SIZE(data))
                data = self.take(ear.link, ear, what, given, self.ask(ear.link, what, ear.heard, given))
            if ended and self.outcome == GOES_ON and not ear.link.off and ear.link.compiled == NULL:
                given = b"" if ear.held is None else ear.held
                ear.held = None
                last = self.take(ear.link, ear, what_ended, given, self.ask(ear.link, what_ended, ear.ended, given))
                data = data + last if data else last
            if self.outcome == HAS_FAILED:
                return b""
            if self.outcome != GOES_ON:
                ended = False
        return data

    cdef bytes take(self, Link link, Ear ear, Asked what, bytes given, object answer):
        """What an answer passes on of what was given."""
        cdef bytes out
        kind = type(answer)
        if kind is bytes:
            out = answer
        elif answer is NO_ANSWER:
            return given if link.off else b""
        elif answer is HOLD:
            if what == ASKED_REQUEST_ENDED or what == ASKED_RESPONSE_ENDED:
                return self.failed(link, what, given, BadAnswer(f"{METHODS[<int>what]}() answered HOLD: nothing more will come"))
            if <size_t>PyBytes_GET_SIZE(given) > link.use.max_held:
                return self.failed(link, what, given, BadAnswer(f"HOLD of {len(given)} bytes: max_held is {link.use.max_held}"))
            ear.held = given
            return b""
        elif answer is RELEASE:
            self.leave(link)
            out = given
        elif answer is REJECT or answer is CLOSE:
            self.refused(link, IS_REJECTED if answer is REJECT else IS_CLOSED)
            return b""
        elif isinstance(answer, (bytes, bytearray, memoryview)):
            out = bytes(answer)
            if kind is Release:
                self.leave(link)
            elif kind is Reject or kind is Close:
                self.refused(link, IS_REJECTED if kind is Reject else IS_CLOSED)
            elif kind is After:
                self.delay = max(self.delay, answer.seconds)
        else:
            return self.failed(link, what, given, BadAnswer(
                f"{METHODS[<int>what]}() answered with {described(answer)}: expected bytes, HOLD, RELEASE, REJECT or CLOSE"))
        if <size_t>PyBytes_GET_SIZE(out) > link.use.max_output:
            return self.failed(link, what, given, BadAnswer(
                f"{METHODS[<int>what]}() answered with {len(out)} bytes: max_output is {link.use.max_output}"))
        if PyBytes_GET_SIZE(out) == 0 and PyBytes_GET_SIZE(given) != 0 and not link.use.may_drop and kind not in (Reject, Close):
            return self.failed(link, what, given, BadAnswer(
                f"{METHODS[<int>what]}() answered with no bytes: a piece of a stream cannot be left out; "
                "HOLD keeps it, relaycore.messages can drop messages, and may_drop allows it"))
        bump(&self.books.tallies[link.use.number].bytes_out, PyBytes_GET_SIZE(out))
        return out

    cdef void closed(self, str reason):
        """Tell the elements that the flow is over."""
        cdef Link link
        for link in self.links:
            if link.off or not link.use.hears_closed:
                pass
            elif link.compiled != NULL and link.use.compiled.closed != NULL:
                compiled_closed(link.compiled, reason.encode())
            else:
                self.ask(link, ASKED_CLOSED, link.element.closed, reason)

    cdef bint hears(self, int h):
        """Whether any element still wants the bytes of half h."""
        cdef Ear ear
        for ear in self.responses if h else self.requests:
            if not ear.link.off or ear.held is not None or (ear.link.compiled != NULL and ear.link.compiled.held[h] != NULL):
                return True
        return False

    cdef bint hears_closed(self):
        cdef Link link
        for link in self.links:
            if not link.off and link.use.hears_closed:
                return True
        return False

    cdef object ask(self, Link link, Asked what, object method, object argument):
        """Call a method of an element; NO_ANSWER when it failed, which has been dealt with then."""
        cdef Tally* tally = &self.books.tallies[link.use.number]
        cdef Call* call = &self.books.call
        cdef uint64_t begun = sys_now_ns()
        cdef uint64_t took
        cdef object answer = NO_ANSWER
        cdef object fault = None
        call.element = link.use.number
        call.asked = what
        call.flow = self.flow.id
        call.patience_ns = link.use.patience_ns
        call.compiled = False
        atomic_store(&call.number, call.number + 1)
        atomic_release(&call.since_ns, begun)
        try:
            answer = method() if argument is NO_ANSWER else method(argument)
        except BaseException as error:
            fault = error
        atomic_release(&call.since_ns, 0)
        took = sys_now_ns() - begun
        if took >= link.use.patience_ns:
            # The exception that was to interrupt it may still be on its way: it must not meet another call.
            PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), NULL)
        bump(&tally.calls, 1)
        bump(&tally.time_ns, took)
        if took > link.use.budget_ns:
            bump(&tally.overruns, 1)
        if fault is not None:
            self.failed(link, what, b"", fault)
        return answer

    cdef bytes failed(self, Link link, Asked what, bytes given, object error):
        """An element has failed: note it, and end the flow or go on without the element."""
        bump(&self.books.tallies[link.use.number].errors, 1)
        if link.use.faults is not None:
            link.use.faults.note(link.use.name, METHODS[<int>what], self.flow.id, error)
        if what == ASKED_CLOSED:
            return b""
        if link.use.passes_errors:
            self.off(link)
            return given
        if self.outcome == GOES_ON:
            self.outcome = HAS_FAILED
            self.by = link.use.name
        return b""

    cdef void refused(self, Link link, Outcome outcome):
        bump(&self.books.tallies[link.use.number].refusals, 1)
        self.outcome = outcome
        self.by = link.use.name

    cdef void leave(self, Link link):
        """It is released."""
        bump(&self.books.tallies[link.use.number].releases, 1)
        self.off(link)

    cdef void off(self, Link link):
        """The element is never called again; what it holds has to go on."""
        cdef Ear ear
        cdef int h
        link.off = True
        if link.compiled != NULL:
            link.compiled.off = True
            for h in range(2):
                self.unsettled[h] = self.unsettled[h] or link.compiled.held[h] != NULL
        for ear in self.requests:
            if ear.link is link and ear.held is not None:
                self.unsettled[0] = True
        for ear in self.responses:
            if ear.link is link and ear.held is not None:
                self.unsettled[1] = True

    cdef bytes words(self):
        """What the access record says beside what the engine knows, as members of a JSON object; empty: nothing."""
        return words_of(self.by, self.flow.labels)

    cdef object open_compiled(self, Link link):
        """The answer as Python's opened() would give it."""
        cdef bytes listener = self.flow.listener.encode()
        cdef relay_flow facts = facts_of(self.flow.id, listener, &self.flow.client_address, &self.flow.origin_address)
        cdef int answer = compiled_opened(link.compiled, &facts)
        if answer == RELAY_ON:
            return None
        if answer == RELAY_RELEASE:
            return RELEASE
        if answer == RELAY_REJECT or answer == RELAY_CLOSE:
            return REJECT
        self.failed(link, ASKED_OPENED, b"", BadAnswer(
            f"opened() answered {answer}: expected RELAY_ON, RELAY_REJECT or RELAY_RELEASE"))
        return NO_ANSWER

    cdef bytes pass_compiled(self, Link link, int h, bytes data, bint ended):
        """Through a compiled element, in a chain that is not all compiled."""
        cdef unsigned char outcome = <unsigned char>self.outcome
        cdef bytes out = passed_through(link.compiled, h, data, ended, &outcome)
        self.hear_of(link)
        return out

    cdef int hear_of(self, Link link) except -1:
        """What a compiled element has done that Python is to know."""
        cdef Compiled* c = link.compiled
        cdef Asked asked = <Asked>c.asked
        if c.wrong == NO_MEMORY:
            raise MemoryError
        if c.wrong != NOTHING_WRONG:
            error = BadAnswer(wrong_words(c, METHODS[<int>asked]))
            c.wrong = NOTHING_WRONG
            self.failed(link, asked, b"", error)
        if c.released:
            c.released = False
            self.leave(link)
        if c.refusal != GOES_ON:
            self.refused(link, <Outcome>c.refusal)
            c.refusal = GOES_ON
        return 0

    cdef int hear_of_all(self) except -1:
        """After bytes went through them without the GIL."""
        cdef Link link
        for link in self.links:
            if link.compiled != NULL:
                self.hear_of(link)
        return 0

    cdef Run* run(self, int h):
        """What the bytes of half h go through if that needs no GIL, else NULL."""
        cdef Ear ear
        for ear in self.responses if h else self.requests:
            if ear.link.compiled == NULL and (not ear.link.off or ear.held is not None):
                return NULL
        return &self.block.runs[h] if self.block.runs[h].count != 0 else NULL
