"""Fixtures of the unit tests of sidecar.

Owns: configuration files that are safe to obey. Never here: a port that another test could hold.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config import Config, Flags, load_config

WriteConfig = Callable[[str], str]
Load = Callable[..., Config]


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Writes a file that only its owner may write; its path."""

    def write(text: str) -> str:
        path = tmp_path / "relay.toml"
        path.write_text(text)
        path.chmod(0o644)
        return str(path)

    return write


@pytest.fixture
def load(write_config: WriteConfig) -> Load:
    """Loads a configuration from text; keywords are flags, `environ` the environment."""

    def from_text(text: str = "", environ: dict[str, str] | None = None, **flags: object) -> Config:
        return load_config(Flags(config=write_config(text), **flags), environ or {})  # type: ignore[arg-type]

    return from_text
