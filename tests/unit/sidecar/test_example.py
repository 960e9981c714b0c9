"""etc/relay.toml is the schema, told: both ways, with every meaning, range and default."""

import re
from pathlib import Path

import tomli

from sidecar.config import Flags, load_config
from sidecar.config.schema import DEFAULT_LISTENERS, TABLES
from sidecar.config.sections import REQUIRED
from tests.unit.sidecar.conftest import WriteConfig
from tests.unit.sidecar.example_file import SHOWN_ELEMENT, example

FILE = Path(__file__).parents[3] / "etc" / "relay.toml"


def test_the_example_is_what_the_schema_says() -> None:
    """A user would read of a key, a range or a default that the program does not have. (To mend it: see example_file.)"""
    assert FILE.read_text() == example()


def test_every_key_and_default_of_the_schema_is_in_the_file() -> None:
    """A key could only be found in the source."""
    shown = re.sub(r"^# (?=\[\[element\]\]|[a-z_]+ = )", "", FILE.read_text(), flags=re.M)
    tables = tomli.loads(shown)
    assert list(tables) == list(TABLES)
    for name, section in TABLES.items():
        table = tables[name][0] if name in ("listener", "element") else tables[name]
        assert list(table) == list(section.keys)
        for key in section.keys:
            default = section.keys[key].default
            required = DEFAULT_LISTENERS[0] if name == "listener" else SHOWN_ELEMENT
            assert table[key] == (required[key] if default is REQUIRED else default)


def test_the_file_changes_nothing(write_config: WriteConfig) -> None:
    """Starting with the example would differ from starting without a file."""
    with_file, without = load_config(Flags(config=write_config(FILE.read_text())), {}), load_config(Flags(), {})
    for section in ("relay", "rules", "log", "admin"):
        assert getattr(with_file, section).as_toml() == getattr(without, section).as_toml()
    assert [listener.as_toml() for listener in with_file.listeners] == [listener.as_toml() for listener in without.listeners]


def test_every_key_of_the_contract_is_there() -> None:
    """A name that users rely on would have gone."""
    contract = """
        relay: user group workers max_flows connect_timeout idle_timeout drain_timeout target
        listener: name direction port capture protocol preserve_client address
        rules: backend ipv6 inbound_ports inbound_exclude_ports outbound_ports outbound_exclude_ports outbound_exclude_cidrs
               outbound_uids only_open_ports on_failure gateway_interfaces mark
        log: level format access
        admin: socket metrics health
    """
    for table, names in re.findall(r"(\w+): ([^:]+)(?=\n\s+\w+:|\s*$)", contract):
        assert set(names.split()) <= set(TABLES[table].keys)


def test_values_are_shown_as_a_file_would_say_them() -> None:
    """`check --json` could not be pasted into a file."""
    for section in TABLES.values():
        for name, key in section.keys.items():
            if key.default is not REQUIRED:
                assert key.kind.write(key.kind.take(key.default)) == key.default, name
