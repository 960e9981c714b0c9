"""How long rules take: apply, apply again, status and remove, alone and among 60,000 rules of others.

Owns: these figures. `pytest benchmarks/test_rules.py -s` prints the median and the worst of each, in milliseconds, as root.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from itertools import product

import pytest

from tests.support.netns import Namespace
from tests.support.network import V4
from tests.support.rules import INBOUND_PORT, OUTBOUND_PORT
from tests.support.toml import to_toml

ROUNDS = 7
FOREIGN_RULES = 60_000
COMMANDS = ("apply --no-probe", "apply --no-probe", "status", "remove")
NAMES = ("apply", "again", "status", "remove")
WAYS = list(product(("redirect", "tproxy"), ("nft", "iptables")))


def foreign(count: int) -> str:
    """As kube-proxy leaves them: a chain for each service, and a long one that leads there."""
    services = count // 100
    lines = [f":KUBE-SVC-{number} - [0:0]" for number in range(services)]
    lines += [
        f"-A KUBE-SERVICES -d 10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32 -j KUBE-SVC-{number % services}"
        for number in range(count)
    ]
    return "\n".join(["*nat", ":KUBE-SERVICES - [0:0]", *lines, "-A PREROUTING -j KUBE-SERVICES", "COMMIT", ""])


@pytest.fixture(scope="module", params=[0, FOREIGN_RULES])
def crowd(request: pytest.FixtureRequest) -> Iterator[tuple[Namespace, int]]:
    namespace = Namespace("crowd")
    try:
        if request.param:
            namespace.run(["iptables-nft-restore", "--noflush"], stdin=foreign(request.param))
        yield namespace, request.param
    finally:
        namespace.close()


def test_rules_among_rules_of_others(crowd: tuple[Namespace, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """A node with many services would wait for its sidecars' rules."""
    namespace, count = crowd
    spent: dict[tuple[str, ...], list[float]] = {}
    for _, (capture, backend) in product(range(ROUNDS), WAYS):
        path = tmp_path_factory.mktemp("rules") / "relay.toml"
        ports = {"outbound": OUTBOUND_PORT, "inbound": INBOUND_PORT}
        listeners = [{"name": name, "direction": name, "port": port, "capture": capture} for name, port in ports.items()]
        path.write_text(to_toml({"rules": {"backend": backend}, "listener": listeners}))
        for name, command in zip(NAMES, COMMANDS, strict=True):
            config = [] if command == "remove" else ["--config", str(path)]
            begin = time.monotonic()
            namespace.run([sys.executable, "-m", "sidecar", "rules", *command.split(), *config])
            spent.setdefault((capture, backend, name), []).append((time.monotonic() - begin) * 1000)
    sys.stdout.write(f"\nIPv{V4} and IPv6, {count} rules of others, milliseconds (median, worst of {ROUNDS})\n")
    for (capture, backend, name), times in spent.items():
        sys.stdout.write(f"  {capture:9} {backend:9} {name:7} {statistics.median(times):7.0f} {max(times):7.0f}\n")
