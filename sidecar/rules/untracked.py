"""notrack: what mangle captures, raw leaves out of conntrack first; and what the relay answers, by the mark of its listeners.

A user or a group would not do for the answers: the last packets of a closed connection, and those in TIME_WAIT, have no owner,
and conntrack would take each for the beginning of a connection.

Owns: the chains of raw. They are made from mangle's, so that none selects what the other does not.
Never here: which connections (selection), what is then done with them (tproxy); the spelling of nft or iptables.
"""

from sidecar.config import Config
from sidecar.rules.choices import captured
from sidecar.rules.model import Action, Chain, Match, Rule
from sidecar.rules.selection import CONNECTED, OLDER, RETURN, TCP_ALONE

UNTRACK = (Action("notrack"), RETURN)
CAPTURES = frozenset({"tproxy", "divert"})


def raw_chains(config: Config, mangle: list[Chain]) -> list[Chain]:
    """The chains that go with those of TPROXY; none where no listener is untracked."""
    if not any(map(config.client_mark_of, captured(config))):
        return []
    (prerouting,) = (chain for chain in mangle if chain.hook == "prerouting")
    arriving = [made for rule in prerouting.rules if (made := _before_conntrack(rule))]
    answers = Rule(
        "answers of the relay to captured clients, also when orphaned", (Match("mark", (config.rules.client_mark,)),), UNTRACK
    )
    return [Chain("raw", "prerouting", tuple(arriving)), Chain("raw", "output", (TCP_ALONE, answers))]


def _before_conntrack(rule: Rule) -> Rule | None:
    """What raw has for a rule of mangle; None where it has to leave that to conntrack (all that is captured on lo), or there is
    nothing to decide."""
    if any(match.kind.startswith("ct_") for match in rule.matches):
        return None
    if CONNECTED in rule.matches:
        return OLDER  # of what is no SYN, the rest is conntrack's, whoever it belongs to
    if rule.actions == (RETURN,):
        return rule
    captures = any(action.kind in CAPTURES for action in rule.actions)
    return rule._replace(actions=UNTRACK) if captures else None
