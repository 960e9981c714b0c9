"""ClientHellos as OpenSSL writes them. Owns: nothing. Never here: a handshake that goes on."""

import contextlib
import ssl


def hello(name: str | None) -> bytes:
    """The first flight of a client that asks for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def in_records(flight: bytes, size: int) -> bytes:
    """The same message in records of so many bytes."""
    message = flight[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def _evasive() -> dict[str, bytes]:
    flight = hello("www.example.org")
    message = flight[9:]
    empty = b"\x16\x03\x01\0\0"
    halves = [in_records(flight[:5] + part, 16384) for part in (flight[5:60], flight[60:])]
    at = 34 + 1 + message[34]  # the length of the cipher suites
    after = at + 2 + int.from_bytes(message[at : at + 2], "big")
    suites = (message[at + 2 : after] + b"\x7a\x7a" * 0x7FFF)[:0xFFFE]
    large = message[:at] + len(suites).to_bytes(2, "big") + suites + message[after:]
    return {
        "an empty record first": empty + flight,
        "an empty record within": empty.join(halves),
        "more than 64 KiB of cipher suites": in_records(b"12345\x01" + len(large).to_bytes(3, "big") + large, 16384),
        "a name that DNS would not have": flight.replace(b"www.example", b"w!w.exampl~"),
    }


EVASIVE = _evasive()
"""www.example.org, or nearly, as those write it who mean to be misread: OpenSSL takes it."""


def read_by_openssl(flight: bytes) -> list[object]:
    """The names that a server of OpenSSL finds in it."""
    names: list[object] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _, name, __: names.append(name)
    received = ssl.MemoryBIO()
    received.write(flight)
    server = context.wrap_bio(received, ssl.MemoryBIO(), server_side=True)
    with contextlib.suppress(ssl.SSLError):
        server.do_handshake()  # there is no certificate: that comes behind the name
    return names
