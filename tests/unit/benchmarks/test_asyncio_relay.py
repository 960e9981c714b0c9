"""benchmarks.asyncio_relay: the relay that an element of ours is measured against asks the same element, about every piece."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from benchmarks.asyncio_relay import copy, element_class
from benchmarks.compiled_pass import CompiledPass
from benchmarks.pass_through import PassThrough, Released
from benchmarks.peers import ELEMENTS
from relaycore.element import RELEASE, Answer
from relaycore.testing import Drive


async def _carried(pieces: list[bytes], ask: Callable[[bytes], Answer] | None) -> bytes:
    """What comes out of copy(), of a source that sends these."""
    near, source = socket.socketpair()
    sink, far = socket.socketpair()
    reader, _ = await asyncio.open_connection(sock=source)
    _, writer = await asyncio.open_connection(sock=sink)
    received, far_writer = await asyncio.open_connection(sock=far)
    sent, near_writer = await asyncio.open_connection(sock=near)
    running = asyncio.ensure_future(copy(reader, writer, ask))
    for piece in pieces:
        near_writer.write(piece)
    near_writer.write_eof()
    found = await received.read()
    await running
    assert not sent.at_eof()
    for each in (writer, far_writer, near_writer):
        each.close()
    return found


@pytest.mark.parametrize("asked", [False, True])
def test_bytes_pass_with_an_element_and_without(asked: bool) -> None:
    """The figures would be those of a relay that asks nobody, or of one that loses bytes."""
    seen = bytearray()
    element = element_class("PassThrough")(None, None)

    def ask(data: bytes) -> Answer:
        seen.extend(data)
        answer: Answer = element.request(data)
        return answer

    data = bytes(range(256)) * 1000
    assert asyncio.run(_carried([data, data[:7]], ask if asked else None)) == data + data[:7]
    assert bytes(seen) == (data + data[:7] if asked else b"")


def test_the_elements_are_what_the_names_of_the_peers_say() -> None:
    """An element that changed or kept bytes would be measured as one that does nothing."""
    assert element_class(ELEMENTS["element"].removeprefix("pass_through:")) is PassThrough
    assert element_class(ELEMENTS["released"].removeprefix("pass_through:")) is Released
    drive = Drive(CompiledPass)
    assert (drive.request(b"abc"), drive.response(b"def"), drive.released) == (b"abc", b"def", False)
    passes, leaves = PassThrough(None, None), Released(None, None)  # type: ignore[arg-type]
    data = b"abc"
    assert passes.request(data) is data is passes.response(data)
    assert leaves.request(data) is RELEASE is leaves.response(data)
