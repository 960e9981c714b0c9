"""Metrics and health over HTTP: GET, a fixed set of pages, one request per connection.

Owns: as much of HTTP/1.1 (RFC 9112) as a scraper and a kubelet use, and its listening sockets until a Service takes them.
Never here: a method that changes anything, a request body, a file, a path that a client could make up.
"""

import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sidecar.admin.service import MOST_CLIENTS
from sidecar.config import Endpoint
from sidecar.config.network_kinds import family_of
from sidecar.holders import explained

PLAIN = "text/plain; charset=utf-8"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class Page(NamedTuple):
    """What a path answers."""

    body: str
    status: int = 200
    content_type: str = PLAIN


class Web:
    """The dialect of a Service that serves pages."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]], failed: Callable[[Exception], None]) -> None:
        """`failed` is told of a page that raised: a fault of ours, which must not end the relay."""
        self._pages = pages
        self._failed = failed

    def welcomes(self, client: socket.socket) -> bool:
        """Everyone who can connect."""
        return True

    def is_whole(self, request: bytes) -> bool:
        """The header has ended; a body is not read, since no method that is served has one."""
        return b"\r\n\r\n" in request or b"\n\n" in request

    def too_long(self) -> bytes:
        """431."""
        return _response(Page("the request is too long\n", 431))

    def answer(self, request: bytes) -> bytes:
        """The page, or what is wrong with the request."""
        line = request.split(b"\n", 1)[0].rstrip(b"\r").decode("latin-1")
        method, target, version = (*line.split(" "), "", "")[:3]
        if line.count(" ") != 2 or not version.startswith("HTTP/"):
            return _response(Page("expected GET /path HTTP/1.1\n", 400))
        if not version.startswith("HTTP/1."):
            return _response(Page("expected HTTP/1.1 or HTTP/1.0\n", 505))
        if method != "GET":
            return _response(Page("expected GET\n", 405), "Allow: GET\r\n")
        page = self._pages.get(target.partition("?")[0])
        if not page:
            return _response(Page(f"expected one of {', '.join(self._pages)}\n", 404))
        try:
            return _response(page())
        except Exception as error:  # whatever it is, the answer is 500 and the relay goes on
            self._failed(error)
            return _response(Page("the page could not be made; see the relay's log\n", 500))


def _response(page: Page, headers: str = "") -> bytes:
    body = page.body.encode()
    head = (
        f"HTTP/1.1 {page.status} {REASONS[page.status]}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n{headers}\r\n"
    )
    return head.encode("latin-1") + body


def open_endpoint(where: str, endpoint: Endpoint) -> socket.socket:
    """A socket that listens there, without SO_REUSEPORT: two relays must not share it. RelayError when it cannot be had."""
    host, family = endpoint.host, family_of(endpoint.host) or socket.AF_INET
    if host == "::" and not socket.has_dualstack_ipv6():
        host, family = "0.0.0.0", socket.AF_INET
    with explained(where, str(endpoint), endpoint.port):
        return socket.create_server((host, endpoint.port), family=family, backlog=MOST_CLIENTS, dualstack_ipv6=host == "::")
