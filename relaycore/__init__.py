"""The engine of relay-sidecar: captured TCP connections, relayed byte for byte without the GIL.

Owns: the names that other packages import. Never here: code.
"""

from relaycore._engine import BUILD, Engine
from relaycore._facts import Address, Form, Histogram, LiveFlow, Record, Settings, StuckCall
from relaycore._process import capabilities, prctl, set_capabilities, setns, unshare
from relaycore._words import CAPTURES, COUNTERS, DIRECTIONS, HISTOGRAMS, LANES, PHASES, REASONS

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
    "StuckCall",
    "capabilities",
    "prctl",
    "set_capabilities",
    "setns",
    "unshare",
]
