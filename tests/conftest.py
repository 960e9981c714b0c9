"""What every test gets: a time-out of its own, and the marker for those that take long.

Never: a skip. What is missing fails and says how to get it (support/requirements.py).
"""

import faulthandler
import signal
from collections.abc import Iterator

import pytest

# Their assertions explain themselves as those of the tests do.
pytest.register_assert_rewrite("tests.support", "tests.faults")

# A test that hangs is a failure with a traceback of every thread, not a run that never ends.
SECONDS = 120
SECONDS_LONG = 900


def pytest_configure(config: pytest.Config) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:  # a runner in the background would hand that down to every relay
            signal.signal(number, signal.SIG_DFL)
    config.addinivalue_line("markers", "long: takes more than a minute; run by `make test-all`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """End a test that takes too long."""
    seconds = SECONDS_LONG if item.get_closest_marker("long") else SECONDS

    def expire(*_: object) -> None:
        faulthandler.dump_traceback()
        pytest.fail(f"no end after {seconds} s", pytrace=True)

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
