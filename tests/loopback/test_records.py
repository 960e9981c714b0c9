"""What the relay says about its flows: each record complete, each flow in exactly one, counters and metrics in agreement."""

import re
import socket
import subprocess
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clock import DEADLINE
from tests.support.network import FAMILIES
from tests.support.peers import receive, receive_all, reset, text_of
from tests.support.requirements import needs_program
from tests.support.world import World, looped

families = pytest.mark.parametrize("family", FAMILIES)

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ENDINGS = ("finished", "reset_by_client", "reset_by_origin")


def end(world: World, how: str) -> str:
    """A short flow that ends in this way; the name of its client."""
    client, origin, name = world.path.pair()
    # A reset leaves its port free at once: an earlier flow may have had the same name.
    earlier = [record for record in world.relay.records.all() if record["event"] == "access" and record["client"] == name]
    client.sendall(b"four")
    assert receive(origin, 4) == b"four"
    if how == "finished":
        client.close()
        origin.close()
    else:
        reset(client if how == "reset_by_client" else origin)
    record = world.relay.await_records(len(earlier) + 1, event="access", client=name)[-1]
    assert record["reason"] == how
    return name


@families
def test_an_access_record_is_complete(family: int) -> None:
    """Whoever bills or audits by these records needs each field, and its unit."""
    with looped(family) as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b"question"
        origin.sendall(b"an answer")
        origin.close()
        assert receive_all(client) == b"an answer"
        record = world.relay.access(client=name)
        assert RFC_3339.fullmatch(record.pop("time"))
        assert 0 < record.pop("connect_ms") <= record.pop("duration_ms") < 60_000
        assert record == {
            "level": "info",
            "event": "access",
            "flow": record["flow"],
            "listener": "loop",
            "direction": "outbound",
            "client": name,
            "origin": text_of(world.path.origin),
            "bytes_sent": 8,
            "bytes_received": 9,
            "lane": "copy",
            "reason": "finished",
            "error": None,
        }
        assert isinstance(record["flow"], int)


@families
def test_a_refused_connection_is_recorded_too(family: int) -> None:
    """An origin that is down must be visible in the log, with the error that the kernel gave."""
    with looped(family) as world:
        record = world.relay.access(client=world.path.dial_in_vain())
        assert (record["reason"], record["error"], record["connect_ms"]) == ("refused", "ECONNREFUSED", None)
        assert (record["bytes_sent"], record["bytes_received"]) == (0, 0)


def test_counters_equal_records() -> None:
    """Dashboards are made of counters, investigations of records: they must tell the same story."""
    with looped(settings={"admin": {"metrics": "127.0.0.1:0"}}) as world:
        world.path.listen()
        names = [end(world, how) for how in ENDINGS * 5]
        records = world.relay.await_records(len(names), event="access")
        assert Counter(record["reason"] for record in records) == world.relay.counted().closed
        assert len({record["flow"] for record in records}) == len(names)
        start = world.relay.await_records(1, event="start")[0]
        with urllib.request.urlopen(f"http://{start['admin']['metrics']}/metrics", timeout=DEADLINE) as page:
            metrics = {metric.name: metric for metric in text_string_to_metric_families(page.read().decode())}
        closed = {sample.labels["reason"]: sample.value for sample in metrics["tcp_connections_closed"].samples}
        assert {reason: count for reason, count in closed.items() if count} == dict.fromkeys(ENDINGS, 5)
        sent = metrics["tcp_sent_bytes"].samples[0]
        assert sent.value == sum(record["bytes_sent"] for record in records) == 4 * len(names)


def test_prometheus_accepts_the_metrics() -> None:
    """A scrape that Prometheus refuses, or warns about, shows nothing of this relay."""
    needs_program("promtool")
    with looped(settings={"admin": {"metrics": "127.0.0.1:0"}}) as world:
        world.path.listen()
        world.relay.access(client=end(world, "finished"))
        start = world.relay.await_records(1, event="start")[0]
        with urllib.request.urlopen(f"http://{start['admin']['metrics']}/metrics", timeout=DEADLINE) as page:
            checked = subprocess.run(["promtool", "check", "metrics"], input=page.read(), capture_output=True, check=False)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_live_flows_are_listed() -> None:
    """Whoever asks what the relay is doing sees each flow with both addresses and what it has moved."""
    with looped() as world:
        world.path.listen()
        client, origin, name = world.path.pair()
        idle = world.path.pair()
        client.sendall(b"12345")
        assert receive(origin, 5) == b"12345"
        client.shutdown(socket.SHUT_WR)
        assert receive_all(origin) == b""
        flows = {flow["client"]: flow for flow in world.relay.flows()}
        assert set(flows) == {name, idle.name}
        assert flows[name]["origin"] == text_of(world.path.origin)
        assert (flows[name]["bytes_sent"], flows[name]["half_closed"], flows[name]["phase"]) == (5, "client", "relaying")
        assert flows[idle.name]["half_closed"] is None


def test_the_order_of_events() -> None:
    """Supervisors wait for `ready`, and read in `stop` what became of the flows."""
    with looped() as world:
        world.path.listen()
        end(world, "finished")
        relay = world.relay
    # Who may not set marks is warned of it first.
    events = [record["event"] for record in relay.records.rest() if record["event"] != "warning"]
    assert events[:2] == ["start", "ready"]
    assert events[2] == "access"
    assert events[-2:] == ["drain", "stop"]
    stop = relay.records.rest()[-1]
    assert (stop["flows"], stop["flows_cut"], stop["exit_status"]) == (1, 0, 0)


def test_no_record_when_none_is_wanted() -> None:
    """With access = false flows are counted, and nothing else is written."""
    with looped(settings={"log": {"access": False}}) as world:
        world.path.listen()
        client, origin, _ = world.path.pair()
        client.close()
        origin.close()
        world.relay.await_flows(0)
        assert world.relay.counted().closed == {"finished": 1}
        assert all(record["event"] != "access" for record in world.relay.records.all())
