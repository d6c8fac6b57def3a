r"""The record of a container's log: one frame per read, kept exactly as read.

    offset size
    0      4    magic 9f 4f 4c 31 ("\x9fOL1")
    4      1    stream: 1 stdout, 2 stderr, 3 a note of ours (text, for example of lost output)
    5      1    flags, 0
    6      2    reserved, 0
    8      4    length of the data, at most 1 MiB
    12     8    time, nanoseconds since the epoch
    20     8    sequence number, counts up by one over all files of a log
    28     4    CRC-32 of bytes 0..28 and the data
    32     n    data
    32+n   4    n + 36: the size of this frame, for reading backwards

Little endian. A frame is written by one call and never changed. A frame torn by a crash or
a full disk fails its CRC or its magic; `find_frame` finds the next good one.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MAX_DATA_BYTES",
    "NOTE",
    "OVERHEAD_BYTES",
    "TRAILER_BYTES",
    "Frame",
    "decode",
    "encode_around",
    "find_frame",
    "size_from_trailer",
]

MAGIC = b"\x9fOL1"
HEADER_BYTES = 32
TRAILER_BYTES = 4
OVERHEAD_BYTES = HEADER_BYTES + TRAILER_BYTES
MAX_DATA_BYTES = 1 << 20
NOTE = 3

_HEAD = struct.Struct("<4sBBHIQQ")
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame; `size_bytes` is what it takes in the file."""

    stream: int
    time_ns: int
    sequence: int
    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data) + OVERHEAD_BYTES


def encode_around(stream: int, time_ns: int, sequence: int, data: bytes | memoryview) -> tuple[bytes, bytes]:
    """The bytes before and after `data`, so that the data itself is not copied."""
    head = _HEAD.pack(MAGIC, stream, 0, 0, len(data), time_ns, sequence)
    crc = zlib.crc32(data, zlib.crc32(head))
    return head + _U32.pack(crc), _U32.pack(len(data) + OVERHEAD_BYTES)


def decode(buffer: bytes | memoryview, offset: int = 0) -> Frame | int:
    """The frame at `offset`; or how many bytes from `offset` it needs; or 0 when none starts there."""
    available = len(buffer) - offset
    if available < HEADER_BYTES:
        return HEADER_BYTES if bytes(buffer[offset : offset + 4]) == MAGIC[: min(4, available)] else 0
    magic, stream, flags, reserved, length, time_ns, sequence = _HEAD.unpack_from(buffer, offset)
    if magic != MAGIC or flags or reserved or length > MAX_DATA_BYTES or stream not in {1, 2, NOTE}:
        return 0
    size = length + OVERHEAD_BYTES
    if available < size:
        return int(size)
    end = offset + HEADER_BYTES + length
    (crc,) = _U32.unpack_from(buffer, offset + 28)
    (trailer,) = _U32.unpack_from(buffer, end)
    if trailer != size:
        return 0
    data = bytes(buffer[offset + HEADER_BYTES : end])
    if crc != zlib.crc32(data, zlib.crc32(buffer[offset : offset + 28])):
        return 0
    return Frame(stream, time_ns, sequence, data)


def find_frame(buffer: bytes, offset: int) -> int:
    """Where the next magic starts at or after `offset` (perhaps cut off by the end), or the buffer's end."""
    found = buffer.find(MAGIC, offset)
    if found >= 0:
        return found
    for cut in (3, 2, 1):
        start = len(buffer) - cut
        if start >= offset and buffer.endswith(MAGIC[:cut]):
            return start
    return len(buffer)


def size_from_trailer(trailer: bytes) -> int:
    """The size of the frame that ends with these four bytes, or 0 when they cannot end one."""
    (size,) = _U32.unpack(trailer)
    return int(size) if OVERHEAD_BYTES <= size <= MAX_DATA_BYTES + OVERHEAD_BYTES else 0
