"""What can be had: who takes which family, what happens when the relay is dead, and which wishes the kernel cannot fulfil.

Owns: the table of on_failure (capture, back end, choice) and every reason why a valid configuration has no rules.
Never here: a rule; anything that asks the machine.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sidecar.config import Config, Listener
from sidecar.config.network_kinds import family_of
from sidecar.errors import Problem
from sidecar.rules.model import BOTH, V4, V6

WILDCARDS = ("", "0.0.0.0", "::")
LOOPBACKS = ("127.0.0.1", "::1")

GUARD = "`rules apply --guard`, or `run --with-rules`"


def families_of(listener: Listener, families: tuple[int, ...]) -> tuple[int, ...]:
    """The families that a listener takes, of those that have rules; an explicit :: is dual-stack."""
    if listener.address in ("", "::"):
        return families
    own = V6 if ":" in listener.address else V4
    return tuple(family for family in families if family == own)


class Port(NamedTuple):
    """A listener, and the family that it takes: BOTH when it takes every one that has rules."""

    listener: Listener
    family: int


def ports_of(config: Config, families: tuple[int, ...], direction: str, capture: str) -> list[Port]:
    """The listeners of one direction and capture."""
    ports = []
    for listener in config.listeners:
        if (listener.direction, listener.capture, listener.protocol) == (direction, capture, "tcp"):
            taken = families_of(listener, families)
            if taken:
                ports.append(Port(listener, BOTH if len(taken) > 1 else taken[0]))
    return ports


def captured(config: Config) -> list[Listener]:
    """The listeners to which rules bring connections."""
    return [listener for listener in config.listeners if listener.capture != "none" and listener.protocol == "tcp"]


def when_dead(choice: str, capture: str, backend: str) -> str:
    """What the rules do when nobody listens: reset, drop or open."""
    if choice != "auto":
        return choice
    return "drop" if (capture, backend) == ("tproxy", "iptables") else "reset"


def can(choice: str, capture: str, backend: str) -> bool:
    """Whether the kernel does so by itself, without a companion.

    Under REDIRECT the kernel resets by nature, and is told to drop. Under TPROXY iptables drops, whatever follows; nft goes on
    to the next rule, which may be anything.
    """
    if capture == "redirect":
        return choice in ("auto", "reset", "drop")
    return backend == "nft" or choice in ("auto", "drop")


def problems(config: Config, backend: str, *, guarded: bool) -> list[Problem]:
    """Why there cannot be rules; each names what works."""
    return [
        *_listeners(config),
        *_exemption(config),
        *_failure(config, backend, guarded=guarded),
        *_notrack(config),
    ]


def _listeners(config: Config) -> Iterator[Problem]:
    listeners = captured(config)
    if not listeners:
        found = 'only listeners with capture = "none"' if config.listeners else "none"
        yield Problem(config.where("listener"), "a listener that rules can bring connections to", found)
    for index, listener in enumerate(config.listeners):
        key = f"listener[{index}]"
        if listener not in listeners:
            continue
        for earlier in listeners[: listeners.index(listener)]:
            if earlier.direction == listener.direction and set(families_of(earlier, (V4, V6))) & set(
                families_of(listener, (V4, V6))
            ):
                expected = f"one captured {listener.direction} listener for each family"
                yield Problem(config.where(f"{key}.direction"), expected, f"{earlier.name} and {listener.name}")
        if listener.direction == "gateway":
            if listener.capture == "redirect":
                works = 'capture = "tproxy" works; REDIRECT rules for a gateway would make it an open relay'
                yield Problem(config.where(f"{key}.capture"), '"tproxy" for rules of a gateway', '"redirect"', works)
            if not config.rules.gateway_interfaces:
                step = "name those behind which the clients are"
                yield Problem(config.where("rules.gateway_interfaces"), "at least one interface", "none", step)
        elif listener.capture == "redirect":
            yield from _redirect_address(config, key, listener)
        if listener.capture == "tproxy" and "%" in listener.address:
            expected = "an address without a zone: no TPROXY rule can name one"
            yield Problem(config.where(f"{key}.address"), expected, listener.address)


def _redirect_address(config: Config, key: str, listener: Listener) -> Iterator[Problem]:
    """REDIRECT chooses the address: loopback for outbound, the interface's first one for inbound."""
    if listener.direction == "outbound" and listener.address not in (*WILDCARDS, *LOOPBACKS):
        expected = "an address at which redirected connections arrive: any, 127.0.0.1 or ::1"
        yield Problem(config.where(f"{key}.address"), expected, listener.address)
    if listener.direction == "inbound" and listener.address not in WILDCARDS:
        expected = "every address: redirected connections arrive at the first one of their interface"
        yield Problem(config.where(f"{key}.address"), expected, listener.address, 'with capture = "tproxy" any works')


def _exemption(config: Config) -> Iterator[Problem]:
    """A relay that the rules cannot tell from the app is captured by itself."""
    rules = config.rules
    listeners = captured(config)
    if rules.mark == 0 and any(listener.capture == "tproxy" for listener in listeners):
        expected = "a mark: TPROXY sees every packet, and those of a closed socket have no owner"
        yield Problem(config.where("rules.mark"), expected, "0", "0x539 is the default")
    elif rules.mark == 0 and not rules.exempt_owner:
        expected = "a mark, where the relay's owner is not exempt: it would capture itself"
        yield Problem(config.where("rules.mark"), expected, "0", "or leave exempt_owner at true")


def _failure(config: Config, backend: str, *, guarded: bool) -> Iterator[Problem]:
    choice = config.rules.on_failure
    for capture in sorted({listener.capture for listener in captured(config)}):
        if can(choice, capture, backend) or (guarded and choice == "open"):
            continue
        works = " or ".join(f'"{other}"' for other in ("reset", "drop") if can(other, capture, backend))
        step = f"works here: {works}"
        if choice == "open":
            step += f'; "open" with {GUARD}, or with capture = "tproxy" and backend = "nft"'
        else:
            step += f'; "{choice}" with backend = "nft"'
        expected = f"what {backend} can do with {capture} when the relay is dead"
        yield Problem(config.where("rules.on_failure"), expected, f'"{choice}"', step)


def _notrack(config: Config) -> Iterator[Problem]:
    """REDIRECT, and the way back to a relay that spoofs, are what conntrack remembers."""
    if not config.rules.notrack:
        return
    found = [
        f"{listener.name} with {'preserve_client' if listener.preserve_client else 'redirect'}"
        for listener in captured(config)
        if listener.capture == "redirect" or listener.preserve_client
    ]
    if not found and not any(map(config.client_mark_of, captured(config))):
        found = ["outbound alone, which conntrack has to track"]
    if found:
        expected = "listeners that can do without conntrack"
        works = 'capture = "tproxy" without preserve_client works, where one of them is inbound or a gateway'
        yield Problem(config.where("rules.notrack"), expected, ", ".join(found), works)


def on_address(listener: Listener) -> str | None:
    """The address at which TPROXY finds this listener; None for any."""
    return listener.address if listener.address not in WILDCARDS and family_of(listener.address) else None
