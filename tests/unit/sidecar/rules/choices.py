"""The combinations that users choose, each with a name: what golden files, and the tests in namespaces, go over.

Owns: these configurations. Never here: what comes of them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tests.support.toml import to_toml

Tables = Mapping[str, Any]

LISTENERS = {
    name: {"name": name, "direction": name, "port": port, "capture": "redirect"}
    for name, port in (("outbound", 15002), ("inbound", 15006), ("gateway", 15007))
}


def listeners(**captures: str) -> list[Tables]:
    """Listeners by direction, each with its capture; "spoof" is tproxy with preserve_client."""
    tables = []
    for direction, capture in captures.items():
        spoofs = {"capture": "tproxy", "preserve_client": True} if capture == "spoof" else {"capture": capture}
        tables.append({**LISTENERS[direction], **spoofs})
    return tables


def chosen(rules: Tables = MappingProxyType({}), **captures: str) -> str:
    """A configuration file."""
    return to_toml({"rules": rules, "listener": listeners(**captures)})


BOTH = {"outbound": "redirect", "inbound": "redirect"}
BOTH_TPROXY = {"outbound": "tproxy", "inbound": "tproxy"}
GATEWAY = {"gateway_interfaces": ["eth1", "eth0"]}

CHOICES: Mapping[str, str] = {
    "redirect": chosen(**BOTH),
    "redirect-inbound": chosen(inbound="redirect"),
    "redirect-outbound": chosen(outbound="redirect"),
    "redirect-ipv4": chosen({"ipv6": False}, **BOTH),
    "redirect-every-port": chosen({"only_open_ports": False}, **BOTH),
    "redirect-drop": chosen({"on_failure": "drop"}, **BOTH),
    "redirect-no-mark": chosen({"mark": 0}, **BOTH),
    "redirect-mark-alone": chosen({"exempt_owner": False}, **BOTH),
    "tproxy": chosen(**BOTH_TPROXY),
    "tproxy-ipv4": chosen({"ipv6": False}, **BOTH_TPROXY),
    "tproxy-inbound": chosen(inbound="tproxy"),
    "tproxy-outbound": chosen(outbound="tproxy"),
    "tproxy-preserve": chosen(outbound="tproxy", inbound="spoof"),
    "tproxy-drop": chosen({"on_failure": "drop"}, **BOTH_TPROXY),
    "tproxy-marks": chosen(
        {"mark": 0x7, "local_mark": 0x8, "capture_mark": 0x9, "route_table": 7777, "rule_priority": 99}, **BOTH_TPROXY
    ),
    "redirect-out-preserve-in": chosen(outbound="redirect", inbound="spoof"),
    "tproxy-out-redirect-in": chosen(outbound="tproxy", inbound="redirect"),
    "one-port": chosen({"inbound_ports": [8080], "outbound_ports": [80, 443]}, **BOTH),
    "many-ports": chosen({"inbound_ports": [*range(1000, 1040, 2), "11000-11100"], "inbound_exclude_ports": ["20-30"]}, **BOTH),
    "no-ports": chosen({"inbound_ports": [], "outbound_ports": []}, **BOTH),
    "excluded": chosen(
        {
            "inbound_exclude_cidrs": ["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"],
            "inbound_exclude_interfaces": ["cni0", "docker0"],
            "outbound_exclude_ports": [53, "9000-9010"],
            "outbound_exclude_cidrs": ["10.0.0.0/8", "192.0.2.7", "fd00::/8"],
            "outbound_exclude_interfaces": ["tun0"],
            "outbound_exclude_uids": [101, 100],
            "outbound_exclude_gids": [200],
        },
        **BOTH,
    ),
    "excluded-tproxy": chosen(
        {"inbound_exclude_cidrs": ["10.0.0.0/8"], "outbound_exclude_uids": [100], "outbound_exclude_ports": [53]}, **BOTH_TPROXY
    ),
    "networks": chosen({"outbound_cidrs": ["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"]}, **BOTH),
    "networks-adjacent": chosen(
        {
            "outbound_exclude_cidrs": [
                "10.1.0.0/16",
                "10.2.0.0/16",
                "10.3.0.0/16",
                "192.0.2.9",
                "fd01::/32",
                "fd01:1::/32",
                "fd01:2::/32",
            ]
        },
        **BOTH,
    ),
    "networks-ipv4": chosen({"outbound_cidrs": ["10.0.0.0/8"]}, **BOTH_TPROXY),
    "users": chosen({"outbound_uids": [1001, 1000]}, **BOTH),
    "users-tproxy": chosen({"outbound_uids": [1001, 1000]}, **BOTH_TPROXY),
    "gateway": chosen(GATEWAY, gateway="tproxy"),
    "gateway-preserve": chosen({**GATEWAY, "gateway_cidrs": ["10.0.0.0/8", "fd00::/8"]}, gateway="spoof"),
    "gateway-ports": chosen(
        {**GATEWAY, "outbound_ports": [80, 443], "outbound_exclude_cidrs": ["10.9.0.0/16"]}, gateway="tproxy"
    ),
    "gateway-and-app": chosen(GATEWAY, gateway="tproxy", inbound="tproxy", outbound="tproxy"),
    "notrack": chosen({"notrack": True}, **BOTH_TPROXY),
    "notrack-every-port": chosen({"notrack": True, "only_open_ports": False, "client_mark": 0x7}, inbound="tproxy"),
    "notrack-gateway": chosen({**GATEWAY, "notrack": True, "outbound_exclude_ports": [53]}, gateway="tproxy"),
    "notrack-gateway-and-app": chosen({**GATEWAY, "notrack": True}, gateway="tproxy", inbound="tproxy", outbound="tproxy"),
}
