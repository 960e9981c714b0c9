"""sidecar.target: the fixed target, resolved once, and never ourselves."""

import socket
from typing import Any

import pytest

from sidecar import target as module
from sidecar.errors import RelayError
from sidecar.target import refuse_own_listener, resolve_target
from tests.unit.sidecar.conftest import Load

OWN = ("127.0.0.0/8", "10.0.0.5/32", "::1/128", "fe80::1/128")


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[Any, ...]) -> None:
    def look_up(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [
            (socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in addresses
        ]

    monkeypatch.setattr(module.socket, "getaddrinfo", look_up)


def test_no_target_is_none(load: Load) -> None:
    """A relay of captured connections would need a target."""
    assert resolve_target(load("")) is None


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ([("::1", 80, 0, 0), ("127.0.0.1", 80)], ("127.0.0.1", 80)),
        ([("::1", 80, 0, 0)], ("::1", 80)),
        ([("fe80::1%eth0", 80, 0, 2)], ("fe80::1%2", 80)),
        ([("::ffff:127.0.0.1", 80, 0, 0)], ("127.0.0.1", 80)),
    ],
)
def test_one_address_is_chosen(
    load: Load, monkeypatch: pytest.MonkeyPatch, found: list[tuple[Any, ...]], taken: object
) -> None:
    """`TARGET_ADDR=localhost:8080` would dial ::1, where an app on 0.0.0.0 does not listen."""
    answers(monkeypatch, *found)
    assert resolve_target(load("", {"TARGET_ADDR": "name:80"})) == taken


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
def test_a_name_that_cannot_be_resolved_is_told(load: Load, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The start would end in a traceback."""

    def look_up(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module.socket, "getaddrinfo", look_up)
    with pytest.raises(RelayError) as caught:
        resolve_target(load("", {"TARGET_ADDR": "name:80"}))
    assert caught.value.exit_status == 78
    assert str(caught.value).startswith("environment: TARGET_ADDR: expected a host that can be resolved, found name: ")


@pytest.mark.parametrize(
    ("host", "port", "address", "own"),
    [
        ("127.0.0.1", 15002, "", True),
        ("127.1.2.3", 15006, "", True),
        ("10.0.0.5", 15002, "", True),
        ("0.0.0.0", 15002, "", True),
        ("::", 15002, "", True),
        ("::1", 15002, "", True),
        ("fe80::1%2", 15002, "", True),
        ("127.0.0.1", 15003, "", False),
        ("10.0.0.6", 15002, "", False),
        ("127.0.0.1", 15002, "127.0.0.1", True),
        ("127.0.0.1", 15002, "0.0.0.0", True),
        ("127.0.0.2", 15002, "127.0.0.1", False),
    ],
)
def test_the_relay_itself_is_no_target(load: Load, host: str, port: int, address: str, own: bool) -> None:
    """Seed error 5: the relay would connect to itself until no descriptor is left."""
    listeners = "".join(
        f'[[listener]]\nname = "{name}"\ndirection = "outbound"\nport = {number}\ncapture = "none"\naddress = "{address}"\n'
        for name, number in (("a", 15002), ("b", 15006))
    )
    config = load(listeners, {"TARGET_ADDR": "x:1"})
    if own:
        with pytest.raises(RelayError, match="expected another place than this relay") as caught:
            refuse_own_listener(config, (host, port), OWN)
        assert caught.value.exit_status == 78
    else:
        refuse_own_listener(config, (host, port), OWN)
