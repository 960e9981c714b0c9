"""The engine of relay-sidecar: captured TCP connections, relayed byte for byte without the GIL.

Owns: the names that other packages import. Never here: code.
"""

from relaycore._engine import (
    BUILD,
    CAPTURES,
    COUNTERS,
    DIRECTIONS,
    HISTOGRAMS,
    LANES,
    PHASES,
    REASONS,
    Engine,
    capabilities,
    prctl,
    set_capabilities,
    setns,
    unshare,
)
from relaycore._facts import Address, Form, Histogram, LiveFlow, Record, Settings

__all__ = [
    "BUILD",
    "CAPTURES",
    "COUNTERS",
    "DIRECTIONS",
    "HISTOGRAMS",
    "LANES",
    "PHASES",
    "REASONS",
    "Address",
    "Engine",
    "Form",
    "Histogram",
    "LiveFlow",
    "Record",
    "Settings",
    "capabilities",
    "prctl",
    "set_capabilities",
    "setns",
    "unshare",
]
