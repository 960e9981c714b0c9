"""Who the relay is and what it binds, in namespaces: users, capabilities, interfaces, both families on one socket."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.clock import DEADLINE
from tests.support.lines import Lines
from tests.support.network import FAMILIES, FAMILY, POD_TO_SERVER, V4, Network
from tests.support.relay import PROGRAM, UID, Relay
from tests.support.rule_commands import captures
from tests.support.traffic import MIB, Stream, exchange
from tests.support.users import launcher
from tests.support.world import APP_PORT, Way, World, captured, listeners

CAP_NET_RAW = 1 << 13


def status(world: World) -> dict[str, str]:
    """What /proc says of the process."""
    lines = Path(f"/proc/{world.relay.process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def serves(world: World) -> None:
    world.path.listen()
    client, origin, name = world.path.pair()
    exchange(client, origin, Stream(1, MIB), Stream(2, MIB))
    assert world.ended(name) == "finished"


@captures
def test_root_becomes_the_relays_user(capture: str) -> None:
    """A relay that stays root, or keeps what it does not need, is a way into the node."""
    with captured(Way(capture)) as world:
        found = status(world)
        assert found["Uid"].split() == [str(UID)] * 4
        assert found["Gid"].split() == [str(UID)] * 4
        assert found["Groups"] == ""
        assert found["NoNewPrivs"] == "1"
        for held in ("CapEff", "CapPrm", "CapAmb", "CapBnd"):
            assert int(found[held], 16) & ~CAP_NET_RAW == 0, held
        for thread in Path(f"/proc/{world.relay.process.pid}/task").glob("*/status"):
            assert f"CapEff:\t{found['CapEff']}" in thread.read_text()


@captures
def test_one_capability_is_enough(capture: str) -> None:
    """As uid 1337 with CAP_NET_RAW alone, as a pod's security context gives it."""
    with captured(Way(capture), launcher=launcher(UID, "net_raw")) as world:
        serves(world)


def test_redirect_needs_no_capability() -> None:
    """As uid 1337 with nothing, REDIRECT works by owner exclusion; that the mark is missing is said once."""
    with captured(Way("redirect"), launcher=launcher(UID)) as world:
        serves(world)
        assert len([line for line in world.relay.messages.all() if "mark" in line]) == 1


def test_tproxy_without_a_capability_is_refused() -> None:
    """The message must tell what is missing, for what, and how to grant it; a relay that starts anyway captures nothing."""
    way = Way("tproxy")
    with Network.made() as network, Relay(network.pod, listeners(way, {}), launcher=launcher(UID)) as relay:
        assert relay.exit_status() == 77
        relay.await_message(str(relay.config_path), "capture", "CAP_NET_RAW", "setcap")


@captures
def test_a_second_relay_of_the_same_user_is_refused(capture: str) -> None:
    """It would join the first one's SO_REUSEPORT group and silently take a share of the connections."""
    with captured(Way(capture)) as world, Relay(world.captured.pod, listeners(world.way, {})) as second:
        assert second.exit_status() == 1
        second.await_message("15002", str(world.relay.process.pid))
        serves(world)


@pytest.mark.parametrize("family", FAMILIES)
@captures
def test_one_interface_alone(capture: str, family: int) -> None:
    """With --interface the inbound listener serves one link, and what comes by another is reset."""
    with captured(Way(capture, family, "inbound"), arguments=["--interface", "to-client"]) as world:
        serves(world)
        with world.captured.server.entered(), socket.socket(FAMILY[family]) as stranger, pytest.raises(ConnectionRefusedError):
            stranger.connect((POD_TO_SERVER[family], APP_PORT))


@pytest.mark.parametrize("direction", ["outbound", "inbound"])
@captures
def test_ipv4_on_a_listener_for_both_families(capture: str, direction: str) -> None:
    """One socket for IPv4 and IPv6 must find the origins of both, and record them as what they are."""
    with captured(Way(capture, V4, direction), {"listener": {"address": "::"}}) as world:
        serves(world)
        record = world.relay.access(reason="finished")
        assert record["client"].startswith("10.")
        assert record["origin"] == f"{world.path.dial_to[0]}:{APP_PORT}"


def test_ports_on_the_command_line_are_enough() -> None:
    """The way of older proxies: no file, two ports, outbound first."""
    with Network.made() as network:
        process = network.pod.popen([*PROGRAM, "--ports", "15012,15016"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        records = Lines(process.stdout, json.loads)
        ready = records.wait(lambda record: record["event"] == "ready")[0]
        assert ready["listeners"] == {
            "outbound": ["0.0.0.0:15012", "[::]:15012"],
            "inbound": ["0.0.0.0:15016", "[::]:15016"],
        }
        process.terminate()
        assert process.wait(DEADLINE) == 0
        records.rest()


def test_it_can_be_process_1() -> None:
    """In a container nobody else is there, and process 1 gets no signal that it has no handler for."""
    with captured(Way(), launcher=["unshare", "--pid", "--fork"]) as world:
        serves(world)
        children = Path(f"/proc/{world.relay.process.pid}/task/{world.relay.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert world.relay.exit_status() == 0


def test_an_admin_socket_that_only_root_reaches(tmp_path: Path) -> None:
    """A relay whose own user may not enter the socket's directory would end with a traceback, or fail at its end."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    path = str(closed / "relay" / "admin.sock")
    with captured(Way(), {"admin": {"socket": path}}) as world:
        serves(world)
        asked = subprocess.run([*PROGRAM, "stats", "--socket", path, "--json"], capture_output=True, text=True, check=True)
        assert json.loads(asked.stdout)["state"] == "ready"
        world.relay.signal(signal.SIGTERM)
        assert world.relay.exit_status() == 0
