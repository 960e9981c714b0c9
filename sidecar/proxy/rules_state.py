"""What the relay says of its rules: the state, who brought it about, and each change of it.

Two may know: the relay's own sockets, opened before it gave its privileges up, and the companion of `run --with-rules`.
Whoever speaks last is believed.

Owns: that state, its fields in records and stats, and the message when the rules are not as they should be any more.
Never here: what a change means (sidecar.rules); a change. Without CAP_NET_ADMIN sidecar.rules is not even imported.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sidecar.config import Config
from sidecar.errors import Problem, reason
from sidecar.loop import READABLE, Loop
from sidecar.privileges import held_capabilities
from sidecar.report import Fields, Report

if TYPE_CHECKING:
    from sidecar.rules.observe import Observation

NONE: Final = "none"  # no listener needs rules
OK: Final = "ok"
CHANGED: Final = "changed"
MISSING: Final = "missing"
UNKNOWN: Final = "unknown"
NOT_OBSERVABLE: Final = "not observable"
COMPANION: Final = "the companion"

SETTLE_SECONDS = 0.5  # what applies rules takes several steps, and a companion repairs them meanwhile
RESTART = "restart the relay: nothing is captured without rules, and nobody guards them any more"
REPAIR = "`relay-sidecar rules status` tells more, `relay-sidecar rules apply` repairs"

# What a companion says, and what it means.
_WORDS: Mapping[str, str] = {
    "applied": OK,
    "as planned again": OK,
    "repaired": OK,
    "changed": CHANGED,
    "removed": MISSING,
    "released": MISSING,
    "gone": MISSING,
    "unknown": UNKNOWN,
}


class RulesState:
    """One per relay. `observation` is what its own sockets tell, where it could open them."""

    def __init__(self, report: Report, state: str, detail: str = "", observation: "Observation | None" = None) -> None:
        self._report = report
        self._observation = observation
        self._loop: Loop | None = None  # before it runs, the start record tells the state
        self._seen = observation.verdict() if observation else (state, "", detail)
        self.state, self.by, self.detail = self._seen

    @property
    def works(self) -> bool | None:
        """Whether the rules are as they should be; None when nobody can tell."""
        return None if self.state in (NONE, NOT_OBSERVABLE) else self.state == OK

    def fields(self) -> dict[str, str | None]:
        """For `stats`."""
        return {"rules": self.state, "rules_by": self.by or None, "rules_detail": self.detail or None}

    def watch(self, loop: Loop) -> None:
        """Follow the sockets from now on."""
        self._loop = loop
        observation = self._observation
        if observation:
            for fileno in observation.filenos():
                loop.watch(fileno, READABLE, lambda: self._wait(loop, observation))

    def expect(self, config: Config) -> None:
        """A file was read again: `rules apply` will go by it."""
        if self._observation:
            self._observation.expect(config)
            self._tell_verdict(self._observation)

    def hear_companion(self, word: Mapping[str, Any]) -> None:
        """What a companion said: `event` and what goes with it, such as the `first` of its `differences`, or `because`."""
        what = word["event"]
        if what in _WORDS:
            detail = "; ".join(word.get("first", ())) or word.get("because", "")
            more = {key: value for key, value in word.items() if key not in ("event", "first", "because")}
            self.tell(_WORDS[what], COMPANION, detail, {"what": what, **more})

    def tell(self, state: str, by: str = "", detail: str = "", more: Fields | None = None) -> None:
        """This is how the rules are now. Only a change is news, unless there is more to tell."""
        before, self.state, self.by, self.detail = self.state, state, by, detail
        if self._loop is None or (state == before and more is None):
            return
        fields = {"state": state, "by": by or None, "detail": detail or None, **(more or {})}
        if state in (OK, before):
            self._report.record("warn" if state == before else "info", "rules", **fields)
        else:
            found = " ".join([state, *([f"by {by}"] if by else []), *([f"({detail})"] if detail else [])])
            step = RESTART if (state, by) == (MISSING, COMPANION) else REPAIR
            self._report.warn(Problem("rules", "those of this configuration", found, step), "rules", fields)

    def _wait(self, loop: Loop, observation: "Observation") -> None:
        for fileno in observation.filenos():
            loop.forget(fileno)
        loop.call_later(SETTLE_SECONDS, lambda: self._hear(loop, observation))

    def _hear(self, loop: Loop, observation: "Observation") -> None:
        try:
            observation.hear()
        except OSError as error:
            self._observation = None
            self.tell(UNKNOWN, "", f"netlink: {reason(error)}")
            return
        self._tell_verdict(observation)
        self.watch(loop)

    def _tell_verdict(self, observation: "Observation") -> None:
        """What others have changed is no news, and no reason to doubt a companion."""
        verdict = observation.verdict()
        if verdict != self._seen:
            self._seen = verdict
            self.tell(*verdict)


def begin(config: Config, report: Report) -> RulesState:
    """Open the sockets and look once, as long as CAP_NET_ADMIN is there."""
    if all(listener.capture == "none" for listener in config.listeners):
        return RulesState(report, NONE)
    if "CAP_NET_ADMIN" in held_capabilities():
        from sidecar.rules.observe import Observation

        try:
            return RulesState(report, "", observation=Observation(config))
        except PermissionError:  # a user namespace's capability may be worth nothing
            pass
        except OSError as error:
            return RulesState(report, UNKNOWN, f"netlink: {reason(error)}")
    return RulesState(report, NOT_OBSERVABLE, "CAP_NET_ADMIN was not there at the start")
