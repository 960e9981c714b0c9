"""The words for the engine's codes: NAMES[code] is what logs and metrics say.

Owns: these words, in the order of the enums in _flow.pxd and _stats.pxd. Never here: code.
"""

from typing import Final

DIRECTIONS: Final = ("outbound", "inbound", "gateway")
CAPTURES: Final = ("redirect", "tproxy", "none")
LANES: Final = ("copy", "splice", "element")
PHASES: Final = ("dialling", "relaying", "closed")
REASONS: Final = (
    "finished",
    "refused",
    "unreachable",
    "connect_timeout",
    "reset_by_client",
    "reset_by_origin",
    "client_left",
    "idle",
    "half_close_timeout",
    "limit",
    "loop",
    "not_captured",
    "foreign_origin",
    "foreign_client",
    "drained",
    "rejected",
    "element_failed",
    "error",
)
COUNTERS: Final = (
    "accept_errors",
    "accept_pauses",
    "connections_shed",
    "flows_limited",
    "files_limited",
    "memory_limited",
    "ports_limited",
    "pipes_exhausted",
    "pipes_denied",
    "pending_exhausted",
    "records_lost",
    "resets_forced",
    "urgent_bytes",
    "to_splice",
    "to_copy",
    "turns",
)
HISTOGRAMS: Final = ("connect_seconds", "duration_seconds", "flow_bytes")
