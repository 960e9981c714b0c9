"""The server name in a TLS ClientHello, found in bytes as they come, however they are cut.

Owns: what RFC 8446 and RFC 6066 say of where the name stands. Who may touch it: sniff and access, one object per flow.
Never here: more memory than LARGEST, a look at anything behind the ClientHello.
"""

LARGEST = 2 + 32 + (1 + 32) + (2 + 0xFFFE) + (1 + 0xFF) + (2 + 0xFFFF)  # the room in its fields: servers take as much
HANDSHAKE = 22
CLIENT_HELLO = 1
SERVER_NAME = 0  # the extension, and the kind of name in it
LARGEST_RECORD = 1 << 14


class NotHello(ValueError):
    """Not a ClientHello, or a spoilt one."""


class Hello:
    """Give it what a client sends, until it is done."""

    def __init__(self) -> None:
        self.done = False
        self.name: str | None = None  # once it is done; None: no name, or no TLS
        self.is_tls = False  # once it is done
        self._stream = bytearray()  # of records, what is not looked at yet
        self._message = bytearray()  # what the records had in them

    def feed(self, data: bytes) -> bool:
        """The next bytes; whether it is done now."""
        if self.done:
            return True
        self._stream += data
        try:
            self._records()
            if not self._is_whole():
                return False
            self.name = server_name(bytes(self._message[4 : 4 + self._length()]))
            self.is_tls = True
        except NotHello:
            pass
        self.done = True
        self._stream.clear()
        self._message.clear()
        return True

    def _records(self) -> None:
        """Take every whole record off the stream. What cannot be the beginning of one is found out by its first bytes."""
        at = 0
        stream = self._stream
        while len(stream) > at:
            size = int.from_bytes(stream[at + 3 : at + 5], "big")
            if stream[at] != HANDSHAKE or stream[at + 1 : at + 2] not in (bytearray(), bytearray(b"\x03")):
                raise NotHello
            if len(stream) < at + 5:
                break
            if size > LARGEST_RECORD:
                raise NotHello
            if len(stream) < at + 5 + size:
                break
            self._message += stream[at + 5 : at + 5 + size]
            at += 5 + size
            # An empty record, which servers take before the message and within it, says nothing.
            if self._message and self._message[0] != CLIENT_HELLO:
                raise NotHello
            if self._is_whole():
                break
        del stream[:at]

    def _length(self) -> int:
        return int.from_bytes(self._message[1:4], "big")

    def _is_whole(self) -> bool:
        if len(self._message) >= 4 and self._length() > LARGEST:
            raise NotHello
        return len(self._message) >= 4 and len(self._message) >= 4 + self._length()


def server_name(body: bytes) -> str | None:
    """Of the body of a ClientHello."""
    at = 2 + 32  # version and random
    at = _behind(body, at, 1)  # session
    at = _behind(body, at, 2)  # cipher suites
    at = _behind(body, at, 1)  # compression
    if at == len(body):
        return None  # as before there were extensions
    end = _behind(body, at, 2)
    at += 2
    while at < end:
        kind = int.from_bytes(body[at : at + 2], "big")
        after = _behind(body, at + 2, 2)
        if after > end:
            raise NotHello
        if kind == SERVER_NAME:
            return _host_name(body[at + 4 : after])
        at = after
    return None


def _host_name(names: bytes) -> str | None:
    end = _behind(names, 0, 2)
    at = 2
    while at < end:
        after = _behind(names, at + 1, 2)
        if names[at] == SERVER_NAME:
            # Servers take names that DNS would not: who is to be told by the end of one is told.
            return names[at + 3 : after].decode("ascii", "backslashreplace").lower().rstrip(".") or None
        at = after
    return None


def _behind(data: bytes, at: int, size: int) -> int:
    """Where a part ends that begins with its length in so many bytes."""
    end = at + size + int.from_bytes(data[at : at + size], "big")
    if at + size > len(data) or end > len(data):
        raise NotHello
    return end
