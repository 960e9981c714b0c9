"""Record: what flows say, written to a file, so that it can be looked at and replayed.

    [[element]]
    name = "record"
    use = "relaycore.elements.record:Record"
    options = { file = "flows.rec", max_flow = "16MiB", max_file = "1GiB" }

Payloads are written to a file because the operator asks for it with this element, and only then: whatever clients send, with
the passwords and tokens in it, is in that file.

Owns: which flows and which bytes are recorded. Never here: the format (recording.py); a changed byte; a flow that ends because
of the file.
"""

import os
import threading
import time
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from relaycore.element import RELEASE, Answer, Element, Flow, OptionError, Options, Verdict
from relaycore.elements.recording import CUT, LARGEST, NOTHING, Kind, NotARecording, Opening, Writer, look
from relaycore.elements.recording import Record as Entry

LABEL = "record"  # what access records say where a flow is not recorded whole
LABEL_CHARS = 128


class Store:
    """The file as all flows of the process see it, on any thread. Opened by the first flow: a check writes nothing."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._known = NOTHING
        self._writer: Writer | None = None
        self._lock = threading.Lock()
        self._news: str | None = None
        self.over = False  # nothing more is recorded: the file is full, or had an error
        self._look()

    def _look(self) -> None:
        """Read what is there now, so that the first flow does not wait for it. NotARecording."""
        if os.path.lexists(self.path) and (os.path.islink(self.path) or not os.path.isfile(self.path)):
            raise NotARecording("expected a regular file")
        try:
            self._known = look(self.path)
        except OSError:
            return  # there is none; or the first flow finds out why not

    def serves(self) -> bool:
        """Whether flows of another load may go on here: not after an error, nor when the file was moved away."""
        if self.over:
            return False
        return self._writer is None or self._writer.is_at(self.path)

    def begin(self) -> int | None:
        """A number for a flow, or None: nothing is recorded."""
        with self._lock:
            if self.over:
                return None
            try:
                if self._writer is None:
                    self._writer = Writer(self.path, self._known)
            except (OSError, NotARecording) as error:
                self._fail(error)
                return None
            self._writer.flows += 1
            return self._writer.flows

    def add(self, entry: Entry, most: int, *, flush: bool = False) -> bool:
        """Write a record; False: there was no room in a file of that size, or an error."""
        packed = entry.packed()
        with self._lock:
            if self.over or self._writer is None:
                return False
            try:
                if self._writer.size + len(packed) > most:
                    self._end("full")
                    self._writer.close()
                    return False
                self._writer.write(packed)
                if flush:
                    self._writer.flush()
            except OSError as error:
                self._fail(error)
                return False
            return True

    def news(self) -> str | None:
        """Why nothing more is recorded: told once."""
        with self._lock:
            news, self._news = self._news, None
            return news

    def _fail(self, error: Exception) -> None:
        self._end(f"failed: {getattr(error, 'strerror', None) or error}"[:LABEL_CHARS])

    def _end(self, why: str) -> None:
        self.over = True
        self._news = why


_stores: "WeakValueDictionary[str, Store]" = WeakValueDictionary()
_stores_lock = threading.Lock()


def store_of(path: str) -> Store:
    """The one of this file: loads that follow each other share it, because a file has one writer."""
    with _stores_lock:
        store = _stores.get(path)
        if store is None or not store.serves():
            store = _stores[path] = Store(path)
        return store


class Shared(NamedTuple):
    """What configure() makes."""

    store: Store
    max_flow: int
    max_file: int


class Record(Element):
    """Records both directions, their ends and the flow's, and passes everything on as it came.

    It records payloads, because the operator asks for it by configuring it. A flow with more than `max_flow` bytes is released,
    and marked as cut; when `max_file` is reached or the file has an error, nothing more is recorded, flows are released, and
    the access record of one flow says why (label `record`). No flow ends because of that.
    """

    shared: Shared

    @classmethod
    def configure(cls, options: Options) -> Shared:
        """Take the options, and look at what is in the file already."""
        name = options.text("file")
        max_flow = options.size("max_flow", 16 << 20)
        max_file = options.size("max_file", 1 << 30)
        path = os.path.realpath(os.path.join(options.directory, os.path.dirname(name)))
        if not os.path.basename(name) or not os.path.isdir(path):
            raise OptionError("file", "the path of a file in a directory that there is", name)
        try:
            return Shared(store_of(os.path.join(path, os.path.basename(name))), max_flow, max_file)
        except NotARecording as error:
            raise OptionError("file", "a recording, or no file", f"{name}: {error}") from None

    def __init__(self, flow: Flow, shared: Any) -> None:
        super().__init__(flow, shared)
        self.began = time.monotonic_ns()
        self.left = self.shared.max_flow
        self.number = 0

    def opened(self) -> Verdict | None:
        """Begin."""
        number = self.shared.store.begin()
        if number is not None:
            self.number = number
            opening = Opening(time.time_ns() // 1000, self.flow.listener, text_of(self.flow.client), text_of(self.flow.origin))
            if self._add(Kind.OPEN, 0, opening.packed()):
                return None
        return self._leave()

    def request(self, data: bytes) -> Answer:
        """Bytes from the client."""
        return self._bytes(0, data)

    def response(self, data: bytes) -> Answer:
        """Bytes from the origin."""
        return self._bytes(1, data)

    def request_ended(self, held: bytes) -> Answer:
        """The client's end."""
        return held if self._add(Kind.END, 0) else self._leave()

    def response_ended(self, held: bytes) -> Answer:
        """The origin's end."""
        return held if self._add(Kind.END, 1) else self._leave()

    def closed(self, reason: str) -> None:
        """The flow's end, and with it everything that is not in the file yet."""
        self._add(Kind.CLOSE, 0, reason.encode(), flush=True)

    def _bytes(self, half: int, data: bytes) -> Answer:
        fits = data[: self.left]
        for begin in range(0, len(fits), LARGEST):
            if not self._add(Kind.BYTES, half, fits[begin : begin + LARGEST]):
                return self._leave()
        self.left -= len(fits)
        if len(fits) < len(data):
            self._add(Kind.CLOSE, 0, CUT, flush=True)
            self.flow.label(LABEL, "cut")
            return self._leave()
        return data

    def _add(self, kind: Kind, half: int, payload: bytes = b"", *, flush: bool = False) -> bool:
        at = (time.monotonic_ns() - self.began) // 1000
        return self.shared.store.add(Entry(kind, self.number, half, at, payload), self.shared.max_file, flush=flush)

    def _leave(self) -> Verdict:
        news = self.shared.store.news()
        if news is not None:
            self.flow.label(LABEL, news)
        return RELEASE


def text_of(address: tuple[str, int]) -> str:
    """An address and a port."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
