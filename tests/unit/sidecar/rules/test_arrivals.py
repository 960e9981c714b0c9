"""sidecar.rules.arrivals: who has taken a connection."""

import os
import socket

import pytest

from sidecar.rules.arrivals import GONE, OTHER, QUEUED, RELAY, name_of, origin_of, taker

NO_PORT, NO_USER = 1, 4_000_000_000


@pytest.mark.parametrize(
    ("listens", "dials"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")], ids=["v4", "v6", "v4 on v6"]
)
def test_the_taker_is_known_by_port_or_user(listens: str, dials: str) -> None:
    """The probe would take the app for the relay, or the relay for the app."""
    dual = listens == "::"
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with socket.create_server((listens, 0), family=family, dualstack_ipv6=dual) as server:
        port = server.getsockname()[1]
        own_port = ("::" if ":" in dials else "", 0)  # shared with no connection of another test
        with socket.create_connection((dials, port), source_address=own_port) as client:
            name = name_of(client.getsockname())
            assert taker(name, NO_PORT, os.geteuid()) == QUEUED
            assert taker(name, port, NO_USER) == RELAY, "by its port"
            accepted, _ = server.accept()
            with accepted:
                assert name_of(accepted.getpeername()) == name
                assert taker(name, NO_PORT, os.geteuid()) == RELAY, "by its user"
                assert taker(name, NO_PORT, NO_USER) == OTHER
        assert taker((dials, 1), NO_PORT, NO_USER) == GONE


def test_what_was_not_redirected_has_no_origin() -> None:
    """A connection straight to the relay's port would pass for a captured one."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        accepted, _ = server.accept()
        with accepted:
            assert origin_of(accepted, "redirect") in (None, server.getsockname())
            assert origin_of(accepted, "tproxy") == server.getsockname()
