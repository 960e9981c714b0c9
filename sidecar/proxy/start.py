"""The start, in the one order that works: what needs privilege, the user, the sockets, the confinement, the engine.

Owns: that order (each step says why it stands where it stands) and everything that can fail before the first connection.
Never here: a thread before the privileges are gone; a connection (relay starts the workers).
"""

import errno
import importlib
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from relaycore import BUILD, CAPTURES, DIRECTIONS, Address, Engine, Settings
from sidecar import __version__
from sidecar.addresses import own_networks, watch_addresses
from sidecar.admin import Sockets, open_sockets, prepare_directory
from sidecar.config import Config, Endpoint
from sidecar.errors import Problem, RelayError, reason
from sidecar.inherited import take_inherited
from sidecar.listeners import Bound, open_listeners
from sidecar.privileges import (
    Identity,
    become,
    choose_identity,
    confine,
    missing_capability,
    missing_mark,
    raise_open_files,
    sufficient_capability,
    what_sockets_need,
)
from sidecar.proxy.companion import Companion
from sidecar.proxy.facts import Limits, Shown
from sidecar.proxy.rules_state import RulesState, begin
from sidecar.proxy.settings import element_worker_count, engine_settings, flow_capacity, pipe_count, worker_count
from sidecar.report import Fields, Report
from sidecar.target import refuse_own_listener, resolve_target

if TYPE_CHECKING:
    from sidecar.proxy.elements import Elements

# Imported while the interpreter's directory is readable for sure; at another user's start they are left until they are needed.
LATER_IMPORTS = ("difflib", "setproctitle")
FEW_FLOWS = 1000  # fewer are a surprise, whatever was asked for
MORE_FILES = "raise the limit on open files (ulimit -n)"


class Started(NamedTuple):
    """What the start made and found; the relay owns all of it from now on."""

    identity: Identity
    capability: str  # the one that was kept; "": none
    mark: int
    target: Address | None  # of listeners with capture = "none"
    workers: int  # threads of both kinds
    listeners: list[Shown]
    sockets: Sockets
    rules: RulesState
    watcher: socket.socket  # readable when own_networks may have changed
    own_networks: tuple[str, ...]
    open_files: int
    capacity: int  # the most flows that open_files allows
    engine: Engine
    elements: "Elements | None"
    companion: Companion | None  # of --with-rules


def start(config: Config, report: Report) -> Started:
    """Everything up to the workers' threads; RelayError when the relay cannot run."""
    for problem in config.warnings:
        report.warn(problem)
    identity = choose_identity(config)
    target = resolve_target(config)  # may read files that only root reads
    watcher, networks = _local_addresses()
    if target:
        refuse_own_listener(config, target, networks)
    inherited = take_inherited(os.environ, report.warn)
    if config.admin.socket:
        prepare_directory(config.admin.socket, identity.user.id, identity.group.id)
    if identity.user.id != os.geteuid():
        for name in LATER_IMPORTS:
            importlib.import_module(name)

    # With the privileges that are given up here, and while the interpreter's directory is readable.
    companion = Companion(config) if config.with_rules else None
    rules = begin(config, report)

    become(identity, config.where("relay.user"))
    if identity.user.id == 0:
        report.warn(Problem(config.where("relay.user"), "a user of the relay's own", "root", "its faults would be root's"))
    capability, mark = _capability(config, report)
    plain, for_elements = worker_count(config), element_worker_count(config)
    workers = plain + for_elements
    # A listener that root made keeps root's uid: its group could not be joined later, and rules could not tell whose it is.
    bound = open_listeners(
        config, lambda listener: for_elements if config.elements_of(listener) else plain, inherited, report.warn
    )
    shown = [Shown(listener.listener, listener.port, listener.addresses) for listener in bound]
    sockets = open_sockets(config, report.warn)
    confine(capability)

    if config.file and not os.access(config.file, os.R_OK):
        expected = f"a file that user {identity.user.name} can read"
        report.warn(Problem(config.file, expected, "one that it cannot", "reload will fail"))
    open_files = raise_open_files()
    pipes = pipe_count(config, workers)
    capacity = flow_capacity(open_files, sum(len(listener.sockets) for listener in bound), pipes)
    _warn_of_few_files(config, open_files, capacity, report)
    settings = engine_settings(config, report.access, capacity, mark, networks)
    # As the user that the relay is, without privileges: it is other people's code.
    elements = _elements(config, mark) if config.elements else None
    engine = _engine(config, settings, plain, pipes, capacity)
    _hand_over(engine, bound, target, elements)
    return Started(
        identity=identity,
        capability=capability,
        mark=mark,
        target=target,
        workers=workers,
        listeners=shown,
        sockets=sockets,
        rules=rules,
        watcher=watcher,
        own_networks=networks,
        open_files=open_files,
        capacity=capacity,
        engine=engine,
        elements=elements,
        companion=companion,
    )


def start_fields(config: Config, started: Started) -> Fields:
    """The start record: what is listened on, by whom, with what capabilities and limits."""
    identity, limits = started.identity, limits_of(config, started)
    fields: dict[str, object] = {
        "version": __version__,
        "build": BUILD,
        "pid": os.getpid(),
        "user": identity.user.name,
        "uid": identity.user.id,
        "group": identity.group.name,
        "gid": identity.group.id,
        "capabilities": [started.capability] if started.capability else [],
        "config": config.file or None,
        "listeners": [
            {
                "name": shown.listener.name,
                "direction": shown.listener.direction,
                "capture": shown.listener.capture,
                "addresses": list(shown.addresses),
            }
            for shown in started.listeners
        ],
        "admin": {name: _address(sock) for name, sock in started.sockets._asdict().items()},
        "target": str(Endpoint(*started.target)) if started.target else None,
        "workers": started.workers - element_worker_count(config),
        "element_workers": element_worker_count(config),
        "elements": started.elements.names if started.elements else [],
        "max_flows": limits.flows,
        "open_files": limits.open_files,
        "pipes": limits.pipes,
        "mark": f"{started.mark:#x}" if started.mark else None,
        "own_networks": len(started.own_networks),
        "rules": started.rules.state,
    }
    return {**fields, "note": identity.note} if identity.note else fields


def limits_of(config: Config, started: Started) -> Limits:
    """What bounds the relay under this configuration."""
    flows = min(config.relay.max_flows, started.capacity)
    return Limits(flows, started.open_files, pipe_count(config, started.workers), config.relay.max_pending)


def _local_addresses() -> tuple[socket.socket, tuple[str, ...]]:
    try:
        watcher = watch_addresses()  # before the dump: nothing that changes in between is missed
        return watcher, own_networks()
    except OSError as error:
        raise RelayError(Problem("rtnetlink", "the addresses of this network namespace", reason(error))) from None


def _capability(config: Config, report: Report) -> tuple[str, int]:
    """The capability to keep while the relay runs, and the mark that it can set."""
    needs = what_sockets_need(config)
    name = sufficient_capability(needs)
    if name is None and needs.transparent:
        raise missing_capability(config, needs.transparent)
    if name is None:
        report.warn(missing_mark(config))
        return "", 0
    return (name if needs.dial else ""), needs.mark


def _warn_of_few_files(config: Config, open_files: int, capacity: int, report: Report) -> None:
    """A number that was asked for is missed, or there is room for a few flows alone; else the start record tells."""
    wanted = config.relay.max_flows
    if capacity < (wanted if "max_flows" in config.relay.given else min(wanted, FEW_FLOWS)):
        found = f"a limit of {open_files}, enough for {capacity} flows"
        report.warn(Problem(config.where("relay.max_flows"), f"open files for {wanted} flows", found, MORE_FILES))


def _engine(config: Config, settings: Settings, workers: int, pipes: int, capacity: int) -> Engine:
    try:
        return Engine(
            settings,
            workers=workers,
            element_workers=element_worker_count(config),
            max_pipes=pipes,
            max_pending_bytes=config.relay.max_pending,
            table_flows=capacity,
        )
    except (OSError, ValueError, MemoryError) as error:
        step = MORE_FILES if isinstance(error, OSError) and error.errno == errno.EMFILE else ""
        raise RelayError(Problem("engine", "memory and descriptors", str(error) or "no memory", step)) from None


def _elements(config: Config, mark: int) -> "Elements":
    from sidecar.proxy.elements import Elements  # its imports take milliseconds that only those pay who have elements

    return Elements(config, mark)


def _hand_over(engine: Engine, bound: Sequence[Bound], target: Address | None, elements: "Elements | None") -> None:
    for sockets in bound:
        listener = sockets.listener
        try:
            engine.add_listener(
                sockets.take_descriptors(),
                direction=DIRECTIONS.index(listener.direction),
                capture=CAPTURES.index(listener.capture),
                port=sockets.port,
                target=target if listener.capture == "none" else None,
                preserve_client=listener.preserve_client,
                name=listener.name,
                elements=elements.uses(listener) if elements else None,
            )
        except (OSError, ValueError) as error:
            raise RelayError(Problem(f"listener {listener.name}", "its sockets to be taken", str(error))) from None


def _address(sock: socket.socket | None) -> str | None:
    if sock is None:
        return None
    name = sock.getsockname()
    return name if isinstance(name, str) else str(Endpoint(*name[:2]))
