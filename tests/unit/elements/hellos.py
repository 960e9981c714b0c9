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
