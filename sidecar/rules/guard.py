"""The guard: a process that stays beside rules, tells when they change, and takes them away at its end.

Owns: its loop, and the watching of whoever it works for. The keeper takes the rules away when the guard itself is killed.
Never here: a change of its own making (apply, change).
"""

import contextlib
import os
import select
from collections.abc import Callable, Collection, Mapping, Sequence

from sidecar.config import Config
from sidecar.errors import FAILED, RelayError
from sidecar.netlink import forget
from sidecar.rules.apply import Applied, apply, words
from sidecar.rules.change import NOTHING, compare, move_to, present, refusals_told, wanted
from sidecar.rules.keeper import RELEASED, Keeper
from sidecar.rules.watch import watch_routing, watch_rules
from sidecar.wakeup import wake_by_ending

SHOWN_LINES = 4  # of a difference, in a record
LOOK_SECONDS = 2.0  # iptables-legacy tells nobody of a change
REST_SECONDS = 0.2  # between two looks: others may change rules a thousand times a second

Told = Callable[[str, Mapping[str, object]], None]


class Guard:
    """One per process: run() returns when its end has come, and nothing of the rules is left.

    `parent` becomes readable when whoever it works for has died; without one it is our parent, and a signal ends us too.
    """

    def __init__(self, config: Config, *, repair: bool, probe: bool, told: Told, parent: int | None = None) -> None:
        self._config = config
        self._repair = repair
        self._probe = probe
        self._told = told
        self._wakes = [wake_by_ending(), os.pidfd_open(os.getppid())] if parent is None else [parent]
        self._aim = wanted(config, guarded=True, try_out=False)
        self._known: list[str] = []  # what was told last of how the rules differ, or why nobody knows

    def run(self) -> int:
        """The exit status."""
        status: list[int] = []

        def stay(keeper: Keeper) -> None:
            keeper.guard()
            status.append(self._stay(keeper))

        with contextlib.ExitStack() as closing:
            with refusals_told():
                watches = [closing.enter_context(opened()) for opened in (watch_rules, watch_routing)]
            self._watches = {watch.fileno(): watch for watch in watches}
            apply(self._config, guarded=True, probe=self._probe, after=stay, told=self._applied)
        return status[0]

    def _applied(self, done: Applied) -> None:
        self._told("applied", {"backend": done.backend, "probes": [words(outcome) for outcome in done.outcomes]})

    def _stay(self, keeper: Keeper) -> int:
        ends = {*self._wakes, keeper.gone}
        quiet = wait = LOOK_SECONDS if self._aim.backend.name == "iptables-legacy" else None
        while True:
            ready = _readable(ends | self._watches.keys(), wait)
            if not ready & ends:
                for watch in self._watches.values():
                    forget(watch)
                wait = quiet if self._look() else LOOK_SECONDS
                ready = _readable(ends, REST_SECONDS)
            if keeper.gone in ready:
                return self._without_keeper(os.read(keeper.gone, 1))
            if ready & ends:
                move_to(NOTHING)
                keeper.dismiss()
                self._told("removed", {"because": "told to end" if self._wakes[0] in ready else "the parent has ended"})
                return 0

    def _without_keeper(self, last_word: bytes) -> int:
        if last_word == RELEASED:
            self._told("released", {"because": "`rules remove` took over"})
            return 0
        move_to(NOTHING)
        self._told("removed", {"because": "the keeper was killed"})
        return FAILED

    def _look(self) -> bool:
        """Tell of a change once, and of its end. False when that failed: rules that nobody sees are still better than none."""
        try:
            changed = compare(present(), self._aim.situation)
            if changed and self._repair:
                move_to(self._aim.situation)
                self._told("repaired", _shown(changed))
                changed = []
        except RelayError as error:
            self._tell("unknown", [str(error)], {"because": str(error)})
            return False
        self._tell("changed" if changed else "as planned again", changed, _shown(changed))
        return True

    def _tell(self, event: str, known: list[str], fields: Mapping[str, object]) -> None:
        if known != self._known:
            self._known = known
            self._told(event, fields)


def _shown(changes: Sequence[str]) -> Mapping[str, object]:
    """How many lines, and the first ones: `rules plan` shows all."""
    return {"differences": len(changes), "first": [line.strip() for line in changes[:SHOWN_LINES]]}


def _readable(descriptors: Collection[int], seconds: float | None) -> set[int]:
    """Which of them have something to read, at the latest after so long."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}
