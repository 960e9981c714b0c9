"""`relay-sidecar rules …`: what each of its commands does and shows.

Owns: the flags of these commands and their stdout, as text or JSON. What only one of them needs is imported when it is called.
Never here: a rule, or a change of one (sidecar.rules).
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from sidecar.commands import say
from sidecar.config import Config, Flags, load_config
from sidecar.config.kinds import duration, write_duration
from sidecar.errors import FAILED, Problem, RelayError
from sidecar.flags import EXIT_STATUS, Arguments, Command, Parser, config_option, json_option, of_kind, option, ports_option

DIFFERS = 3  # of plan --exit-code
FORMATS = ("nft", "iptables", "json")
IPTABLES = {4: "iptables-restore", 6: "ip6tables-restore"}


def show(arguments: Arguments) -> int:
    """Print what would be applied; nothing is asked of the kernel."""
    from sidecar.rules import iptables, nft, routes
    from sidecar.rules.plan import make_plan

    config = _config(arguments)
    configured = {"iptables-legacy": "iptables"}.get(config.rules.backend, config.rules.backend)
    form = arguments.format or (configured if configured in FORMATS else "nft")
    kind = "iptables" if "iptables" in (form, configured if form == "json" else "") else "nft"
    plan = make_plan(config, kind, guarded=arguments.guard)
    ways = [routes.text(way) for way in sorted(routes.ways_of(plan), key=str)]
    if form == "json":
        _say_json({"digest": plan.digest(), **plan.as_json(), "ways": ways})
        return 0
    lines = [f"# {way}" for way in ways]
    if form == "nft":
        say("\n".join([*lines, nft.script(nft.render(plan), plan.digest()).rstrip()]))
        return 0
    for family, text in iptables.scripts(iptables.render(plan), plan.digest()).items():
        lines += [f"# {IPTABLES[family]} --noflush", text.rstrip()]
    say("\n".join(lines))
    return 0


def plan(arguments: Arguments) -> int:
    """Print what apply would change."""
    from sidecar.rules.change import check_clashes, compare, wanted
    from sidecar.rules.status import settled

    _enter(arguments)
    config = _config(arguments)
    aim = wanted(config, guarded=arguments.guard)
    now = settled()
    check_clashes(config, now, aim.situation)
    changes = compare(now, aim.situation)
    if arguments.json:
        _say_json({"backend": aim.backend.name, "digest": aim.plan.digest(), "changes": changes})
    else:
        say("\n".join(changes) or f"nothing to change: the rules are as planned ({aim.backend.name})")
    return DIFFERS if changes and arguments.exit_code else 0


def apply(arguments: Arguments) -> int:
    """Apply, look, probe; then leave, wait for a confirmation, or stay as a guard."""
    from sidecar.rules.apply import apply as apply_rules
    from sidecar.rules.apply import facts, page
    from sidecar.rules.guard import Guard

    _enter(arguments)
    config = _config(arguments)
    if arguments.guard:
        return Guard(config, repair=arguments.repair, probe=not arguments.no_probe, told=_guarded(arguments)).run()
    seconds = arguments.confirm / 1000 if arguments.confirm else 0.0
    if seconds:
        done = apply_rules(config, probe=not arguments.no_probe, after=lambda keeper: keeper.await_confirmation(seconds))
    else:
        done = apply_rules(config, probe=not arguments.no_probe)
    if arguments.json:
        _say_json({**facts(done), "confirm_within_s": seconds or None})
    else:
        more = f"\nthey go back in {write_duration(round(seconds * 1000))} unless `relay-sidecar rules confirm` comes"
        say(page(done) + (more if seconds else ""))
    return 0


def remove(arguments: Arguments) -> int:
    """Take everything away that is ours."""
    from sidecar.rules.apply import remove as remove_rules

    _believe_relay(arguments)
    _enter(arguments)
    before = remove_rules()
    gone = [place for holding in before.held.values() for place in holding.places]
    if arguments.json:
        _say_json({"removed": gone, "ways": len(before.ways)})
    else:
        legacy = "; the kernel keeps the empty tables of iptables-legacy" if "iptables-legacy" in before.held else ""
        told = f"rules removed: {len(gone)} chains, {len(before.ways)} ip rules and routes{legacy}"
        say(told if gone or before.ways else "no rules of ours")
    return 0


def status(arguments: Arguments) -> int:
    """Say how what is there stands to what the configuration asks for."""
    from sidecar.rules.status import look, page

    _enter(arguments)
    found = look(_config(arguments))
    if arguments.json:
        _say_json(found)
    else:
        say(page(found))
    return 0 if found["state"] == "applied" else FAILED


def confirm(arguments: Arguments) -> int:
    """Keep what `apply --confirm` applied."""
    return _answer(arguments, "confirm", "confirmed", "confirmed: the rules stay")


def rollback(arguments: Arguments) -> int:
    """Go back to before `apply --confirm`, now."""
    return _answer(arguments, "rollback", "rolled back", "rolled back: the rules are what they were before")


def _answer(arguments: Arguments, word: str, wanted: str, told: str) -> int:
    from sidecar.rules.keeper import ask

    _believe_relay(arguments)
    _enter(arguments)
    answer = ask(word)
    if answer != wanted:
        found = f"one that is {answer.split()[0]}" if answer else "none"
        step = "`rules apply --confirm 30s` begins one"
        step += "; this one ends by `rules remove`" if answer else "; it may have gone back already"
        raise RelayError(Problem("rules", "a change that waits for its confirmation", found, step))
    say(json.dumps({"answer": answer}) if arguments.json else told)
    return 0


def _guarded(arguments: Arguments) -> Any:
    def told(event: str, fields: Mapping[str, object]) -> None:
        if arguments.json:
            _say_json({"event": event, **fields})
        else:
            say(": ".join([event, *(_words(name, value) for name, value in fields.items() if value)]))

    return told


def _words(name: str, value: object) -> str:
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value} {name}" if isinstance(value, int) else str(value)


def _config(arguments: Arguments) -> Config:
    from sidecar.rules.keeper import believe

    config = load_config(Flags(config=arguments.config or "", ports=arguments.ports or ()), os.environ)
    believe(config.relay.user.id)
    for problem in config.warnings:
        sys.stderr.write(f"warning: {problem}\n")
    return config


def _believe_relay(arguments: Arguments) -> None:
    """The user of the file, for commands that have to work without a valid one."""
    from sidecar.rules.keeper import believe

    with contextlib.suppress(RelayError):
        believe(load_config(Flags(config=arguments.config or ""), os.environ).relay.user.id)


def _enter(arguments: Arguments) -> None:
    if arguments.netns:
        from sidecar.privileges import enter_network

        enter_network(arguments.netns)


def _say_json(facts: Mapping[str, object]) -> None:
    say(json.dumps(facts))


def _place_options(parser: Parser) -> None:
    option(
        parser,
        "--netns",
        "act on this network namespace, as /proc/PID/ns/net or /run/netns/NAME",
        default="our own",
        metavar="PATH",
    )
    json_option(parser)


def _keeper_options(parser: Parser) -> None:
    config_option(parser, "the TOML file, read only for relay.user, whose relay may guard the rules")
    _place_options(parser)


def _config_options(parser: Parser) -> None:
    config_option(parser)
    ports_option(parser)
    _place_options(parser)


def _show_options(parser: Parser) -> None:
    config_option(parser)
    ports_option(parser)
    option(
        parser,
        "--format",
        "as a script for nft -f, as ones for iptables-restore and ip6tables-restore, or as JSON",
        default="as rules.backend says; auto: nft",
        choices=FORMATS,
    )
    _guard_option(parser, "as `rules apply --guard` would apply them")


def _plan_options(parser: Parser) -> None:
    _config_options(parser)
    parser.add_argument("--exit-code", action="store_true", help=f"exit with {DIFFERS} when something differs (default: 0)")
    _guard_option(parser, "plan as `rules apply --guard` would")


def _guard_option(parser: Parser, meaning: str) -> None:
    parser.add_argument("--guard", action="store_true", help=f"{meaning} (default: no)")


def _apply_options(parser: Parser) -> None:
    _config_options(parser)
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--confirm",
        type=of_kind(duration("1s", "1h")),
        metavar="DURATION",
        help="go back to the rules of before after so long, unless `rules confirm` comes; survives a hang-up (default: no)",
    )
    ways.add_argument(
        "--guard",
        action="store_true",
        help="stay, report changes to the rules, and remove them when this process or its parent ends (default: no)",
    )
    parser.add_argument(
        "--repair", action="store_true", help="with --guard: put changed rules right again (default: report only)"
    )
    parser.add_argument(
        "--no-probe", action="store_true", help="do not send connections of our own to see that they are captured (default: do)"
    )


RULES = {
    "show": Command(
        "print what would be applied",
        "Print the rules for the configuration. Needs no privilege; nothing is looked at or changed.",
        _show_options,
        show,
    ),
    "plan": Command(
        "print what apply would change",
        "Compare the rules for the configuration with what is there. Nothing is changed.",
        _plan_options,
        plan,
    ),
    "apply": Command(
        "apply the rules, all or nothing",
        "Put the rules for the configuration in the place of earlier ones of ours, see that they are there,\n"
        "and send a few connections to see that they are captured. If anything fails, all is as before. Rules\n"
        "of others are never touched. Again: repairs what has changed, else changes nothing. Connections that\n"
        "exist already go on as they are.",
        _apply_options,
        apply,
    ),
    "confirm": Command(
        "keep what `apply --confirm` applied", "The rules stay; the process that waited ends.", _keeper_options, confirm
    ),
    "rollback": Command(
        "go back to before `apply --confirm`",
        "The rules of before come back now, not at the end of the time.",
        _keeper_options,
        rollback,
    ),
    "remove": Command(
        "take the rules away",
        "Remove everything that apply put here, by whatever back end, and end a guard or a wait for\n"
        "confirmation. Captured connections that live are cut or stall: drain the relay first.",
        _keeper_options,
        remove,
    ),
    "status": Command(
        "compare what is there with the configuration",
        "Say applied (exit status 0), drifted, missing or foreign (1), and how many packets each rule has\nseen.",
        _config_options,
        status,
    ),
}


def rules_options(parser: Parser) -> None:
    """The commands under `rules`."""
    subparsers = parser.add_subparsers(title="commands", dest="rules_command", metavar="COMMAND", required=True)
    for name, command in RULES.items():
        subparser = subparsers.add_parser(name, help=command.summary, description=command.description, epilog=EXIT_STATUS)
        command.options(subparser)


def run_rules(arguments: Arguments) -> int:
    """The one that was asked for."""
    return RULES[arguments.rules_command].run(arguments)
