"""sidecar.rules.probe, as far as it needs no rules: what cannot be tried."""

import socket

from sidecar.rules.probe import run_trials
from sidecar.rules.trials import NOBODY, Trial

TRIAL = Trial("outbound", "redirect", socket.AF_INET, ("127.0.0.1", 0), "192.0.2.1", 80, 65534, 65534)


def test_what_the_rules_do_not_select_is_not_tried() -> None:
    """A configuration that no connection of ours fits could never be applied."""
    trials = [
        TRIAL._replace(direction="gateway"),
        TRIAL._replace(port=0),
        TRIAL._replace(destination=""),
        TRIAL._replace(uid=NOBODY),
        TRIAL._replace(listen=("192.0.2.9", 15002)),
    ]
    outcomes = run_trials(trials, 1337, 1337)
    assert [outcome.trial for outcome in outcomes] == trials
    assert {outcome.verdict for outcome in outcomes} == {"not probed"}
    assert [outcome.detail for outcome in outcomes] == [
        "connections that pass through come by interfaces of their own",
        "the rules select no port that could be tried",
        "the rules select no address that is nobody's",
        "the rules select no user that could be tried",
        "nobody can listen on 192.0.2.9:15002: Cannot assign requested address",
    ]


def test_nothing_to_try_is_nothing() -> None:
    """A configuration that only has a gateway for UDP would not get its rules."""
    assert run_trials([], 1337, 1337) == []
