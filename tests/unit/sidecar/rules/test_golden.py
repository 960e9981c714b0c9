"""sidecar.rules: what each choice comes to. Reviewers read the files in tests/golden/rules; UPDATE_GOLDEN=1 writes them."""

import os
from itertools import product
from pathlib import Path

import pytest

from sidecar.config import Flags, load_config
from sidecar.rules import iptables, nft
from sidecar.rules.plan import make_plan
from tests.unit.sidecar.rules.choices import CHOICES

GOLDEN = Path(__file__).parents[3] / "golden" / "rules"


def written(name: str, backend: str, directory: Path) -> str:
    """What `rules show` prints of the rules themselves."""
    path = directory / "relay.toml"
    path.write_text(CHOICES[name])
    plan = make_plan(load_config(Flags(config=str(path)), {}), backend)
    if backend == "nft":
        return nft.script(nft.render(plan), "DIGEST")
    heads = {4: "# iptables-restore --noflush", 6: "# ip6tables-restore --noflush"}
    return "".join(f"{heads[family]}\n{text}" for family, text in iptables.scripts(iptables.render(plan), "DIGEST").items())


@pytest.mark.parametrize(("name", "backend"), list(product(CHOICES, ("nft", "iptables"))))
def test_a_choice_comes_to_these_rules(name: str, backend: str, tmp_path: Path) -> None:
    """A change of one line would change what is captured, and nobody would have read it."""
    golden = GOLDEN / f"{name}.{backend}"
    text = written(name, backend, tmp_path)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_file_has_a_choice() -> None:
    """A file that nothing writes would be read as the truth."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(CHOICES)
