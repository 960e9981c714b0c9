"""Configuration files as the tests write them.

Owns: their spelling. Never here: what is in them.
"""

import json
from collections.abc import Mapping
from typing import Any


def to_toml(config: Mapping[str, Any]) -> str:
    """Tables, and lists of tables; JSON's strings, numbers, booleans and lists are TOML's."""
    lines: list[str] = []
    for name, value in config.items():
        for table in value if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            lines += [f"{key} = {_value(item)}" for key, item in table.items()]
    return "\n".join(lines) + "\n"


def _value(item: object) -> str:
    if isinstance(item, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(value)}" for key, value in item.items()) + " }"
    return json.dumps(item)
