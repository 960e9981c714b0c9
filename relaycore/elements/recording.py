"""Recordings of flows: a file of records, each with a checksum, that is appended to and read up to where it is whole.

    with Reader("flows.rec") as reader:
        for record in reader:
            print(record.flow, record.kind, len(record.payload))
    if reader.state is not State.WHOLE:
        print(f"nothing can be read from byte {reader.end} on: {reader.state.value}")

The format is described in docs/recording.md.

Owns: the bytes of the file, its reader and its writer. Never here: which flows are recorded (record.py), a socket.
"""

import fcntl
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import BinaryIO, NamedTuple

MAGIC = b"RELAYREC"
VERSION = 1
HEADER = MAGIC + struct.pack(">I", VERSION)
HEAD = struct.Struct(">IIQQBBH")  # CRC, length of the payload, flow, microseconds, kind, half, zero
CRC_SIZE = 4
LARGEST = 16 << 20  # of a payload
BUFFER = 64 << 10  # a writer with more than this writes

CUT = b"cut"  # the reason in the close record of a flow that went on without being recorded


class Kind(IntEnum):
    """What a record says."""

    OPEN = 1  # a flow has begun; the payload is an Opening
    BYTES = 2  # the payload went this way
    END = 3  # nothing more comes this way
    CLOSE = 4  # the flow is over; the payload is the reason


class State(Enum):
    """How a recording ends."""

    WHOLE = "whole"
    TORN = "torn"  # in the middle of a record: what wrote it was interrupted
    DAMAGED = "damaged"  # a record is not what was written


class NotARecording(ValueError):
    """The file is something else, or of a version that is not known here."""


class Record(NamedTuple):
    """One of the records of a flow."""

    kind: Kind
    flow: int
    half: int = 0  # 0: from client to origin, 1: from origin to client
    at: int = 0  # microseconds since the flow began
    payload: bytes = b""

    def packed(self) -> bytes:
        """As the file has it."""
        if len(self.payload) > LARGEST:
            raise ValueError(f"expected a payload of at most {LARGEST} bytes, found {len(self.payload)}")
        head = HEAD.pack(0, len(self.payload), self.flow, self.at, self.kind, self.half, 0)[CRC_SIZE:]
        return zlib.crc32(self.payload, zlib.crc32(head)).to_bytes(CRC_SIZE, "big") + head + self.payload


class Opening(NamedTuple):
    """What the open record of a flow says of it."""

    wall_us: int  # when it began, in microseconds since 1970
    listener: str
    client: str
    origin: str

    def packed(self) -> bytes:
        """As the payload has it."""
        texts = [text.encode() for text in (self.listener, self.client, self.origin)]
        return struct.pack(">Q", self.wall_us) + b"".join(struct.pack(">H", len(text)) + text for text in texts)

    @classmethod
    def of(cls, payload: bytes) -> "Opening":
        """From a payload."""
        try:
            (wall_us,) = struct.unpack_from(">Q", payload)
            texts, place = [], 8
            for _ in range(3):
                (size,) = struct.unpack_from(">H", payload, place)
                texts.append(payload[place + 2 : place + 2 + size].decode())
                place += 2 + size
        except (struct.error, UnicodeDecodeError) as error:
            raise NotARecording(f"an open record cannot be read: {error}") from None
        return cls(wall_us, *texts)


class Reader:
    """The records of a file, in order, as far as they are whole. `state` and `end` say how that ended, once it has."""

    def __init__(self, file: str | BinaryIO, begin: int = 0) -> None:
        """`begin`: where a record begins that is to be the first one, or 0 for the first of all."""
        self.state = State.WHOLE
        self.end = 0  # behind the last whole record: there appending goes on
        self._file = open(file, "rb") if isinstance(file, str) else file  # noqa: SIM115 - close() is there for it
        try:
            self._file.seek(0)
            self._header()
            if begin and self.end:
                self.end = self._file.seek(begin)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[Record]:
        while self.state is State.WHOLE:
            record = self._record()
            if record is None:
                return
            yield record

    def _header(self) -> None:
        found = self._file.read(len(HEADER))
        if found == HEADER:
            self.end = len(HEADER)
        elif HEADER.startswith(found):
            self.state = State.TORN if found else State.WHOLE
        elif found.startswith(MAGIC):
            raise NotARecording(f"expected version {VERSION}, found {int.from_bytes(found[len(MAGIC) :], 'big')}")
        else:
            raise NotARecording("the file does not begin as a recording does")

    def _record(self) -> Record | None:
        head = self._file.read(HEAD.size)
        if len(head) < HEAD.size:
            self.state = State.TORN if head else State.WHOLE
            return None
        crc, size, flow, at, kind, half, zero = HEAD.unpack(head)
        if size > LARGEST:
            self.state = State.DAMAGED
            return None
        payload = self._file.read(size)
        if len(payload) < size:
            self.state = State.TORN
            return None
        known = kind in (1, 2, 3, 4) and half in (0, 1) and zero == 0
        if not known or zlib.crc32(payload, zlib.crc32(head[CRC_SIZE:])) != crc:
            self.state = State.DAMAGED
            return None
        self.end += HEAD.size + size
        return Record(Kind(kind), flow, half, at, payload)


class Known(NamedTuple):
    """What a look at a file has found: where its whole records end, and the highest number of a flow."""

    end: int = 0
    flows: int = 0


NOTHING = Known()


def look(file: str | BinaryIO, known: Known = NOTHING) -> Known:
    """The same of a file, from where an earlier look ended."""
    with Reader(file, known.end) as reader:
        flows = max((record.flow for record in reader), default=0)
        return Known(reader.end, max(known.flows, flows))


class Writer:
    """Appends to a file that nobody else appends to meanwhile. What cannot be read at its end is cut off first.

    Records are kept until there are BUFFER bytes, or flush(). An OSError of either leaves whole records in the file, and ends
    the writer: the records that were kept are lost.
    """

    def __init__(self, path: str, known: Known = NOTHING) -> None:
        """`known`: from a look at the file, so that its beginning is not read again. BlockingIOError: somebody else appends."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd = -1
        self._kept = bytearray()
        self._fd = os.open(path, flags, 0o600)
        try:
            self._begin(known)
        except BaseException:
            self._drop()
            raise

    def __del__(self) -> None:
        self._drop()

    def _begin(self, known: Known) -> None:
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotARecording("expected a regular file")
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = look(os.fdopen(os.dup(self._fd), "rb"), known if known.end <= os.fstat(self._fd).st_size else NOTHING)
        os.fchmod(self._fd, 0o600)
        os.ftruncate(self._fd, found.end)
        self.flows = found.flows  # the highest number of a flow
        self._whole = found.end  # bytes in the file
        if not found.end:
            self._kept += HEADER
            self.flush()

    @property
    def size(self) -> int:
        """Bytes of the file, with those that are kept."""
        return self._whole + len(self._kept)

    def is_at(self, path: str) -> bool:
        """Whether this is the file's name still."""
        try:
            return self._fd >= 0 and os.path.samestat(os.stat(path), os.fstat(self._fd))
        except OSError:
            return False

    def write(self, packed: bytes) -> None:
        """Append a record, packed."""
        self._kept += packed
        if len(self._kept) > BUFFER:
            self.flush()

    def flush(self) -> None:
        """Bring what is kept into the file."""
        if self._fd < 0:
            raise OSError("the writer is closed")
        try:
            while self._kept:
                del self._kept[: os.write(self._fd, self._kept)]
        except OSError:
            os.ftruncate(self._fd, self._whole)
            self._drop()
            raise
        self._whole = os.fstat(self._fd).st_size

    def close(self) -> None:
        """Flush, and close the file."""
        try:
            if self._fd >= 0:
                self.flush()
        finally:
            self._drop()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop(self) -> None:
        self._kept.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
