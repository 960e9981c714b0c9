"""Byte streams that are known beforehand, sent and received in pieces of any size, compared by hash.

Owns: the streams. Their bytes depend on a seed and on the position alone, so the receiver needs nothing from the sender, and a
lost, repeated or exchanged byte changes the hash.
"""

import hashlib
import random
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MIB = 1 << 20
GIB = 1 << 30

# The block repeats, its number is stamped into it: as good as random bytes for what a relay can do wrong, at memcpy's speed.
_BLOCK = 4 * MIB
_LARGEST_CHUNK = 256 * 1024


class Stream:
    """`length` bytes that follow from `seed`."""

    def __init__(self, seed: int, length: int) -> None:
        self.seed = seed
        self.length = length

    def _blocks(self) -> Iterator[memoryview]:
        block = bytearray(random.Random(self.seed).randbytes(min(_BLOCK, max(self.length, 8))))
        for number, start in enumerate(range(0, self.length, _BLOCK)):
            struct.pack_into("<Q", block, 0, number)
            yield memoryview(block)[: min(_BLOCK, self.length - start)]

    def digest(self) -> str:
        digest = hashlib.sha256()
        for block in self._blocks():
            digest.update(block)
        return digest.hexdigest()

    def bytes(self) -> bytes:
        return b"".join(bytes(block) for block in self._blocks())

    def send(self, sock: socket.socket) -> None:
        """All of it, in random chunks, and a FIN."""
        chunks = random.Random(self.seed + 1)
        for block in self._blocks():
            position = 0
            while position < len(block):
                size = chunks.randint(1, _LARGEST_CHUNK)
                sock.sendall(block[position : position + size])
                position += size
        sock.shutdown(socket.SHUT_WR)

    def receive(self, sock: socket.socket) -> None:
        """All of it and the FIN, in random chunks."""
        chunks = random.Random(self.seed + 2)
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_LARGEST_CHUNK))
        count = 0
        while size := sock.recv_into(buffer[: chunks.randint(1, _LARGEST_CHUNK)]):
            digest.update(buffer[:size])
            count += size
        assert count == self.length, f"{count} of {self.length} bytes arrived"
        assert digest.hexdigest() == self.digest(), f"the bytes of seed {self.seed} were changed on the way"


def exchange(client: socket.socket, origin: socket.socket, sent: Stream, received: Stream) -> None:
    """Both ways at once, each ended by its FIN, every byte in its place."""
    together(
        lambda: sent.send(client),
        lambda: received.send(origin),
        lambda: sent.receive(origin),
        lambda: received.receive(client),
    )


def together(*parts: Callable[[], Any]) -> list[Any]:
    """Each part in a thread of its own, until all have ended; what they returned, or the first error."""
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        return [future.result() for future in [pool.submit(part) for part in parts]]


def same(received: bytes, expected: bytes) -> None:
    """Compared without showing megabytes: how many there are, and which is the first that differs."""
    if received != expected:
        pairs = zip(received, expected, strict=False)
        first = next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(received), len(expected)))
        raise AssertionError(f"{len(received)} of {len(expected)} bytes; the first that differs is number {first}")
