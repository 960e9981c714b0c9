"""`rules apply`, as a transaction: planned, tried out, kept, done, looked at, probed; and taken back when one of these fails.

Owns: that order, and what is told of it. Never here: a rule (plan), a step of the change (change), an exit status of its own.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sidecar.config import Config
from sidecar.errors import Problem, RelayError
from sidecar.rules.change import (
    NOTHING,
    Situation,
    Wanted,
    check_clashes,
    compare,
    explained,
    move_to,
    of_ours,
    present,
    wanted,
)
from sidecar.rules.keeper import Keeper, ask, take_address
from sidecar.rules.programs import ProgramFailed
from sidecar.rules.trials import Outcome, Trial, trials_of

NOT_AS_SAID = 126
PROBE_SECONDS = 1.0  # an answer takes a millisecond; on a node where everything starts at once, more

After = Callable[[Keeper], None]


class Applied(NamedTuple):
    """What was done, and what is known of how it works."""

    backend: str
    changes: Sequence[str]
    outcomes: Sequence[Outcome]


def apply(
    config: Config,
    *,
    guarded: bool = False,
    probe: bool = True,
    told: Callable[[Applied], None] = lambda _: None,
    after: After = Keeper.dismiss,
) -> Applied:
    """Put the rules of a configuration in the place of what was there of ours; RelayError, and nothing has changed.

    `told` is called when all went well; `after` is what then becomes of the keeper.
    """
    with take_address() as lock:
        aim = wanted(config, guarded=guarded)
        before = present()
        check_clashes(config, before, aim.situation)
        changes = compare(before, aim.situation)
        with Keeper(lock, lambda: move_to(before), lambda: move_to(NOTHING)) as keeper:
            if changes:
                try:
                    move_to(aim.situation)
                except ProgramFailed as error:
                    raise explained(config, error) from None
                _look(aim)
            outcomes = check(config, aim) if probe else []
            done = Applied(aim.backend.name, changes, outcomes)
            told(done)
            after(keeper)
    return done


def check(config: Config, aim: Wanted) -> Sequence[Outcome]:
    """Send connections of our own; RelayError (126) when one is not captured.

    What comes in and cannot be tried is evaluated: the kernel holds what was planned, line for line.
    """
    from sidecar.rules.probe import hints, run_trials

    outcomes = run_trials(trials_of(config), config.relay.user.id, config.relay.group.id, PROBE_SECONDS)
    failed = [
        Problem(
            f"probe: {outcome.trial.direction} {outcome.trial.capture} {family_name(outcome.trial)}",
            "a captured connection",
            outcome.detail,
            hints(outcome.trial),
        )
        for outcome in outcomes
        if outcome.verdict == "failed"
    ]
    if failed:
        raise RelayError(*failed, exit_status=NOT_AS_SAID)
    return [_evaluated(outcome) for outcome in outcomes]


def family_name(trial: Trial) -> str:
    """As people write it."""
    return "IPv4" if trial.family == socket.AF_INET else "IPv6"


def words(outcome: Outcome) -> str:
    """What came of a probe, as a line."""
    trial = outcome.trial
    return f"{trial.direction} {trial.capture} {family_name(trial)}: {outcome.verdict}: {outcome.detail}"


def facts(done: Applied) -> Mapping[str, object]:
    """Everything that `rules apply` tells."""
    probes = [
        {
            **{"direction": outcome.trial.direction, "capture": outcome.trial.capture, "family": family_name(outcome.trial)},
            **{"verdict": outcome.verdict, "detail": outcome.detail},
        }
        for outcome in done.outcomes
    ]
    return {"backend": done.backend, "changes": list(done.changes), "probes": probes}


def page(done: Applied) -> str:
    """The same as text; what was changed, `rules plan` tells before."""
    first = f"rules {'applied' if done.changes else 'as planned already'} ({done.backend})"
    return "\n".join([first, *(f"  {words(outcome)}" for outcome in done.outcomes)])


def _evaluated(outcome: Outcome) -> Outcome:
    if outcome.verdict == "captured" or outcome.trial.direction == "outbound":
        return outcome
    detail = f"the kernel holds the rules as planned; not probed: {outcome.detail}"
    return outcome._replace(verdict="evaluated", detail=detail)


def _look(aim: Wanted) -> None:
    """The kernel may have taken it otherwise than it was said, or somebody changes rules at the same time."""
    left = compare(present(), aim.situation)
    if left:
        found = "; ".join(line.strip() for line in left[:3])
        raise RelayError(Problem(f"rules ({aim.backend.name})", "what was applied", found), exit_status=NOT_AS_SAID)


def remove() -> Situation:
    """Take away all that is ours, by whatever back end; what there was."""
    ask("release")
    with take_address() as lock:
        before = of_ours(present())
        with Keeper(lock, lambda: move_to(before), lambda: move_to(NOTHING)) as keeper:
            move_to(NOTHING)
            keeper.dismiss()
    return before
