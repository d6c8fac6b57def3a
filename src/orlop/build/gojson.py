"""JSON as Go's encoding/json writes it, for digests that must agree with BuildKit's.

Objects keep the order they are given in (Go: struct order), there is no blank, and five
characters are escaped that Python leaves alone.
"""

from __future__ import annotations

import json

__all__ = ["drop_empty", "dumps"]

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_TABLE = str.maketrans(_ESCAPES)


def dumps(value: object) -> bytes:
    """Encode; every one of the escaped characters can only stand inside a string."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.translate(_TABLE).replace("\x7f", "\x7f")
    return text.encode("utf-8", "replace")


def drop_empty(fields: dict[str, object]) -> dict[str, object]:
    """Go's `omitempty`: false, 0, "", null and empty lists vanish."""
    return {name: value for name, value in fields.items() if value or (isinstance(value, dict))}
