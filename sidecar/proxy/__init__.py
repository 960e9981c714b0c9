"""`relay-sidecar run`: from a configuration to an exit status.

Owns: the order of the whole: signals, configuration, start, life, last words. start and relay do the work.
Never here: a message to print (RelayError goes to cli).
"""

from collections.abc import Mapping

from sidecar.config import Flags, load_config
from sidecar.proxy.relay import Relay
from sidecar.proxy.signals import Signals
from sidecar.proxy.start import start
from sidecar.report import Report

LAST_WORDS_SECONDS = 2.0  # how long the end waits for a slow reader of stdout and stderr


def run(flags: Flags, environ: Mapping[str, str]) -> int:
    """Relay until a signal or `drain` ends it; RelayError when it cannot start."""
    signals = Signals()
    config = load_config(flags, environ)
    report = Report(config.log)
    try:
        return Relay(start(config, report), config, flags, environ, report).run(signals)
    finally:
        report.close(LAST_WORDS_SECONDS)
        signals.close()
