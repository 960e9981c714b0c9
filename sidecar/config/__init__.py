"""The configuration: a typed value that is valid as a whole, made from file, environment, flags and defaults.

Owns: nothing itself; this is the door. schema tells the keys, kinds and network_kinds their values, source reads the file,
load puts all together, checks looks at keys together.
Never here: anything that binds, resolves a name or changes the machine: `relay-sidecar check` is exactly this package.
"""

from sidecar.config.load import Config, Flags, load_admin, load_config
from sidecar.config.network_kinds import Endpoint
from sidecar.config.schema import Element, Listener

__all__ = ["Config", "Element", "Endpoint", "Flags", "Listener", "load_admin", "load_config"]
