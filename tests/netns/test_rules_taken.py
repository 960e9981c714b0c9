"""Any valid configuration: the kernel takes its rules, and gives them back in the very words in which they were written."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sidecar.rules.backends import BACKENDS
from sidecar.rules.change import NOTHING, compare, move_to, present, wanted
from tests.support.netns import Namespace
from tests.support.rule_commands import captures
from tests.support.rules import configured
from tests.unit.sidecar.rules.configurations import configurations

EXAMPLES = 15  # for each back end, and besides them what is spelt in a way of its own
EVERY_ADDRESS = ["0.0.0.0/0", "::/0"]
LISTENERS = [{"name": "out", "direction": "outbound", "port": 15002}, {"name": "in", "direction": "inbound", "port": 15006}]
PECULIAR = [
    {"outbound_cidrs": EVERY_ADDRESS, "inbound_exclude_cidrs": EVERY_ADDRESS, "outbound_exclude_cidrs": EVERY_ADDRESS},
    {
        "inbound_exclude_interfaces": ["tun0", "eth10", "eth1", "docker0", "lo", "a", "ba"],
        "outbound_exclude_interfaces": ["@", "_-"],
    },
    {
        "outbound_exclude_cidrs": [
            "::20:0/107",
            "::ffff:0:0/96",
            "::1.2.3.4",
            "1::",
            "2001:db8:0:1::/64",
            "fe80::/10",
            "ff00::/8",
        ]
    },
    {"inbound_ports": ["1-65535"], "outbound_ports": ["1-1", "2-65535"], "outbound_exclude_ports": [65535, "1-65534"]},
    {"outbound_uids": [0, 4294967294], "outbound_exclude_uids": ["0", "root"], "outbound_exclude_gids": [0, 4294967294]},
    {"mark": 0xFFF, "local_mark": 1, "capture_mark": 0x100, "route_table": 2**32 - 1, "rule_priority": 32765},
]
NAMES = {"nft": "nft", "iptables": "iptables-nft", "iptables-legacy": "iptables-legacy"}

# All examples of a test have one namespace: each is applied over the one before.
some = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("rules", PECULIAR)
@captures
def test_peculiar_values_are_listed_as_they_were_written(
    namespace: Namespace, backend: str, capture: str, rules: dict[str, Any]
) -> None:
    """The same, for values of which a program may have another spelling."""
    listeners = [{**listener, "capture": capture} for listener in LISTENERS]
    apply_and_list(namespace, backend, {"rules": rules, "listener": listeners})
    with namespace.entered():
        move_to(NOTHING)
        assert present() == NOTHING


@pytest.mark.parametrize("backend", NAMES)
@some
@given(tables=configurations())
def test_what_is_applied_is_what_is_listed(namespace: Namespace, backend: str, tables: dict[str, Any]) -> None:
    """A difference in spelling would be a drift that no apply can repair; a refusal would leave a user without rules."""
    apply_and_list(namespace, backend, tables)


def apply_and_list(namespace: Namespace, backend: str, tables: dict[str, Any]) -> None:
    config = configured({**tables, "rules": {**tables["rules"], "backend": backend}})
    with namespace.entered():
        plan = wanted(config)  # which asks the kernel whether it would take them
        move_to(plan.situation)
        held = BACKENDS[NAMES[backend]].held()
        assert held.texts() == plan.situation.held[NAMES[backend]].texts()
        assert held.digest == plan.plan.digest()
        assert compare(present(), plan.situation) == []
