"""Rules in a namespace of the tests: the product's own, and a few that nobody should write.

Owns: rulesets/, the text of the latter. The relay listens on 15002 (outbound) and 15006 (inbound, gateway); its user is 1337.
Never: a rule in a namespace that the tests did not make (Namespace sees to it).
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.config import Config, Flags, load_config
from sidecar.rules.change import NOTHING, move_to, present, wanted
from sidecar.rules.routes import ours
from sidecar.rules.routes import text as text_of
from tests.support.netns import Namespace
from tests.support.network import FAMILIES
from tests.support.toml import to_toml

RULESETS = Path(__file__).with_name("rulesets")

OUTBOUND_PORT, INBOUND_PORT = 15002, 15006

# Of the rules of an open relay: the ports whose connections are brought to either listener.
OPEN_TO_INBOUND, OPEN_TO_OUTBOUND = 8080, 8081


def text(name: str) -> str:
    return (RULESETS / name).read_text()


def configured(tables: Mapping[str, Any]) -> Config:
    """What a file with these tables says."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(to_toml(tables))
        file.flush()
        return load_config(Flags(config=file.name), {})


def apply(namespace: Namespace, tables: Mapping[str, Any]) -> None:
    """The product's rules for this configuration, without the ceremony of `rules apply`."""
    config = configured(tables)
    with namespace.entered():
        move_to(wanted(config).situation)


def held(namespace: Namespace) -> tuple[object, ...]:
    """What of ours is there, line by line."""
    with namespace.entered():
        return {name: holding.texts() for name, holding in present().held.items()}, sorted(map(text_of, ours()))


def remove(namespace: Namespace) -> None:
    """Take them away again."""
    with namespace.entered():
        move_to(NOTHING)


def apply_gateway_redirect(namespace: Namespace) -> None:
    """What somebody may write who wants a gateway without tproxy; the product offers no such rules."""
    namespace.nft(text("gateway-redirect.nft"))


def apply_open(namespace: Namespace, capture: str) -> None:
    """The rules of an open relay: whatever comes from the link `to-client`, wherever it was meant to go."""
    if capture == "tproxy":
        for family in FAMILIES:
            namespace.ip(
                "rule add fwmark 0x111/0xfff pref 32764 lookup 100", "route add local default dev lo table 100", family=family
            )
    namespace.nft(text(f"open-{capture}.nft"))
