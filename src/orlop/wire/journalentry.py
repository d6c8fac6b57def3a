"""An entry of systemd's journal, as its native protocol carries it in one datagram or one memfd.

Spec: systemd, "Native Journal Protocol".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

__all__ = ["encode_entry", "field_name"]

_NAME_LIMIT = 64
_BAD = re.compile(r"[^A-Z0-9]")


def encode_entry(fields: Mapping[str, bytes]) -> bytes:
    """Fields in their order; a value with a newline (or that is not plain) carries its length."""
    parts: list[bytes] = []
    for name, value in fields.items():
        if b"\n" in value:
            parts += [name.encode("ascii"), b"\n", struct.pack("<Q", len(value)), value, b"\n"]
        else:
            parts += [name.encode("ascii"), b"=", value, b"\n"]
    return b"".join(parts)


def field_name(name: str) -> str:
    """A name as the journal allows it: capitals, digits, no underscore in front; "" when nothing is left."""
    return _BAD.sub("_", name.upper()).lstrip("_0123456789")[:_NAME_LIMIT]
