"""What elements fail with: each kind of error once with its traceback, and then a count.

Owns: the kinds that were met, at most MOST_KINDS. Who may touch it: chains note, on any thread; the sidecar takes.
Never here: a payload; a local variable of an element (a traceback shows lines of code, no values).
"""

import threading
import traceback
from typing import NamedTuple

MOST_KINDS = 256
MOST_CHARS = 4000


class Fault(NamedTuple):
    """One kind of error of one element."""

    element: str
    method: str
    error: str  # "ValueError: expected a number"
    where: str  # "firewall.py:12"
    flow: int  # the first one that met it
    times: int
    text: str  # the traceback


Key = tuple[str, str, str, str]


class Faults:
    """Of all elements of a relay."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[Key, Fault] = {}
        self._told: dict[Key, int] = {}
        self.lost = 0  # errors of kinds that there was no room for

    def note(self, element: str, method: str, flow: int, error: BaseException) -> None:
        """An element has failed."""
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1] if frames else None
        where = f"{last.filename}:{last.lineno}" if last else ""
        key = (element, method, type(error).__name__, where)
        with self._lock:
            known = self._kinds.get(key)
            if known:
                self._kinds[key] = known._replace(times=known.times + 1)
                return
            if len(self._kinds) == MOST_KINDS:
                self.lost += 1
                return
            words = "".join(traceback.format_exception_only(type(error), error)).strip()
            own = error.__traceback__.tb_next if error.__traceback__ else None  # without the chain that has called
            text = "".join(traceback.format_exception(type(error), error, own)).strip()
            self._kinds[key] = Fault(element, method, words[:MOST_CHARS], where, flow, 1, text[-MOST_CHARS:])

    def known(self) -> list[Fault]:
        """Every kind that was met."""
        with self._lock:
            return list(self._kinds.values())

    def news(self) -> list[Fault]:
        """Those that are new, or were met again since the last call."""
        with self._lock:
            fresh = [(key, fault) for key, fault in self._kinds.items() if self._told.get(key, 0) < fault.times]
            self._told.update((key, fault.times) for key, fault in fresh)
            return [fault for _, fault in fresh]
