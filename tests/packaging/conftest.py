"""What the tests of packaging share: the package, built once."""

import pytest

from tests.support.package import Package, made


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return made(tmp_path_factory)
