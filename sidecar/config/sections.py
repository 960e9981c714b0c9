"""What a table of the configuration is: a class whose attributes are keys, and objects whose attributes are their values.

Owns: Section, Key. Used by the schema, which declares them, and by everyone who reads one.
Never here: which keys exist (schema); what a value may be (kinds).
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, TypeVar, cast

from sidecar.config.kinds import Kind

T = TypeVar("T")

REQUIRED = None  # as a default: the key must be there


class Key(NamedTuple):
    """One key: what it takes, its default as TOML would say it, what it means, and whether a reload applies it."""

    kind: Kind[object]
    default: object
    meaning: str
    live: bool


def key(kind: Kind[T], default: object, meaning: str, *, live: bool = False) -> T:
    """Declare a key. In the class it is a Key; in an instance, where everyone looks, it is the value: hence the type."""
    return cast(T, Key(kind, default, meaning, live))


class Section:
    """One table of the configuration, immutable. `given` names the keys that were set, not left to their defaults."""

    keys: ClassVar[Mapping[str, Key]] = {}
    given: frozenset[str]

    def __init_subclass__(cls) -> None:
        cls.keys = {name: value for name, value in vars(cls).items() if isinstance(value, Key)}

    def __init__(self, values: Mapping[str, object], given: frozenset[str] = frozenset()) -> None:
        vars(self).update({name: values[name] for name in self.keys}, given=given)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name}: a configuration does not change; load a new one")

    def as_toml(self) -> dict[str, object]:
        """The values as a file would say them."""
        return {name: key.kind.write(getattr(self, name)) for name, key in self.keys.items()}
