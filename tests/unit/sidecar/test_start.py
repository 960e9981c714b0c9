"""sidecar.proxy.start: what is said when the engine cannot be had."""

import errno
import os
import sys

import pytest

from sidecar.errors import RelayError
from sidecar.proxy.settings import engine_settings
from sidecar.proxy.start import _engine
from tests.unit.sidecar.conftest import Load


def test_too_few_open_files_come_with_the_next_step(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would read "Too many open files" and not know which limit to raise."""

    def engine(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(sys.modules["sidecar.proxy.start"], "Engine", engine)
    config = load("")
    with pytest.raises(RelayError, match=r"; raise the limit on open files \(ulimit -n\)$"):
        _engine(config, engine_settings(config, False, 1, 0, ()), 1, 1, 1)
