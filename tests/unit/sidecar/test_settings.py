"""sidecar.proxy.settings: what the engine is told, and what a reload changes."""

import os

import pytest

from sidecar.proxy.settings import compare, engine_settings, flow_capacity, pipe_count, with_live_keys, worker_count
from tests.unit.sidecar.conftest import Load


def test_workers_are_one_per_cpu_that_may_be_used(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod with one CPU of sixty-four the relay would start sixty-four threads."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7, 9})
    assert worker_count(load("")) == 3
    assert worker_count(load("[relay]\nworkers = 5\n")) == 5


def test_flows_fit_into_the_limit_on_open_files() -> None:
    """The engine would meet EMFILE in the middle of a flow instead of pausing at its limit."""
    assert 9_000 <= flow_capacity(20_000, sockets=8, pipes=32) < 10_000
    assert flow_capacity(20_000, sockets=108, pipes=32) == flow_capacity(20_000, sockets=8, pipes=32) - 50
    assert flow_capacity(20_000, sockets=8, pipes=132) == flow_capacity(20_000, sockets=8, pipes=32) - 100
    assert flow_capacity(100, sockets=8, pipes=32) == 1


def test_no_worker_is_without_pipes(load: Load) -> None:
    """On a machine with 64 CPUs nothing would ever be spliced."""
    assert pipe_count(load(""), workers=1) == 32
    assert pipe_count(load(""), workers=64) == 128
    assert pipe_count(load("[relay]\nmax_pipes = 4\n"), workers=8) == 16
    assert pipe_count(load("[relay]\nmax_pipes = 0\n"), workers=8) == 0


def test_settings_are_those_of_the_configuration(load: Load) -> None:
    """A time-out would be off by a thousand, or a limit would not hold."""
    text = """
        [relay]
        max_flows = 70
        connect_timeout = "1s"
        idle_timeout = "2s"
        half_close_timeout = "3s"
        keepalive_time = "4s"
        keepalive_interval = "5s"
        keepalive_probes = 6
        busy_poll = "8us"
    """
    settings = engine_settings(load(text), True, 50, 7, ("::1/128",))
    assert settings == (50, 1000, 2000, 3000, 4, 5, 6, 7, True, 8, ("::1/128",))
    assert engine_settings(load(text), True, 100, 7, ()).max_flows == 70


def test_a_reload_applies_what_it_can_and_tells_the_rest(load: Load) -> None:
    """A user would believe that a change holds, when it waits for a restart."""
    running = load("")
    fresh = load(
        """
        [relay]
        idle_timeout = "7s"
        workers = 3
        [rules]
        mark = 1
        notrack = true
        client_mark = 2
        ipv6 = false
        [log]
        level = "debug"
        [admin]
        metrics = ""
        [[listener]]
        name = "outbound"
        direction = "outbound"
        port = 15002
        capture = "tproxy"
        [[listener]]
        name = "inbound"
        direction = "inbound"
        port = 15006
        """
    )
    changes = compare(running, fresh)
    assert changes.applied == ["relay.idle_timeout", "log.level"]
    assert changes.restart == [
        *("relay.workers", "rules.notrack", "rules.mark", "rules.client_mark"),
        *("admin.metrics", "listener[0].capture"),
    ]
    assert changes.rules == ["rules.ipv6"]
    now = with_live_keys(running, fresh)
    assert (now.relay.idle_timeout, now.log.level) == (7000, "debug")
    assert (now.relay.workers, now.admin.metrics) == (running.relay.workers, running.admin.metrics)
    again = compare(now, fresh)
    assert (again.applied, again.restart) == ([], changes.restart)


def test_another_set_of_listeners_waits_for_a_restart(load: Load) -> None:
    """Listeners would be compared with others than themselves."""
    fresh = load('[[listener]]\nname = "x"\ndirection = "inbound"\nport = 1\n')
    assert compare(load(""), fresh).restart == ["listener"]
