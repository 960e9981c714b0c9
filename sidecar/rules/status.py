"""How what is there stands to what a configuration asks for.

Owns: the words applied, drifted, missing and foreign, and the fields and the page of `rules status`.
Never here: a change.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.config import Config
from sidecar.errors import NO_PRIVILEGE
from sidecar.rules import routes
from sidecar.rules.change import Situation, Wanted, compare, foreign, present, wanted
from sidecar.rules.held import Line
from sidecar.rules.keeper import CHANGING, CONFIRMING, GUARDING, holder
from sidecar.rules.programs import ProgramFailed

TRIES = 20
TRY_AGAIN_SECONDS = 0.1

KEEPING = {
    CHANGING: "another process is changing them",
    CONFIRMING: "they wait for `rules confirm`, and go back in {seconds_left} s",
    GUARDING: "another process guards them",
}

Facts = Mapping[str, Any]


def state_of(now: Situation, aim: Wanted) -> str:
    """One word: whose and how the rules are that are there."""
    if foreign(now):
        return "foreign"
    if not compare(now, aim.situation):
        return "applied"
    return "drifted" if now.held or now.ways else "missing"


def settled() -> Situation:
    """What is there, between two changes of others who hold the lock: in the middle of one, chains come and go."""
    for _ in range(TRIES):
        try:
            return present()
        except ProgramFailed as error:
            if error.exit_status == NO_PRIVILEGE or holder() is None:
                break
            time.sleep(TRY_AGAIN_SECONDS)
    return present()


def look(config: Config) -> Facts:
    """Everything that `rules status` tells."""
    aim = wanted(config, guarded=True, try_out=False)
    now = settled()
    keeping = holder()
    return {
        "state": state_of(now, aim),
        "backend": aim.backend.name,
        "digest": aim.plan.digest(),
        "found": {name: holding.digest or None for name, holding in now.held.items()},
        "differences": compare(now, aim.situation),
        "foreign": foreign(now),
        "keeper": keeping._asdict() if keeping else None,
        "rules": [
            {"place": place, "rule": line.text, "packets": line.packets, "bytes": line.bytes}
            for holding in now.held.values()
            for place, lines in holding.places.items()
            for line in lines
        ],
        "ways": [routes.text(way) for way in sorted(now.ways, key=str)],
    }


def page(facts: Facts) -> str:
    """The same as text."""
    lines = [f"rules {facts['state']} ({facts['backend']}, plan {facts['digest']})"]
    if facts["keeper"]:
        lines.append(KEEPING[facts["keeper"]["state"]].format(**facts["keeper"]))
    lines += facts["foreign"]
    if facts["differences"]:
        lines += ["`rules apply` would change:", *facts["differences"]]
    return "\n".join([*lines, *_counted(facts["rules"]), *facts["ways"]])


def _counted(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    place = ""
    for rule in rules:
        if rule["place"] != place:
            place = rule["place"]
            lines.append(place)
        line = Line(rule["rule"], rule["packets"], rule["bytes"])
        packets, octets = ("-", "-") if line.packets is None else (str(line.packets), str(line.bytes))
        lines.append(f"{packets:>10} {octets:>12}  {line.text}")
    return lines
