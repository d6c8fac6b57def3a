"""Detach keys: the sequence that leaves an attached container without ending it. Pure."""

from __future__ import annotations

from orlop.base.errors import InvalidInput

__all__ = ["DEFAULT_DETACH_KEYS", "DetachFilter", "parse_detach_keys"]

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROLS = "@abcdefghijklmnopqrstuvwxyz[\\]^_"
_DELETE = 0x7F


def parse_detach_keys(text: str) -> bytes:
    """The bytes of `ctrl-p,ctrl-q` or `a,b,c`.

    Raises:
        InvalidInput: with dockerd's text.
    """
    out = bytearray()
    for word in text.split(","):
        if word.startswith("ctrl-") and len(word) == 6 and word[5] in _CONTROLS:
            out.append(_CONTROLS.index(word[5]))
        elif word == "DEL":
            out.append(_DELETE)
        elif len(word) == 1 and word.isascii():
            out += word.encode()
        else:
            raise InvalidInput(f"Invalid detach keys ({text[:100]}) provided")
    return bytes(out)


class DetachFilter:
    """Holds input back while it may be the sequence; use as the `input_filter` of a relay."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def __call__(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and True when the sequence was typed (later input is dropped)."""
        out = bytearray()
        for value in data:
            if value == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            if self._matched:  # not the sequence after all
                out += self._keys[: self._matched]
                self._matched = 0
                if value == self._keys[0]:
                    self._matched = 1
                    continue
            out.append(value)
        return bytes(out), False
