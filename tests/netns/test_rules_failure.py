"""on_failure: what a new connection meets after the relay was killed. Every cell of capture, back end, choice and direction."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.support import rules
from tests.support.catcher import CLOSED_PORT, SHORT, Scene, ask, at, hold, plain
from tests.support.network import FAMILIES, POD, SERVER
from tests.support.relay import Relay
from tests.support.rule_commands import BACKENDS, CAPTURES, tables
from tests.support.toml import to_toml
from tests.support.ways import UNTRACKED

CHOICES = ("auto", "reset", "drop", "open")

RESET, DROP, OPEN, REFUSED = "reset", "drop", "open", "the configuration is refused"

# What auto comes to, and which choices the kernel can have.
CAN = {
    ("redirect", "nft"): {"auto": RESET, "reset": RESET, "drop": DROP},
    ("redirect", "iptables"): {"auto": RESET, "reset": RESET, "drop": DROP},
    ("tproxy", "nft"): {"auto": RESET, "reset": RESET, "drop": DROP, "open": OPEN},
    ("tproxy", "iptables"): {"auto": DROP, "drop": DROP},
}
CELLS = {
    (capture, backend, choice): CAN[plain(capture), backend.removesuffix("-legacy")].get(choice, REFUSED)
    for capture, backend, choice in product((*CAPTURES, UNTRACKED), BACKENDS, CHOICES)
}
POSSIBLE = [cell for cell, outcome in CELLS.items() if outcome != REFUSED]
IMPOSSIBLE = [cell for cell, outcome in CELLS.items() if outcome == REFUSED]


@pytest.mark.parametrize(("capture", "backend", "choice"), POSSIBLE)
def test_a_killed_relay(capture: str, backend: str, choice: str) -> None:
    """Traffic would pass by unseen where it must not, wait for ever where it could be told, or stop where it must go on."""
    with Scene.made() as scene:
        configuration = tables(capture, backend, on_failure=choice)
        rules.apply(scene.pod, configuration)
        with Relay(scene.pod, configuration["listener"], {"rules": configuration["rules"]}) as relay:
            relay.await_ready()
            for family in FAMILIES:
                assert ask(scene.pod, family, at(SERVER, family, 80), uid=1000).by == "server"
                assert ask(scene.client, family, at(POD, family, 80)).by == "app"
            relay.await_flows(0)
            assert relay.counted().opened == 4
            relay.process.kill()
            relay.process.wait()
        outcome = CELLS[capture, backend, choice]
        patience = SHORT if outcome == DROP else 3.0
        for family in FAMILIES:
            out = ask(scene.pod, family, at(SERVER, family, 80), uid=1000, within=patience).by
            into = ask(scene.client, family, at(POD, family, 80), within=patience).by
            expected = {RESET: ("refused", "refused"), DROP: ("timeout", "timeout"), OPEN: ("server", "app")}[outcome]
            assert (out, into) == expected
            # What was never captured does not depend on the relay.
            assert ask(scene.client, family, at(POD, family, 22), within=3.0).by == "app"
            assert ask(scene.client, family, at(POD, family, CLOSED_PORT), within=3.0).by == "refused"
            assert ask(scene.client, family, at(POD, family, 15006), within=3.0).by == "refused"
            assert ask(scene.pod, family, at(POD, family, 80), within=3.0).by == "app"


@pytest.mark.parametrize(("capture", "backend", "choice"), IMPOSSIBLE)
def test_what_the_kernel_cannot_do_is_refused_with_what_it_can(capture: str, backend: str, choice: str, tmp_path: Path) -> None:
    """A user would learn on the day of the failure that the choice was never in effect."""
    path = tmp_path / "relay.toml"
    path.write_text(to_toml(tables(capture, backend, on_failure=choice)))
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "check", "--config", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (78, "")
    works = {"redirect": 'works here: "reset" or "drop"', "tproxy": 'works here: "drop"'}[plain(capture)]
    program = backend.removesuffix("-legacy")
    expected = f"rules.on_failure: expected what {program} can do with {plain(capture)} when the relay is dead"
    assert f'{expected}, found "{choice}"; {works}; ' in done.stderr
    if choice == "open":
        assert "`rules apply --guard`" in done.stderr
        assert done.stderr.rstrip().endswith('with capture = "tproxy" and backend = "nft"')
    else:
        assert done.stderr.rstrip().endswith(f'"{choice}" with backend = "nft"')


def test_what_went_by_while_the_relay_was_dead_goes_on() -> None:
    """A relay that comes back would cut every connection that was made without it; the next ones are captured."""
    both = {"outbound": "tproxy", "inbound": "tproxy"}
    with Scene.made() as scene:
        rules.apply(scene.pod, tables("tproxy", "nft", on_failure="open"))
        for family in FAMILIES:
            without = [
                hold(scene.pod, family, at(SERVER, family, 80), uid=1000),
                hold(scene.client, family, at(POD, family, 80)),
            ]
            assert [held.answer.by for held in without] == ["server", "app"]
            with scene.caught(both):
                assert [held.lives() for held in without] == [True, True]
                assert ask(scene.pod, family, at(SERVER, family, 80), uid=1000).by == "outbound"
                assert ask(scene.client, family, at(POD, family, 80)).by == "inbound"
                assert [held.lives() for held in without] == [True, True]
