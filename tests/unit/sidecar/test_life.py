"""sidecar.proxy as a process on loopback: its start, what it says, what it is told, and its end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clock import DEADLINE, Stopwatch, eventually
from tests.support.netns import Place
from tests.support.relay import Relay

HERE = "127.0.53.1"  # where no other test dials a port that has just been free
LISTENER = {"name": "in", "direction": "inbound", "port": 0, "capture": "none", "address": HERE}
WEB = {"metrics": "127.0.0.1:0", "health": "127.0.0.1:0"}


class Origin:
    """A server that echoes one connection at a time, when it is told to."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(DEADLINE)
        self.address = "{}:{}".format(*self.socket.getsockname())

    def accept(self) -> socket.socket:
        peer, _ = self.socket.accept()
        peer.settimeout(DEADLINE)
        return peer


@pytest.fixture
def origin() -> Iterator[Origin]:
    origin = Origin()
    yield origin
    origin.socket.close()


@contextmanager
def running(origin: Origin, tables: dict[str, dict[str, Any]] | None = None, **process: Any) -> Iterator[Relay]:
    """A relay that is ready. Without a mark: setting one needs a capability, and its lack is told."""
    settings = {"rules": {"mark": 0}, **(tables or {})}
    settings["relay"] = {"target": origin.address, **settings.get("relay", {})}
    with Relay(Place(), [LISTENER], settings, **process) as relay:
        relay.await_ready()
        yield relay


def dial(relay: Relay) -> socket.socket:
    (start,) = relay.await_records(1, event="start")
    host, port = start["listeners"][0]["addresses"][0].split(":")
    return socket.create_connection((host, int(port)), DEADLINE)


def flow(relay: Relay, origin: Origin) -> tuple[socket.socket, socket.socket]:
    """Both ends of a flow that has carried a byte each way."""
    client = dial(relay)
    peer = origin.accept()
    exchange(client, peer)
    return client, peer


def exchange(client: socket.socket, peer: socket.socket) -> None:
    client.sendall(b"?")
    assert peer.recv(1) == b"?"
    peer.sendall(b"!")
    assert client.recv(1) == b"!"


def get(address: str, path: str) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), DEADLINE) as client, client.makefile("rb") as answer:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.read().partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode()


def command(relay: Relay, *argv: str) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "sidecar", *argv, "--config", str(relay.config_path)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)


def change(relay: Relay, table: str, **values: object) -> None:
    """Write the configuration again, with these values."""
    relay.config[table] = {**relay.config[table], **values}
    lines = []
    for name, tables in relay.config.items():
        for keys in tables if isinstance(tables, list) else [tables]:
            lines += [f"[[{name}]]" if isinstance(tables, list) else f"[{name}]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    relay.write_config("\n".join(lines))


def test_the_start_record_says_what_is_listened_on_by_whom_and_within_what(origin: Origin) -> None:
    """Nobody could tell from the log what the relay believed about itself."""
    with running(origin, {"admin": WEB}) as relay:
        (start,) = relay.await_records(1, event="start")
        assert start["pid"] == relay.process.pid
        assert start["version"] == "0.1.0"
        assert start["user"] == relay.config["relay"]["user"] or start["uid"] == int(relay.config["relay"]["user"])
        assert set(start["capabilities"]) <= {"CAP_NET_RAW", "CAP_NET_ADMIN"}
        (listener,) = start["listeners"]
        assert (listener["name"], listener["direction"], listener["capture"]) == ("in", "inbound", "none")
        assert start["workers"] == 2
        assert start["target"] == origin.address
        assert 0 < start["max_flows"] <= min(50_000, start["open_files"] // 2)
        assert start["own_networks"] >= 2
        status = Path(f"/proc/{relay.process.pid}/status").read_text()
        assert f"\nUid:\t{start['uid']}\t{start['uid']}\t{start['uid']}\t{start['uid']}\n" in status
        assert "\nNoNewPrivs:\t1\n" in status
        assert "\nCapInh:\t0000000000000000\n" in status
        records = relay.records.all()
        assert [record["event"] for record in records if record["event"] != "warning"] == ["start", "ready"]
        relay.finish()


def test_it_listens_soon_after_its_start(origin: Origin) -> None:
    """A pod would wait for its sidecar. (150 ms are the bar; ten times that is asserted here.)"""
    watch = Stopwatch()
    with running(origin) as relay:
        assert watch.seconds < 1.5
        relay.finish()


def test_each_flow_has_one_access_record(origin: Origin) -> None:
    """A connection would be missing from the log, or counted twice."""
    with running(origin) as relay:
        client, peer = flow(relay, origin)
        client.close()
        peer.close()
        (record,) = relay.await_records(1, event="access")
        assert (record["reason"], record["bytes_sent"], record["bytes_received"], record["error"]) == ("finished", 1, 1, None)
        assert record["origin"] == origin.address
        assert record["client"].startswith("127.0.0.1:")
        assert 0 <= record["connect_ms"] <= record["duration_ms"]
        origin.socket.close()
        with pytest.raises(ConnectionResetError):
            dial(relay).recv(1)
        record = relay.await_records(2, event="access")[1]
        assert (record["reason"], record["connect_ms"], record["error"]) == ("refused", None, "ECONNREFUSED")
        relay.finish()


def test_access_records_can_be_turned_off_while_running(origin: Origin) -> None:
    """A busy relay would have to be restarted to make its log smaller."""
    with running(origin) as relay:
        change(relay, "log", access=False)
        told = f"read again: {relay.config_path}\napplied: log.access\nrestart: nothing\nrules: nothing\n"
        assert command(relay, "reload").stdout == told
        for end in flow(relay, origin):
            end.close()
        assert eventually(lambda: relay.ask("stats")["listeners"][0]["closed"] == {"finished": 1})
        relay.finish()
        assert not [record for record in relay.records.all() if record["event"] == "access"]


def test_stray_signals_end_nothing_and_a_soft_stop_is_no_second_signal(origin: Origin) -> None:
    """A signal meant for another program would cut every connection without a record."""
    with running(origin) as relay:
        client, peer = flow(relay, origin)
        for number in (signal.SIGUSR2, signal.SIGALRM, signal.SIGUSR1):
            relay.signal(number)
        relay.await_records(1, event="drain", cause="SIGUSR1", live=1)
        relay.signal(signal.SIGTERM)
        exchange(client, peer)
        client.close()
        peer.close()
        assert relay.exit_status() == 0


@pytest.mark.parametrize(("limit", "files", "warned"), [(50_000, 4096, True), (0, 1024, True), (0, 4096, False)])
def test_flows_that_the_limit_on_open_files_forbids_are_told(origin: Origin, limit: int, files: int, warned: bool) -> None:
    """Who asked for many flows, or has room for a few alone, would not know why; who asked for nothing would be warned."""
    tables = {"relay": {"max_flows": limit}} if limit else {}
    with running(origin, tables, launcher=("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")) as relay:
        (start,) = relay.await_records(1, event="start")
        assert start["max_flows"] < files / 2
        warnings = [record for record in relay.records.all() if record["event"] == "warning"]
        assert len(warnings) == warned
        assert all("relay.max_flows: expected open files for 50000 flows" in record["message"] for record in warnings)
        relay.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(origin: Origin, number: signal.Signals) -> None:
    """A rolling update would cut connections, or count as a failure."""
    with running(origin, {"admin": WEB}) as relay:
        (start,) = relay.await_records(1, event="start")
        assert get(start["admin"]["health"], "/healthz/ready") == (200, "ready\n")
        client, peer = flow(relay, origin)
        relay.signal(number)
        relay.await_records(1, event="drain", cause=number.name, live=1)
        assert get(start["admin"]["health"], "/healthz/ready") == (503, "draining\n")
        assert get(start["admin"]["health"], "/healthz") == (200, "alive\n")
        exchange(client, peer)
        client.close()
        peer.close()
        assert relay.exit_status() == 0
        (stop,) = relay.await_records(1, event="stop")
        assert (stop["cause"], stop["exit_status"], stop["flows"], stop["flows_cut"]) == (number.name, 0, 1, 0)
        assert relay.messages.rest() == []
        assert not Path(start["admin"]["socket"]).exists()


def test_flows_that_outlive_the_deadline_are_cut_and_counted(origin: Origin) -> None:
    """A client that never leaves would keep the pod from ending; or nobody would know that it was cut."""
    with running(origin, {"relay": {"drain_timeout": "100ms"}}) as relay:
        client, peer = flow(relay, origin)
        relay.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert relay.exit_status() == 0
        (stop,) = relay.await_records(1, event="stop")
        assert (stop["flows_cut"], stop["exit_status"]) == (1, 0)
        assert relay.access()["reason"] == "drained"
        peer.close()


def test_a_second_signal_ends_at_once_with_1(origin: Origin) -> None:
    """Somebody in a hurry would have to use SIGKILL, and lose the last records."""
    with running(origin) as relay:
        client, peer = flow(relay, origin)
        for _ in range(2):
            relay.signal(signal.SIGTERM)
            relay.await_records(1, event="drain")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert relay.exit_status() == 1
        assert relay.await_records(1, event="stop")[0]["exit_status"] == 1
        peer.close()


def test_an_ordered_drain_is_no_signal(origin: Origin) -> None:
    """A preStop hook that drains, followed by the kubelet's SIGTERM, would cut every connection."""
    with running(origin) as relay:
        client, peer = flow(relay, origin)
        done = command(relay, "drain")
        assert done.stdout == "draining: live flows: 1, 25 s left for them\n"
        assert relay.ask("drain") == {"live": 1, "deadline_s": 25.0}
        relay.signal(signal.SIGTERM)
        assert relay.ask("stats")["state"] == "draining"
        exchange(client, peer)
        client.close()
        peer.close()
        assert relay.exit_status() == 0


def test_a_reload_applies_what_it_can_and_tells_the_rest(origin: Origin) -> None:
    """A user would believe that a change holds, or restart for nothing."""
    with running(origin) as relay:
        change(relay, "relay", idle_timeout="100ms", workers=1)
        client, peer = flow(relay, origin)
        relay.signal(signal.SIGHUP)
        (record,) = relay.await_records(1, event="reload")
        assert (record["level"], record["applied"], record["restart"]) == ("warn", ["relay.idle_timeout"], ["relay.workers"])
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert relay.access()["reason"] == "idle"
        peer.close()
        relay.finish()


def test_a_bad_file_changes_nothing(origin: Origin) -> None:
    """A typing error followed by SIGHUP would end every connection."""
    with running(origin) as relay:
        client, peer = flow(relay, origin)
        change(relay, "relay", workers=-1, idle_timeout="1ms")
        relay.signal(signal.SIGHUP)
        assert relay.await_message("relay.workers").endswith("expected an integer from 0 to 256, found -1 (line 4)")
        (record,) = relay.await_records(1, event="reload")
        assert record["level"] == "error"
        assert len(record["errors"]) == 2
        done = command(relay, "reload")
        assert (done.returncode, len(done.stderr.splitlines())) == (78, 2)
        exchange(client, peer)
        client.close()
        peer.close()
        relay.finish()


def test_commands_ask_the_running_relay(origin: Origin) -> None:
    """An operator could not see what the relay does."""
    with running(origin) as relay:
        assert re.fullmatch(rf"ready: pid {relay.process.pid}\n", command(relay, "wait").stdout)
        client, peer = flow(relay, origin)
        stats = relay.ask("stats")
        assert (stats["live"], stats["listeners"][0]["opened"], stats["state"]) == (1, 1, "ready")
        assert eventually(lambda: relay.ask("stats")["listeners"][0]["bytes_received"]) == 1
        assert "live flows: 1, of at most" in command(relay, "stats").stdout
        (row,) = relay.ask("flows", client="127.0.0.1:", phase="relaying")["flows"]
        assert (row["origin"], row["bytes_sent"], row["listener"]) == (origin.address, 1, "in")
        assert relay.ask("flows", lane="splice") == {"live": 1, "listed": 1, "matching": 0, "flows": []}
        heading, line = command(relay, "flows").stdout.splitlines()
        assert heading.split()[:4] == ["FLOW", "LISTENER", "PHASE", "LANE"]
        assert line.split()[1:4] == ["in", "relaying", "copy"]
        client.close()
        peer.close()
        relay.finish()


def test_more_flows_than_asked_for_are_told(origin: Origin) -> None:
    """A user would believe that he sees all."""
    with running(origin) as relay:
        ends = [flow(relay, origin) for _ in range(3)]
        assert command(relay, "flows", "--limit", "1").stdout.splitlines()[2] == "and 2 more; --limit 0 shows them"
        assert len(relay.ask("flows", limit=0)["flows"]) == 3
        for client, peer in ends:
            client.close()
            peer.close()
        relay.finish()


def test_metrics_tell_what_happened(origin: Origin) -> None:
    """Monitoring would show nothing, or something else than the log."""
    with running(origin, {"admin": WEB}) as relay:
        for end in flow(relay, origin):
            end.close()
        relay.await_records(1, event="access")
        (start,) = relay.await_records(1, event="start")
        status, text = get(start["admin"]["metrics"], "/metrics")
        assert status == 200
        assert get(start["admin"]["metrics"], "/stats/prometheus")[0] == 200
        samples = {
            (sample.name, sample.labels.get("reason")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert samples["tcp_connections_opened_total", None] == 1
        assert samples["tcp_connections_closed_total", "finished"] == 1
        assert samples["tcp_sent_bytes_total", None] == 1
        assert samples["relay_duration_seconds_count", None] == 1
        assert samples["relay_ready", None] == 1
        assert "127.0.0.1" not in text
        relay.finish()


def test_ps_shows_role_listeners_and_flows(origin: Origin) -> None:
    """Of ten relays on a node nobody could tell which is which."""
    with running(origin) as relay:
        (start,) = relay.await_records(1, event="start")
        port = start["listeners"][0]["addresses"][0].rpartition(":")[2]
        client, peer = flow(relay, origin)
        cmdline, comm = (Path(f"/proc/{relay.process.pid}/{name}") for name in ("cmdline", "comm"))
        wanted = f"relay-sidecar: in {port}, 1 flows"
        assert eventually(lambda: cmdline.read_bytes().rstrip(b"\0 ").decode() == wanted)
        assert comm.read_text() == "relay-sidecar\n"
        client.close()
        peer.close()
        relay.finish()


def test_a_log_that_nobody_reads_stops_nothing(origin: Origin) -> None:
    """A stuck log collector would stop connections, probes or the end of the pod."""
    reader, writer = os.pipe()
    with running(origin, {"log": {"format": "json", "queue": 16}, "relay": {"workers": 1}}, stdout=writer) as relay:
        os.close(writer)
        listener = relay.address_of("in")
        for _ in range(600):  # records of 300 bytes: the pipe's 64 KB, then the queue
            client = socket.create_connection(listener, DEADLINE)
            peer = origin.accept()
            exchange(client, peer)
            client.close()
            peer.close()
        assert eventually(lambda: relay.ask("stats")["log_records_dropped"] > 0)
        relay.signal(signal.SIGTERM)
        assert relay.exit_status() == 0
        os.close(reader)


def test_a_full_disk_stops_nothing(origin: Origin) -> None:
    """A full log partition would take the app down."""
    with open("/dev/full", "wb") as full, running(origin, stdout=full) as relay:
        client = socket.create_connection(relay.address_of("in"), DEADLINE)
        peer = origin.accept()
        exchange(client, peer)
        client.close()
        peer.close()
        assert eventually(lambda: relay.ask("stats")["log_records_dropped"] >= 3)
        relay.signal(signal.SIGTERM)
        assert relay.exit_status() == 0


def test_a_start_gate_waits_for_the_relay(origin: Origin) -> None:
    """An app behind `relay-sidecar wait` would start before its sidecar, or never."""
    with running(origin) as relay:
        argv = [sys.executable, "-m", "sidecar", "wait", "--json", "--socket", relay.config["admin"]["socket"]]
        assert json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)["state"] == "ready"
        relay.signal(signal.SIGSTOP)
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as gate:
            assert gate.poll() is None
            relay.signal(signal.SIGCONT)
            assert gate.wait(DEADLINE) == 0
        relay.finish()


def test_warnings_of_the_configuration_are_told_at_start_and_at_reload(origin: Origin) -> None:
    """A target without effect would be found out by its lack of effect."""
    listener = {"name": "x", "direction": "inbound", "port": 0, "capture": "redirect"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        listener["port"] = free.getsockname()[1]
    with Relay(Place(), [listener], {"relay": {"target": origin.address}, "rules": {"mark": 0}}) as relay:
        relay.await_ready()
        relay.await_message("warning: ", "relay.target: expected a listener", "it has no effect")
        relay.signal(signal.SIGHUP)
        assert len(relay.await_records(2, event="warning")) == 2
        relay.finish()


def failed(
    tables: dict[str, dict[str, Any]], listeners: Sequence[dict[str, Any]] = (LISTENER,), **process: Any
) -> tuple[int, list[str]]:
    """A relay that does not start: its exit status and its messages."""
    with Relay(Place(), listeners, tables, **process) as relay:
        return relay.exit_status(), relay.messages.rest()


def test_a_second_relay_names_the_first(origin: Origin) -> None:
    """Seed error 12: the second one would run without listeners, or take half of the first one's connections."""
    with running(origin) as relay:
        port = relay.address_of("in")[1]
        status, (line,) = failed({"relay": {"target": origin.address}, "rules": {"mark": 0}}, [{**LISTENER, "port": port}])
        assert status == 1
        found = f"listener in: expected to listen on {HERE}:{port}, found Address already in use, held by"
        assert line.startswith(found)
        assert line.endswith(f"relay-sidecar (pid {relay.process.pid}); stop it, or choose another port")
        relay.finish()


def test_a_configuration_error_ends_the_start_with_78() -> None:
    """A supervisor could not tell a mistake from a crash."""
    status, lines = failed({"relay": {"workers": -1, "max_flow": 1}})
    assert status == 78
    assert len(lines) == 3


def test_the_relay_itself_as_target_ends_the_start_with_78(origin: Origin) -> None:
    """Seed error 5: it would connect to itself until no descriptor is left."""
    port = origin.socket.getsockname()[1]
    origin.socket.close()
    status, (line,) = failed({"relay": {"target": f"localhost:{port}"}}, [{**LISTENER, "address": "127.0.0.1", "port": port}])
    assert status == 78
    assert line.endswith(f"relay.target: expected another place than this relay, found listener[0], port {port}")


def test_the_target_may_come_from_the_environment(origin: Origin) -> None:
    """TARGET_ADDR of the seeds would not work."""
    settings = {"environment": {"TARGET_ADDR": origin.address}, "arguments": ["--ports", "0"]}
    with Relay(Place(), [], {}, **settings) as relay:  # type: ignore[arg-type]
        (start,) = relay.await_records(1, event="start")
        assert [listener["capture"] for listener in start["listeners"]] == ["none"]
        relay.await_ready()
        port = int(start["listeners"][0]["addresses"][0].rpartition(":")[2])
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), DEADLINE) as client:
                peer = origin.accept()
                exchange(client, peer)
                peer.close()
        relay.finish()


def test_a_service_manager_is_told(origin: Origin, tmp_path: Path) -> None:
    """systemd would wait for READY for ever, or restart a healthy relay."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"\0relay-{os.getpid()}-{tmp_path.name}"
        manager.bind(name)
        manager.settimeout(DEADLINE)
        environment = {"NOTIFY_SOCKET": f"@{name[1:]}", "WATCHDOG_USEC": "40000"}
        with running(origin, environment=environment) as relay:
            assert [manager.recv(99) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            relay.finish()
            assert manager.recv(99) in (b"WATCHDOG=1", b"STOPPING=1")


def test_sockets_of_a_service_manager_are_used(origin: Origin) -> None:
    """Socket activation would fail: the port is taken, by our own parent."""
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        script = f'exec 3<&{passed.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=in exec "$@"'
        process = {"launcher": ["bash", "-c", script, "-"], "pass_fds": [passed.fileno()]}
        with Relay(Place(), [LISTENER], {"relay": {"target": origin.address}}, **process) as relay:  # type: ignore[arg-type]
            relay.await_ready()
            assert relay.address_of("in") == ("127.0.0.1", port)
            for end in flow(relay, origin):
                end.close()
            relay.finish()


def test_a_file_that_reload_cannot_read_is_told_at_the_start(origin: Origin) -> None:
    """The first SIGHUP would fail, months later."""
    with Relay(
        Place(),
        [LISTENER],
        {"relay": {"target": origin.address}},
        launcher=["bash", "-c", 'chmod 600 "${@: -1}"; exec "$@"', "-"],
    ) as relay:
        relay.await_ready()
        relay.finish()
        warnings = [line for line in relay.messages.all() if "reload will fail" in line]
        assert len(warnings) == (1 if os.geteuid() == 0 else 0)


def test_it_works_as_pid_1_in_a_user_namespace(origin: Origin) -> None:
    """In a container without an init it could not be stopped, or would not start for a capability that is worth nothing."""
    launcher = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    tables = {"relay": {"user": "0", "group": "0"}, "admin": {"socket": ""}, "rules": {}}
    with running(origin, tables, launcher=launcher) as relay:
        (start,) = relay.await_records(1, event="start")
        assert (start["pid"], start["uid"], start["mark"], start["capabilities"]) == (1, 0, None, [])
        (child,) = Path(f"/proc/{relay.process.pid}/task/{relay.process.pid}/children").read_text().split()
        for end in flow(relay, origin):
            end.close()
        os.kill(int(child), signal.SIGTERM)
        assert relay.exit_status() == 0
        relay.await_records(1, event="stop", exit_status=0)
        assert [line.partition("relay.toml: ")[2][:10] for line in relay.messages.rest()] == ["relay.user", "rules.mark"]
