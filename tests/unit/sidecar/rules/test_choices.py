"""sidecar.rules.choices: which valid configurations can have no rules, and what their users are told."""

from itertools import product

import pytest

from sidecar.config import Listener
from sidecar.errors import BAD_CONFIG, RelayError
from sidecar.rules.choices import can, captured, families_of, on_address, problems, when_dead
from sidecar.rules.model import V4, V6
from sidecar.rules.plan import make_plan
from tests.support.toml import to_toml
from tests.unit.sidecar.conftest import Load
from tests.unit.sidecar.rules.choices import CHOICES, GATEWAY, LISTENERS

BACKENDS = ("nft", "iptables")
REDIRECT = {"capture": "redirect"}
TPROXY = {"capture": "tproxy"}


def told(load: Load, text: str, backend: str = "nft", *, guarded: bool = False) -> list[str]:
    """The problems without the file's name; make_plan raises exactly these."""
    config = load(text)
    found = problems(config, backend, guarded=guarded)
    if found:
        with pytest.raises(RelayError) as caught:
            make_plan(config, backend, guarded=guarded)
        assert (caught.value.problems, caught.value.exit_status) == (tuple(found), BAD_CONFIG)
    return [str(problem).rpartition("relay.toml: ")[2] for problem in found]


def of(*listeners: dict[str, object], **rules: object) -> str:
    """A configuration of listeners, each an update of one of LISTENERS."""
    tables = [{**LISTENERS[str(listener.get("direction", "outbound"))], **listener} for listener in listeners]
    return to_toml({"rules": rules, "listener": tables})


OUT, IN = {"direction": "outbound"}, {"direction": "inbound"}
NET = {"direction": "gateway", "capture": "tproxy"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CHOICES)
def test_what_users_choose_can_be_had(load: Load, name: str, backend: str) -> None:
    """A combination that has a golden file would be refused."""
    assert told(load, CHOICES[name], backend) == []


def test_rules_need_a_listener_that_they_can_serve(load: Load) -> None:
    """`rules apply` would apply nothing and say that all is well."""
    alone = '[relay]\ntarget = "127.0.0.1:80"\n[[listener]]\nname = "a"\ndirection = "inbound"\nport = 1\ncapture = "none"\n'
    assert told(load, alone) == [
        'listener: expected a listener that rules can bring connections to, found only listeners with capture = "none"'
    ]
    assert captured(load(alone)) == []


@pytest.mark.parametrize(("first", "second"), [("", ""), ("0.0.0.0", "::"), ("127.0.0.1", "0.0.0.0"), ("::1", "")])
def test_one_listener_of_a_direction_for_each_family(load: Load, first: str, second: str) -> None:
    """The first of two would get every connection, and the second's users would wonder."""
    text = of({**OUT, **TPROXY, "address": first}, {**OUT, **TPROXY, "name": "more", "port": 1, "address": second})
    assert told(load, text) == [
        "listener[1].direction: expected one captured outbound listener for each family, found outbound and more"
    ]


def test_each_of_several_is_told(load: Load) -> None:
    """With three listeners a user would mend the file twice."""
    text = of(IN, {**IN, "name": "b", "port": 1}, {**IN, "name": "c", "port": 2})
    assert [line.rpartition("found ")[2] for line in told(load, text)] == ["inbound and b", "inbound and c", "b and c"]


def test_a_listener_for_each_family_and_one_that_rules_do_not_serve(load: Load) -> None:
    """Two listeners that do not meet would be refused."""
    pair = of({**OUT, "address": "0.0.0.0"}, {**OUT, "name": "six", "port": 1, "address": "::1"})
    assert told(load, pair) == []
    beside = '[relay]\ntarget = "127.0.0.1:80"\n' + of(OUT, {**OUT, "name": "fixed", "port": 1, "capture": "none"})
    assert told(load, beside) == []


def test_a_gateway_by_redirect_would_be_an_open_relay(load: Load) -> None:
    """Whoever asks for it must be told what works instead."""
    assert told(load, of({**NET, "capture": "redirect"}, **GATEWAY)) == [
        'listener[0].capture: expected "tproxy" for rules of a gateway, found "redirect"; '
        'capture = "tproxy" works; REDIRECT rules for a gateway would make it an open relay'
    ]


def test_a_gateway_needs_interfaces(load: Load) -> None:
    """Without them everybody would be a client, the whole internet too."""
    assert told(load, of(NET)) == [
        "rules.gateway_interfaces: expected at least one interface, found none; name those behind which the clients are"
    ]


@pytest.mark.parametrize("address", ["192.0.2.7", "127.0.0.2", "fd00::1"])
def test_redirect_chooses_the_address(load: Load, address: str) -> None:
    """Redirected connections would arrive where nobody listens."""
    assert told(load, of({**OUT, "address": address})) == [
        "listener[0].address: expected an address at which redirected connections arrive: any, 127.0.0.1 or ::1, "
        f"found {address}"
    ]
    assert told(load, of({**IN, "address": address})) == [
        "listener[0].address: expected every address: redirected connections arrive at the first one of their interface, "
        f'found {address}; with capture = "tproxy" any works'
    ]
    assert told(load, of({**OUT, **TPROXY, "address": address})) == told(load, of({**IN, **TPROXY, "address": address})) == []


def test_addresses_at_which_redirect_works(load: Load) -> None:
    """A relay that listens on loopback alone, as it should, would be refused."""
    for address in ("", "0.0.0.0", "::", "127.0.0.1", "::1"):
        assert told(load, of({**OUT, "address": address})) == []
    for address in ("127.0.0.1", "::1"):
        assert len(told(load, of({**IN, "address": address}))) == 1


def test_an_address_with_a_zone(load: Load) -> None:
    """No rule can name it: the kernel's refusal would be all that a user sees."""
    assert told(load, of({**IN, **TPROXY, "address": "fe80::1%eth0"})) == [
        "listener[0].address: expected an address without a zone: no TPROXY rule can name one, found fe80::1%eth0"
    ]


def test_the_relay_must_be_told_from_the_app(load: Load) -> None:
    """It would capture its own connections, in a loop without end."""
    assert told(load, of(OUT, mark=0)) == []
    assert told(load, of(OUT, exempt_owner=False)) == []
    assert told(load, of({**OUT, **TPROXY}, mark=0)) == [
        "rules.mark: expected a mark: TPROXY sees every packet, and those of a closed socket have no owner, found 0; "
        "0x539 is the default"
    ]
    assert told(load, of(OUT, mark=0, exempt_owner=False)) == [
        "rules.mark: expected a mark, where the relay's owner is not exempt: it would capture itself, found 0; "
        "or leave exempt_owner at true"
    ]
    assert len(told(load, of({**OUT, **TPROXY}, mark=0, exempt_owner=False))) == 1


def test_a_failure_mode_that_the_kernel_lacks(load: Load) -> None:
    """What a user chose would not happen on the day when it counts."""
    where = "rules.on_failure: expected what "
    dead = " when the relay is dead, found "
    guard = '"open" with `rules apply --guard`, or `run --with-rules`, or with capture = "tproxy" and backend = "nft"'
    assert told(load, of({**OUT, **TPROXY}, on_failure="reset"), "iptables") == [
        f'{where}iptables can do with tproxy{dead}"reset"; works here: "drop"; "reset" with backend = "nft"'
    ]
    assert told(load, of({**OUT, **TPROXY}, on_failure="open"), "iptables") == [
        f'{where}iptables can do with tproxy{dead}"open"; works here: "drop"; {guard}'
    ]
    for backend in BACKENDS:
        assert told(load, of(OUT, on_failure="open"), backend) == [
            f'{where}{backend} can do with redirect{dead}"open"; works here: "reset" or "drop"; {guard}'
        ]
    assert told(load, of(OUT, {**IN, **TPROXY}, on_failure="open"), "iptables") == [
        f'{where}iptables can do with redirect{dead}"open"; works here: "reset" or "drop"; {guard}',
        f'{where}iptables can do with tproxy{dead}"open"; works here: "drop"; {guard}',
    ]


def test_a_companion_can_open(load: Load) -> None:
    """`--guard` removes the rules when the relay dies: that is open, with every capture. It cannot reset."""
    for backend in BACKENDS:
        for capture in (REDIRECT, TPROXY):
            assert told(load, of({**OUT, **capture}, on_failure="open"), backend, guarded=True) == []
    assert len(told(load, of({**OUT, **TPROXY}, on_failure="reset"), "iptables", guarded=True)) == 1


def test_what_happens_when_nobody_listens() -> None:
    """auto would be another choice than the one that is documented."""
    table = {cell: when_dead("auto", *cell) for cell in product(("redirect", "tproxy"), BACKENDS)}
    assert table == {
        ("redirect", "nft"): "reset",
        ("redirect", "iptables"): "reset",
        ("tproxy", "nft"): "reset",
        ("tproxy", "iptables"): "drop",
    }
    assert all(can("auto", *cell) and can("drop", *cell) and can(choice, *cell) for cell, choice in table.items())
    assert [cell for cell in table if can("open", *cell)] == [("tproxy", "nft")]
    assert [cell for cell in table if not can("reset", *cell)] == [("tproxy", "iptables")]


def test_what_needs_conntrack_is_refused_without_it(load: Load) -> None:
    """Captured connections would find no origin, or no way back; or nothing would come of the key."""
    works = 'capture = "tproxy" without preserve_client works, where one of them is inbound or a gateway'
    spoofing = {**TPROXY, "preserve_client": True}
    for listeners, found in (
        ([OUT, IN], "outbound with redirect, inbound with redirect"),
        ([{**OUT, **TPROXY}, IN], "inbound with redirect"),
        ([OUT, {**IN, **TPROXY}], "outbound with redirect"),
        ([{**IN, **spoofing}], "inbound with preserve_client"),
        ([{**NET, **spoofing}], "gateway with preserve_client"),
        ([{**OUT, **TPROXY}], "outbound alone, which conntrack has to track"),
    ):
        expected = f"rules.notrack: expected listeners that can do without conntrack, found {found}; {works}"
        for backend in BACKENDS:
            assert told(load, of(*listeners, **GATEWAY, notrack=True), backend) == [expected]
            assert told(load, of(*listeners, **GATEWAY), backend) == []
    for listeners in ([{**IN, **TPROXY}], [NET], [{**OUT, **TPROXY}, {**IN, **TPROXY}], [{**OUT, **TPROXY}, NET]):
        assert told(load, of(*listeners, **GATEWAY, notrack=True)) == []


def listening(load: Load, address: str) -> Listener:
    return load(of({**IN, **TPROXY, "address": address})).listeners[0]


@pytest.mark.parametrize(
    ("address", "families", "named"),
    [
        ("", (V4, V6), None),
        ("::", (V4, V6), None),
        ("0.0.0.0", (V4,), None),
        ("192.0.2.1", (V4,), "192.0.2.1"),
        ("fd00::1", (V6,), "fd00::1"),
    ],
)
def test_which_families_a_listener_takes(load: Load, address: str, families: tuple[int, ...], named: str | None) -> None:
    """Connections of the other family would be brought to a port where nobody listens."""
    listener = listening(load, address)
    assert families_of(listener, (V4, V6)) == families
    assert families_of(listener, (V4,)) == tuple(family for family in families if family == V4)
    assert on_address(listener) == named
