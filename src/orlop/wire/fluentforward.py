"""The forward protocol of fluentd, one message at a time, in as much of MessagePack as it takes.

Spec: Fluentd forward protocol v1, "Message Mode", "EventTime"; MessagePack specification.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

__all__ = ["forward_message", "pack", "pack_event_time"]

_NANO = 1_000_000_000
_FIX_STR, _FIX_MAP, _FIX_INT = 32, 16, 128

Packable = str | bytes | int | bool | Mapping[str, "Packable"] | None


def forward_message(
    tag: str, time_ns: int, record: Mapping[str, Packable], *, has_nanoseconds: bool, chunk: str = ""
) -> bytes:
    """`[tag, time, record]`, with the option that asks for an acknowledgement when there is a chunk id."""
    when = pack_event_time(time_ns) if has_nanoseconds else pack(time_ns // _NANO)
    parts = [pack(tag), when, pack(record)]
    if chunk:
        parts.append(pack({"chunk": chunk}))
    return bytes([0x90 | len(parts)]) + b"".join(parts)


def pack_event_time(time_ns: int) -> bytes:
    """Extension type 0: seconds and nanoseconds."""
    return b"\xd7\x00" + struct.pack(">II", time_ns // _NANO & 0xFFFFFFFF, time_ns % _NANO)


def pack(value: Packable) -> bytes:
    """A value; bytes go out as a string, as they are: what a container writes has no promised encoding."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _pack_int(value)
        case str():
            return _pack_text(value.encode("utf-8", "replace"))
        case bytes():
            return _pack_text(value)
        case _:
            size = len(value)
            head = bytes([0x80 | size]) if size < _FIX_MAP else b"\xde" + struct.pack(">H", size)
            return head + b"".join(pack(key) + pack(item) for key, item in value.items())


def _pack_int(value: int) -> bytes:
    if 0 <= value < _FIX_INT:
        return bytes([value])
    return (b"\xcf" + struct.pack(">Q", value)) if value >= 0 else (b"\xd3" + struct.pack(">q", value))


def _pack_text(data: bytes) -> bytes:
    size = len(data)
    if size < _FIX_STR:
        return bytes([0xA0 | size]) + data
    if size < 1 << 8:
        return b"\xd9" + bytes([size]) + data
    if size < 1 << 16:
        return b"\xda" + struct.pack(">H", size) + data
    return b"\xdb" + struct.pack(">I", size) + data
