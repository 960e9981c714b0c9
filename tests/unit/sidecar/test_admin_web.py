"""sidecar.admin.web: as much HTTP as a scraper and a kubelet need, and no more."""

import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.admin.web import Page, Web, open_endpoint
from sidecar.config import Endpoint
from sidecar.errors import RelayError

FAULTS: list[Exception] = []


def broken() -> Page:
    raise ZeroDivisionError


WEB = Web({"/ready": lambda: Page("ready\n"), "/late": lambda: Page("late\n", 503), "/broken": broken}, FAULTS.append)


def status(request: bytes) -> int:
    head, _, body = WEB.answer(request).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines[1:])
    assert int(headers["Content-Length"]) == len(body)
    assert headers["Connection"] == "close"
    return int(lines[0].split(" ")[1])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET /ready HTTP/1.1", 200),
        ("GET /ready HTTP/1.0", 200),
        ("GET /ready?x=1 HTTP/1.1", 200),
        ("GET /late HTTP/1.1", 503),
        ("GET / HTTP/1.1", 404),
        ("GET /ready/../etc/passwd HTTP/1.1", 404),
        ("POST /ready HTTP/1.1", 405),
        ("HEAD /ready HTTP/1.1", 405),
        ("DELETE /nothing HTTP/1.1", 405),
        ("GET /ready HTTP/2.0", 505),
        ("GET /ready", 400),
        ("GET  /ready HTTP/1.1", 400),
        ("", 400),
        ("\x16\x03\x01", 400),
    ],
)
def test_each_request_has_its_status(line: str, expected: int) -> None:
    """A probe would be misled, or a method that changes things would be taken."""
    assert status(f"{line}\r\nHost: x\r\n\r\n".encode()) == expected


def test_405_says_what_is_allowed_and_404_what_there_is() -> None:
    """A user would have to guess the path."""
    assert b"\r\nAllow: GET\r\n" in WEB.answer(b"PUT /ready HTTP/1.1\r\n\r\n")
    assert WEB.answer(b"GET / HTTP/1.1\r\n\r\n").endswith(b"expected one of /ready, /late, /broken\n")


def test_a_fault_of_ours_is_500_and_told() -> None:
    """A mistake in a metric would end the relay, and every connection with it."""
    FAULTS.clear()
    assert status(b"GET /broken HTTP/1.1\r\n\r\n") == 500
    assert [type(fault) for fault in FAULTS] == [ZeroDivisionError]


@given(st.binary(max_size=200))
@example(b"GET \xff HTTP/1.1\r\n\r\n")
def test_any_bytes_have_an_answer(request: bytes) -> None:
    """Garbage on the health port, which is open to all, would end the relay."""
    assert status(request) in (200, 400, 404, 405, 500, 503, 505)
    WEB.is_whole(request)
    assert WEB.too_long().startswith(b"HTTP/1.1 431 ")


def test_a_request_is_whole_with_its_empty_line() -> None:
    """The answer would come before the request, or never to a client that sends bare newlines."""
    assert not WEB.is_whole(b"GET / HTTP/1.1\r\nHost: x\r\n")
    assert WEB.is_whole(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert WEB.is_whole(b"GET / HTTP/1.1\n\n")


def test_the_ipv6_wildcard_takes_both_families() -> None:
    """The kubelet could not probe a pod over IPv4."""
    with open_endpoint("admin.health", Endpoint("::", 0)) as sock:
        port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()


def test_without_ipv6_the_wildcard_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default health port would not open on a kernel without IPv6."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with open_endpoint("admin.health", Endpoint("::", 0)) as sock:
        assert sock.family == socket.AF_INET


def test_a_port_that_is_taken_is_told() -> None:
    """Two relays would share one metrics port, and each scrape would show either."""
    with open_endpoint("admin.metrics", Endpoint("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(
            RelayError, match=f"admin.metrics: expected to listen on 127.0.0.1:{port}, found Address already in use"
        ):
            open_endpoint("admin.metrics", Endpoint("127.0.0.1", port))
