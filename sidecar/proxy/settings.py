"""From the configuration to what the engine is told, and what a reload can change of it.

Owns: the arithmetic of workers, descriptors and flows; the comparison of two configurations.
Never here: a running engine, a file.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from relaycore import Settings
from sidecar.config import Config
from sidecar.config.sections import Section

BASE_DESCRIPTORS = 256  # log, admin and its clients, signals, netlink, the worker's own, and a few to spare
DESCRIPTORS_PER_FLOW = 2
DESCRIPTORS_PER_PIPE = 2
PIPES_PER_WORKER = 2


S = TypeVar("S", bound=Section)


class Changes(NamedTuple):
    """What a fresh file says otherwise, by key: what was applied, what waits for a restart, what only rule commands read."""

    applied: list[str]
    restart: list[str]
    rules: list[str]


def worker_count(config: Config) -> int:
    """As configured, or one per CPU that this process may use."""
    return config.relay.workers or len(os.sched_getaffinity(0))


def element_worker_count(config: Config) -> int:
    """Workers for flows with elements; without elements none."""
    return config.relay.element_workers if config.elements else 0


def pipe_count(config: Config, workers: int) -> int:
    """As configured, but a pipe for each half of a flow at least: a worker without one would copy all that it moves."""
    return max(config.relay.max_pipes, PIPES_PER_WORKER * workers) if config.relay.max_pipes else 0


def flow_capacity(open_files: int, sockets: int, pipes: int) -> int:
    """How many flows the limit on open files allows; at least one, whatever the limit."""
    reserve = BASE_DESCRIPTORS + sockets + DESCRIPTORS_PER_PIPE * pipes
    return max(1, (open_files - reserve) // DESCRIPTORS_PER_FLOW)


def engine_settings(config: Config, access: bool, capacity: int, mark: int, own_networks: Sequence[str]) -> Settings:
    """What the workers take from a configuration; capacity is the most flows that the limit on open files allows."""
    relay = config.relay
    return Settings(
        max_flows=min(relay.max_flows, capacity),
        connect_timeout_ms=relay.connect_timeout,
        idle_timeout_ms=relay.idle_timeout,
        half_close_timeout_ms=relay.half_close_timeout,
        keepalive_time_s=relay.keepalive_time // 1000,
        keepalive_interval_s=relay.keepalive_interval // 1000,
        keepalive_probes=relay.keepalive_probes,
        mark=mark,
        access=access,
        busy_poll_us=relay.busy_poll,
        own_networks=own_networks,
    )


def with_live_keys(running: Config, fresh: Config) -> Config:
    """The running configuration with what a reload can apply of a fresh one."""
    return running._replace(
        relay=_merged(running.relay, fresh.relay), log=_merged(running.log, fresh.log), elements=fresh.elements
    )


def _merged(running: S, fresh: S) -> S:
    values = {name: getattr(fresh if key.live else running, name) for name, key in running.keys.items()}
    return type(running)(values, running.given)


def compare(running: Config, fresh: Config) -> Changes:
    """What differs, by key."""
    changes = Changes([], [], [])
    pairs: list[tuple[str, Section, Section]] = [
        ("relay", running.relay, fresh.relay),
        ("rules", running.rules, fresh.rules),
        ("log", running.log, fresh.log),
        ("admin", running.admin, fresh.admin),
    ]
    if [listener.name for listener in running.listeners] == [listener.name for listener in fresh.listeners]:
        listeners = zip(running.listeners, fresh.listeners, strict=True)
        pairs += [(f"listener[{index}]", old, new) for index, (old, new) in enumerate(listeners)]
    else:
        changes.restart.append("listener")
    if len(running.elements) == len(fresh.elements):
        pairs += [(f"element[{index}]", *both) for index, both in enumerate(zip(running.elements, fresh.elements, strict=True))]
    else:  # a relay that began without any has no workers for them
        (changes.applied if running.elements else changes.restart).append("element")
    for table, old, new in pairs:
        for name, key in old.keys.items():
            if getattr(old, name) != getattr(new, name):
                only_rules = table == "rules" and name not in ("mark", "notrack", "client_mark")
                (changes.applied if key.live else changes.rules if only_rules else changes.restart).append(f"{table}.{name}")
    return changes
