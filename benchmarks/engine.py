"""The engine without the sidecar around it: what Python costs beside the loop is the difference.

Owns: a peer of the benchmarks, `python -m benchmarks.engine relay.toml`. It starts as relay-sidecar does, so that sockets,
settings and privileges are the same; then no loop of Python's runs: no thread of its wakes until the end.
Never here: a record, a metric, a timer; anything that relay-sidecar does not have.
"""

import signal
import sys

from sidecar.config import Flags, load_config
from sidecar.proxy.start import start
from sidecar.report import Report

END = {signal.SIGTERM, signal.SIGINT}


def main(file: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, END)
    config = load_config(Flags(config=file), {})
    engine = start(config, Report(config.log)).engine  # the report never starts: it has nothing to say, and no thread
    engine.start()
    signal.sigwait(END)
    engine.stop()
    engine.join()


if __name__ == "__main__":
    main(sys.argv[1])
