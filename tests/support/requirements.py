"""What the tests need from the machine. What is missing fails, and says how to get it: a skipped test proves nothing."""

import os
import shutil
from pathlib import Path

import pytest

PACKAGES = Path(__file__).with_name("debian-packages.txt")


def needs_root() -> None:
    """Namespaces and rules take root (or CAP_SYS_ADMIN and CAP_NET_ADMIN, which nobody has who is not root)."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root: run `sudo make test`", pytrace=False)


def needs_program(name: str) -> None:
    if shutil.which(name) is None:
        pytest.fail(f"{name} is missing: apt-get install $(grep -v '^#' {PACKAGES})", pytrace=False)
