"""Docker's multiplexed stream: stdout and stderr in one connection.

A frame is `[stream, 0, 0, 0, length as 4 bytes big endian]` and the data. Streams: 0 stdin,
1 stdout, 2 stderr, 3 system error (the text of an error that ends the stream).
Spec: Docker Engine API, ContainerAttach, "Stream format".
"""

from __future__ import annotations

import struct

__all__ = ["STDERR", "STDIN", "STDOUT", "SYSTEM_ERROR", "FrameDecoder", "StreamInvalid", "frame", "header"]

STDIN = 0
STDOUT = 1
STDERR = 2
SYSTEM_ERROR = 3
HEADER_BYTES = 8
MAX_FRAME_BYTES = 16 << 20

_HEADER = struct.Struct(">BxxxI")


class StreamInvalid(ValueError):
    """The bytes are not frames of this format."""


def header(stream: int, length: int) -> bytes:
    """The eight bytes in front of `length` bytes of `stream`."""
    return _HEADER.pack(stream, length)


def frame(stream: int, data: bytes) -> bytes:
    """One whole frame."""
    return _HEADER.pack(stream, len(data)) + data


class FrameDecoder:
    """Turns received bytes into (stream, data) pairs, whatever the size of the pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames completed by `data`.

        Raises:
            StreamInvalid: unknown stream, non-zero padding or a frame beyond 16 MiB.
        """
        self._buffer += data
        frames = []
        offset = 0
        while len(self._buffer) - offset >= HEADER_BYTES:
            stream, length = _HEADER.unpack_from(self._buffer, offset)
            if (
                stream > SYSTEM_ERROR
                or any(self._buffer[offset + 1 : offset + 4])
                or length > MAX_FRAME_BYTES
            ):
                raise StreamInvalid(f"not a frame header: {bytes(self._buffer[offset : offset + 8]).hex()}")
            end = offset + HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            frames.append((stream, bytes(self._buffer[offset + HEADER_BYTES : end])))
            offset = end
        del self._buffer[:offset]
        return frames

    @property
    def is_at_border(self) -> bool:
        """True when no frame is half received: the stream may end here."""
        return not self._buffer
