"""What a flow is about, in its access record: `sni` of TLS, `host` of HTTP/1. All passes at once; then the flow is released.

    use = "relaycore.elements.sniff:Sniff"

Owns: a copy of the first bytes of the client, at most `most`, until the name is known or cannot come any more.
Who may touch it: the chain. Never here: a byte held back, changed or logged; a look at responses.
"""

import re
from typing import Any

from relaycore.element import RELEASE, Answer, Element, Flow, Options
from relaycore.elements.hello import Hello

METHOD = re.compile(rb"[A-Z]{1,16}")
REQUEST_LINE = re.compile(rb"[A-Z]{1,16} (\S+) HTTP/1\.[01]")
AUTHORITY = re.compile(rb"[\x21-\x7e]{1,128}")  # as far as a label goes
MOST_LABEL = 128
LARGEST_TOKEN = 16


class Sniff(Element):
    """Labels the flow."""

    @classmethod
    def configure(cls, options: Options) -> int:
        """How many bytes of a client it looks at."""
        return options.size("most", 16 << 10)

    def __init__(self, flow: Flow, shared: Any) -> None:
        super().__init__(flow, shared)
        self._hello: Hello | None = Hello()
        self._head = b""
        self._seen = 0

    def request(self, data: bytes) -> Answer:
        """A copy is looked at; the bytes go on."""
        room = self.shared - self._seen
        self._seen += len(data)
        known = self._look(data[:room])
        return RELEASE if known or self._seen >= self.shared else data

    def request_ended(self, held: bytes) -> Answer:
        """Nothing more will tell."""
        return RELEASE

    def _look(self, data: bytes) -> bool:
        """Whether there is nothing more to find out."""
        if self._hello is not None:
            if not self._hello.feed(data):
                self._head += data  # if it turns out to be no TLS
                return False
            if self._hello.is_tls:
                if self._hello.name:
                    self.flow.label("sni", self._hello.name[:MOST_LABEL])
                return True
            self._hello = None
        searched = max(len(self._head) - 3, 0)
        self._head += data
        end = self._head.find(b"\r\n\r\n", searched)
        if end < 0:
            return not begins_like_http(self._head)
        host = host_of(self._head[:end])
        if host:
            self.flow.label("host", host)
        return True


def begins_like_http(head: bytes) -> bool:
    """Whether the first bytes may be those of a request of HTTP/1."""
    method, space, _ = head[: LARGEST_TOKEN + 1].partition(b" ")
    return METHOD.fullmatch(method) is not None and (bool(space) or len(head) <= LARGEST_TOKEN)


def host_of(head: bytes) -> str | None:
    """What the head of a request says of its host: the target if it is absolute, else the one Host header."""
    line, *headers = head.split(b"\r\n")
    request = REQUEST_LINE.fullmatch(line)
    if not request:
        return None
    hosts = [value.strip() for name, _, value in (header.partition(b":") for header in headers) if name.lower() == b"host"]
    if request[1].lower().startswith((b"http://", b"https://")):
        hosts = [request[1].split(b"/", 3)[2].rpartition(b"@")[2]]
    if len(hosts) != 1 or not AUTHORITY.fullmatch(hosts[0]):
        return None
    return hosts[0].decode("ascii").lower()
