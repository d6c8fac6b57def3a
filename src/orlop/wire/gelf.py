"""Graylog's extended log format: JSON, for UDP compressed and cut into chunks, for TCP ended by a NUL.

Spec: GELF payload specification 1.1, "Chunking".
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

__all__ = ["chunks", "compress", "encode"]

_MAGIC = b"\x1e\x0f"
CHUNK_BYTES = 1420
MAX_CHUNKS = 128
_ID_BYTES = 8
_GZIP, _ZLIB = 31, 15
_NANO = 1_000_000_000


def encode(host: str, text: bytes, time_ns: int, level: int, extra: Mapping[str, str]) -> bytes:
    """One message; names of `extra` get their underscore here."""
    message: dict[str, str | float | int] = {
        "version": "1.1",
        "host": host,
        "short_message": text.decode("utf-8", "replace"),
        "timestamp": time_ns // 1_000_000 / 1000,
        "level": level,
    }
    return json.dumps(
        message | {f"_{name}": value for name, value in extra.items()}, ensure_ascii=False
    ).encode()


def compress(data: bytes, kind: str, level: int) -> bytes:
    """`gzip`, `zlib` or `none`."""
    if kind == "none":
        return data
    packer = zlib.compressobj(level, zlib.DEFLATED, _GZIP if kind == "gzip" else _ZLIB)
    return packer.compress(data) + packer.flush()


def chunks(data: bytes, message_id: bytes) -> list[bytes]:
    """The datagrams of a message.

    Raises:
        ValueError: it takes more than 128 of them.
    """
    if len(data) <= CHUNK_BYTES:
        return [data]
    room = CHUNK_BYTES - len(_MAGIC) - _ID_BYTES - 2
    pieces = [data[start : start + room] for start in range(0, len(data), room)]
    if len(pieces) > MAX_CHUNKS:
        raise ValueError(f"a GELF message of {len(data)} bytes does not fit in {MAX_CHUNKS} datagrams")
    return [
        _MAGIC + message_id[:_ID_BYTES] + bytes([number, len(pieces)]) + piece
        for number, piece in enumerate(pieces)
    ]
