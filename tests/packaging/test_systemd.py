"""The unit under a real systemd, put on a machine as docs/guide-host.md says, by its own commands."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.cli import make_parser
from sidecar.config.schema import Admin, Relay
from tests.support.clock import eventually
from tests.support.guide import blocks
from tests.support.machine import Machine
from tests.support.network import CLIENT, FAMILIES, POD, POD_TO_SERVER, SERVER, V4, Network
from tests.support.package import ROOT, Package
from tests.support.path import Path as Way
from tests.support.requirements import needs_program
from tests.support.traffic import MIB, Stream, exchange
from tests.support.world import ANY

UNIT = ROOT / "deploy" / "systemd" / "relay-sidecar.service"
HOST, GATEWAY = "docs/guide-host.md", "docs/guide-gateway.md"
CONFIG = "/etc/relay-sidecar/relay.toml"
CURSOR = "/run/journal-of-this-test"
CHECKOUT = "/root/checkout"
DROP_IN = "/etc/systemd/system/relay-sidecar.service.d/test.conf"
EXPOSURE = "20"  # of 100: "2.0" of systemd-analyze
# Everybody's outbound connections: what the guide's file says, without its user and its ports.
OUTBOUND = '[[listener]]\nname = "outbound"\ndirection = "outbound"\nport = 15002\ncapture = "{}"\n'


def setting(name: str) -> list[str]:
    """The values of a key of the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.M)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network.made() as made:
        yield made


@contextmanager
def installed(package: Package, network: Network) -> Iterator[Machine]:
    """The middle of the network as a machine on which the guide's commands have been run, up to its configuration."""
    with tempfile.TemporaryDirectory(prefix="checkout-", dir="/var/tmp") as name:
        folder = Path(name)
        shutil.copytree(package.dependencies, folder / "dist")
        shutil.copy(package.wheel, folder / "dist")
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        with Machine(network.pod) as machine:
            machine.run(f"cp -r {name} {CHECKOUT}")
            machine.run(blocks(HOST, "sh", "Install")[0].text, folder=CHECKOUT)
            yield machine


@pytest.fixture(scope="module")
def host(package: Package, network: Network) -> Iterator[Machine]:
    with installed(package, network) as made:
        yield made


@pytest.fixture
def machine(host: Machine) -> Iterator[Machine]:
    """With the service installed, and neither configured nor running."""
    host.run(f"rm -rf {CONFIG} $(dirname {DROP_IN}); systemctl daemon-reload")
    host.run(f"journalctl -n 1 --show-cursor | sed -n 's/^-- cursor: //p' >{CURSOR}")
    yield host
    host.run("systemctl stop relay-sidecar; systemctl reset-failed", check=False)


def write(machine: Machine, path: str, text: str) -> None:
    machine.run(f"install -d $(dirname {path}) && cat >{path} <<'END'\n{text}END")


def start(machine: Machine, config: str) -> None:
    """The service, started with this file."""
    write(machine, CONFIG, config)
    for block in blocks(HOST, "sh", "Run")[:1]:
        machine.run(block.text)


def main_pid(machine: Machine) -> str:
    return machine.run("systemctl show -P MainPID relay-sidecar").stdout.strip()


def active(machine: Machine) -> bool:
    return machine.run("systemctl is-active relay-sidecar", check=False).stdout == "active\n"


def rules(machine: Machine) -> str:
    """Everything that rules could have left."""
    words = ("nft list ruleset", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all")
    return "\n".join(machine.run(word).stdout for word in words)


def journal(machine: Machine) -> str:
    """What the service, and systemd about it, has said in this test."""
    return machine.run(f'journalctl --no-pager -o cat -u relay-sidecar --after-cursor="$(cat {CURSOR})"').stdout


@contextmanager
def path_out(network: Network) -> Iterator[Way]:
    """From the machine to a server."""
    with Way(network.pod, network.server, V4, POD_TO_SERVER[V4], ("0.0.0.0", 8080)) as way:
        way.dial_to = (SERVER[V4], 8080)
        way.listen()
        yield way


def relayed(machine: Machine, way: Way) -> None:
    """A connection that the relay carries, with a megabyte each way."""
    client, origin, name = way.pair()
    exchange(client, origin, Stream(1, MIB), Stream(2, MIB))
    client.close()
    origin.close()
    assert eventually(lambda: any(name in line and '"reason":"finished"' in line for line in journal(machine).splitlines())), (
        journal(machine)
    )


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    needs_program("systemd-analyze")
    return subprocess.run(["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False)


def test_the_unit_is_hardened() -> None:
    """Who breaks into the relay would have more of the host than its network."""
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT))
    assert done.returncode == 0, done.stdout


def test_the_unit_agrees_with_the_product() -> None:
    """A renamed flag, another default or an exit status would break the service and nothing else."""
    commands = [*setting("ExecStart"), *setting("ExecReload"), *setting("ExecStopPost")]
    assert [make_parser().parse_args(command.split()[1:]).command for command in commands] == ["run", "reload", "rules"]
    assert Admin.keys["socket"].default == f"/run/{setting('RuntimeDirectory')[0]}/admin.sock"
    assert int(setting("TimeoutStopSec")[0]) >= 20 + int(str(Relay.keys["drain_timeout"].default).removesuffix("s"))
    assert int(setting("LimitNOFILE")[0]) > 2 * int(str(Relay.keys["max_flows"].default))
    user = (ROOT / "deploy" / "systemd" / "relay-sidecar.sysusers.conf").read_text().splitlines()[-1].split()
    assert user[1:3] == [setting("User")[0], str(Relay.keys["user"].default).strip('"')]


@pytest.mark.parametrize(
    ("capture", "backend", "flush"),
    [
        ("redirect", "nft", "nft flush ruleset"),
        ("tproxy", "nft", "nft flush ruleset"),
        ("tproxy", "iptables", "nft flush ruleset"),
        ("redirect", "iptables-legacy", "iptables-legacy -t nat -F"),
    ],
)
def test_the_service_relays_and_leaves_nothing(
    machine: Machine, network: Network, capture: str, backend: str, flush: str
) -> None:
    """Some line of the unit would forbid what the relay or its rules need; a forbidden system call is fatal here."""
    before = rules(machine)
    write(machine, DROP_IN, "[Service]\nSystemCallErrorNumber=kill\n")
    start(machine, f'{OUTBOUND.format(capture)}[rules]\nbackend = "{backend}"\n')
    assert machine.run("systemd-analyze verify /etc/systemd/system/relay-sidecar.service 2>&1").stdout == ""
    with path_out(network) as way:
        relayed(machine, way)
        machine.run(flush)
        assert eventually(lambda: '"what":"repaired"' in journal(machine)), journal(machine)
        relayed(machine, way)
        machine.run("systemctl reload relay-sidecar")
        client, origin, _ = way.live_pair()
        stopping = machine.run("systemctl stop --no-block relay-sidecar; systemctl is-active relay-sidecar", check=False)
        assert stopping.stdout == "deactivating\n"
        exchange(client, origin, Stream(3, MIB), Stream(4, MIB))
    assert eventually(lambda: machine.run("systemctl is-active relay-sidecar", check=False).stdout == "inactive\n")
    assert rules(machine) == before
    assert '"flows_cut":0' in journal(machine)
    processes = machine.run("ps -o user= -C relay-sidecar", check=False).stdout
    assert processes == ""


@pytest.mark.parametrize("capture", ["redirect", "tproxy"])
def test_no_process_of_it_is_roots(machine: Machine, capture: str) -> None:
    """A fault in the relay, or in its companion, would be root's."""
    start(machine, OUTBOUND.format(capture))
    pids = machine.run("cat /sys/fs/cgroup/system.slice/relay-sidecar.service/cgroup.procs").stdout.split()
    assert len(pids) == 3, "the relay, its companion, and the companion's keeper"
    held = {pid: machine.run(f"grep -E 'Uid|CapEff|NoNewPrivs|Seccomp:' /proc/{pid}/status").stdout.split() for pid in pids}
    main = main_pid(machine)
    for pid, status in held.items():
        assert status[1:5] == ["1337"] * 4
        assert int(status[6], 16) == (1 << 13 if pid == main else 1 << 13 | 1 << 12)
        assert status[7:] == ["NoNewPrivs:", "1", "Seccomp:", "2"]


def test_a_relay_that_is_killed_again_and_again_is_back_with_its_rules(machine: Machine, network: Network) -> None:
    """A crash would leave rules that lead nowhere, or a service that stays away."""
    write(machine, DROP_IN, "[Service]\nRestartSec=0\n")
    start(machine, OUTBOUND.format("redirect"))
    for _ in range(6):  # systemd's own limit is 5 in 10 seconds
        killed = main_pid(machine)
        machine.run(f"kill -KILL {killed}")
        assert eventually(lambda killed=killed: active(machine) and main_pid(machine) not in (killed, "0"))
    with path_out(network) as way:
        relayed(machine, way)


def test_rules_go_even_when_all_that_guard_them_are_killed(machine: Machine) -> None:
    """A stop that takes too long ends in SIGKILL for everyone: captured connections would be refused for ever."""
    before = rules(machine)
    write(machine, DROP_IN, "[Service]\nRestart=no\n")
    start(machine, OUTBOUND.format("tproxy"))
    machine.run("systemctl kill --signal=KILL relay-sidecar")
    assert eventually(lambda: machine.run("systemctl is-active relay-sidecar", check=False).stdout == "failed\n")
    assert rules(machine) == before


def test_root_may_look_at_the_rules_of_the_service(machine: Machine) -> None:
    """The keeper of the rules is not root's: nobody could ask for their state, nor take them away."""
    start(machine, OUTBOUND.format("redirect"))
    assert machine.run(f"relay-sidecar rules status --config {CONFIG}").stdout.startswith("rules applied")
    machine.run("relay-sidecar rules remove")
    assert '"what":"released"' in journal(machine)


def test_a_configuration_that_is_not_valid_is_told_and_not_tried_again(machine: Machine) -> None:
    """systemd would start it for ever, or a reload would pretend to have worked."""
    start(machine, OUTBOUND.format("redirect"))
    write(machine, CONFIG, "[relay]\nworkers = -1\n")
    assert machine.run("systemctl reload relay-sidecar", check=False).returncode != 0
    assert machine.run("systemctl is-active relay-sidecar").stdout == "active\n"
    assert machine.run("systemctl restart relay-sidecar", check=False).returncode != 0
    ended = machine.run("systemctl show -p Result -p ExecMainStatus -p NRestarts relay-sidecar").stdout.split()
    assert set(ended) == {"Result=exit-code", "ExecMainStatus=78", "NRestarts=0"}
    assert "relay.workers" in journal(machine)


def test_a_relay_that_hangs_is_started_again(machine: Machine) -> None:
    """Captured connections would wait for a relay that does nothing, until somebody looks."""
    write(machine, DROP_IN, "[Service]\nWatchdogSec=1\n")
    start(machine, OUTBOUND.format("redirect"))
    first = main_pid(machine)
    machine.run(f"kill -STOP {first}")
    assert eventually(lambda: main_pid(machine) not in (first, "0"), within=30)
    assert "watchdog" in journal(machine).lower()


def test_rules_may_stay_without_the_relay(machine: Machine, network: Network) -> None:
    """Where nothing may go past the relay, the guide's drop-in would let it, or would not start."""
    (_, drop_in) = (block for page in ("Install", "When the relay dies") for block in blocks(HOST, "ini", page))
    write(machine, DROP_IN, drop_in.text)
    start(machine, OUTBOUND.format("redirect"))
    with path_out(network) as way:
        relayed(machine, way)
        machine.run("systemctl stop relay-sidecar")
        with pytest.raises(ConnectionRefusedError):
            way.dial()
        machine.run("systemctl start relay-sidecar")
        relayed(machine, way)
        machine.run("systemctl stop relay-sidecar; relay-sidecar rules remove")
        way.pair()


def test_the_guide_for_a_host_can_be_followed(package: Package, network: Network) -> None:
    """A newcomer would get stuck at a command that does not work as it is written, or keep what removal should take away."""
    with installed(package, network) as machine:
        follow(machine)


def follow(machine: Machine) -> None:
    before = rules(machine)
    for config in blocks(HOST, "toml"):
        write(machine, CONFIG, config.text)
        for block in blocks(HOST, "sh", "Choose what is captured"):
            machine.run(block.text)
    write(machine, CONFIG, blocks(HOST, "toml")[0].text)
    apply, rollback = blocks(HOST, "sh", "Apply them once, with a way back")
    machine.run(apply.text)
    assert "relay_sidecar" in rules(machine)
    machine.run(rollback.text)
    assert rules(machine) == before
    for block in blocks(HOST, "sh", "Run"):
        machine.run(block.text)
    for block in blocks(HOST, "sh", "Change, upgrade, remove"):
        machine.run(block.text, folder=CHECKOUT)
    assert rules(machine) == before
    left = machine.run(
        "find /etc /opt /run /usr /var/lib -name '*relay-sidecar*'; getent passwd relay-sidecar", check=False
    ).stdout
    assert left == ""


def test_the_guide_for_a_gateway_can_be_followed(machine: Machine, network: Network) -> None:
    """Clients would be cut off by a configuration that the page recommends."""
    config = blocks(GATEWAY, "toml")[0].text.replace("lan0", "to-client").replace("[80, 443]", "[8080]")
    write(machine, CONFIG, config)
    for block in [*blocks(GATEWAY, "sh", "What the machine needs"), *blocks(GATEWAY, "sh", "Configuration")]:
        machine.run(block.text)
    for family in FAMILIES:
        with Way(network.client, network.server, family, CLIENT[family], (ANY[family], 8080)) as way:
            way.dial_to = (SERVER[family], 8080)
            way.listen()
            _, origin, _ = way.pair()
            assert origin.getpeername()[0] == CLIENT[family]
            relayed(machine, way)
        with Way(network.client, network.pod, family, CLIENT[family], (ANY[family], 8080)) as way:
            way.dial_to = (POD[family], 8080)
            way.listen()
            assert way.pair().name not in journal(machine)
