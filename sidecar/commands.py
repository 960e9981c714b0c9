"""What each command does: run a relay, check a configuration, or ask a running relay and show its answer.

Owns: stdout of every command but run, as text or JSON.
Never here: a flag's meaning, an error's line (RelayError goes to cli).
"""

import contextlib
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from sidecar.config import Config, Flags, load_admin, load_config
from sidecar.config.kinds import write_duration
from sidecar.config.network_kinds import family_of
from sidecar.errors import BAD_CONFIG, FAILED, Problem, RelayError, reason
from sidecar.report.flows import BEGINNING, EQUAL

ANSWER_SECONDS = 10.0  # a relay answers in milliseconds; this one is stuck
WHERE_ELSE = "see what it said at its start; --socket names another relay"
POLL_SECONDS = 0.05  # between two looks for a relay that starts

Facts = Mapping[str, Any]


def run(arguments: Namespace) -> int:
    """Relay in the foreground."""
    from sidecar.proxy import run as run_relay

    return run_relay(_flags(arguments), os.environ)


def check(arguments: Namespace) -> int:
    """Validate, and show what would hold."""
    flags = _flags(arguments)
    try:
        config = load_config(flags, os.environ)
        _check_machine(config)
        _check_elements(config)
        rules_problems = _check_rules(config)
    except RelayError as error:
        if arguments.json:
            _say_json({"valid": False, "problems": [problem._asdict() for problem in error.problems]})
        raise
    warned = [*config.warnings, *rules_problems]
    for problem in warned:
        sys.stderr.write(f"warning: {problem}\n")
    if arguments.json:
        warnings = [problem._asdict() for problem in warned]
        _say_json({"valid": True, "warnings": warnings, "configuration": _effective(config)})
    else:
        listeners = ", ".join(f"{listener.name} {listener.port} {listener.capture}" for listener in config.listeners)
        say(f"{config.file or 'defaults'}: valid: {listeners}")
    return 0


def _check_elements(config: Config) -> None:
    """Whether their code loads, here and as this user, and takes its options."""
    if config.elements:
        from sidecar.proxy.elements import Elements

        Elements(config, config.rules.mark)


def _check_machine(config: Config) -> None:
    """What this machine tells without a bind or a look-up."""
    from sidecar.addresses import own_networks
    from sidecar.listeners import check_interface
    from sidecar.target import refuse_own_listener, resolve_target

    check_interface(config.interface)
    if config.relay.target and family_of(config.relay.target.host):
        target = resolve_target(config)
        with contextlib.suppress(OSError):  # no rtnetlink in a sandbox: run will tell
            if target:
                refuse_own_listener(config, target, own_networks())


def _check_rules(config: Config) -> list[Problem]:
    """Why there can be no rules: an error where rules are asked for, else a warning, since people write their own."""
    from sidecar.rules.choices import captured, problems

    backend = "iptables" if config.rules.backend.startswith("iptables") else "nft"
    found = problems(config, backend, guarded=config.with_rules) if captured(config) or config.with_rules else []
    if found and (config.with_rules or config.rules.given - {"mark"}):
        raise RelayError(*found, exit_status=BAD_CONFIG)
    return found


def wait(arguments: Namespace) -> int:
    """Ask until the relay is ready."""
    path = _socket_path(arguments)
    deadline = time.monotonic() + arguments.timeout / 1000
    while True:
        try:
            state = _ask(path, "state", seconds=max(POLL_SECONDS, deadline - time.monotonic()))
            found = str(state["state"])
        except RelayError as error:
            state, found = {}, error.problems[0].found
        if found == "ready":
            _show(arguments, state, f"ready: pid {state['pid']}")
            return 0
        if time.monotonic() >= deadline:
            raise RelayError(
                Problem(path, f"a relay that is ready within {write_duration(arguments.timeout)}", found, WHERE_ELSE)
            )
        time.sleep(POLL_SECONDS)


def stats(arguments: Namespace) -> int:
    """Show what was counted."""
    from sidecar.report.stats import page

    answer = _ask(_socket_path(arguments), "stats")
    _show(arguments, answer, "" if arguments.json else page(answer))
    return 0


def flows(arguments: Namespace) -> int:
    """Show live flows."""
    from sidecar.report.flows import table

    query = {name: getattr(arguments, name) for name in ("sort", "limit", *EQUAL, *BEGINNING)}
    answer = _ask(_socket_path(arguments), "flows", {name: value for name, value in query.items() if value is not None})
    hidden = answer["matching"] - len(answer["flows"])
    more = f"\nand {hidden} more; --limit 0 shows them" if hidden else ""
    if answer["live"] > answer["listed"]:  # or they began while the list was made
        more += f"\n{answer['live'] - answer['listed']} live flows are not listed: an element holds their worker up"
    _show(arguments, answer, "" if arguments.json else table(answer["flows"]) + more)
    return 0


def reload(arguments: Namespace) -> int:
    """Let the relay read its configuration again."""
    answer = _ask(_socket_path(arguments), "reload")
    changes = [f"{what}: {', '.join(keys) or 'nothing'}" for what, keys in answer.items() if what != "file"]
    _show(arguments, answer, "\n".join([f"read again: {answer.get('file') or 'no file'}", *changes]))
    return 0


def drain(arguments: Namespace) -> int:
    """Let the relay end."""
    answer = _ask(_socket_path(arguments), "drain")
    _show(arguments, answer, f"draining: live flows: {answer['live']}, {answer['deadline_s']:g} s left for them")
    return 0


def _flags(arguments: Namespace) -> Flags:
    return Flags(
        arguments.config or "",
        arguments.ports or (),
        arguments.interface or "",
        arguments.log_level or "",
        arguments.log_format or "",
        arguments.with_rules,
    )


def _socket_path(arguments: Namespace) -> str:
    """--socket, else what the configuration says."""
    if arguments.socket:
        return str(arguments.socket)
    path = load_admin(Flags(config=arguments.config or ""), os.environ).socket
    if not path:
        raise RelayError(Problem("admin.socket", "a path", '"": the relay does not listen', "--socket names another one"))
    return path


def _ask(path: str, command: str, query: Mapping[str, object] = {}, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    from sidecar.admin import ask

    return ask(path, command, query, seconds)


def _effective(config: Config) -> dict[str, object]:
    return {
        "file": config.file or None,
        "relay": config.relay.as_toml(),
        "listener": [listener.as_toml() for listener in config.listeners],
        "rules": config.rules.as_toml(),
        "log": config.log.as_toml(),
        "admin": config.admin.as_toml(),
        "interface": config.interface or None,
    }


def _show(arguments: Namespace, facts: Facts, text: str) -> None:
    if arguments.json:
        _say_json(facts)
    else:
        say(text)


def _say_json(facts: Facts) -> None:
    say(json.dumps(facts))


def say(text: str) -> None:
    """Print it on stdout; RelayError when stdout does not take it."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries again at its end
        if isinstance(error, BrokenPipeError):  # `relay-sidecar flows | head`
            raise SystemExit(FAILED) from None
        raise RelayError(Problem("stdout", "to take the answer", reason(error))) from None
