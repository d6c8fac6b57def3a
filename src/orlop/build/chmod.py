"""`--chmod` in symbols: `u+rwX,go-w` applied to a mode, as chmod(1) does with umask 0.

Spec: POSIX.1-2017 chmod, "Operation".
"""

from __future__ import annotations

import re

__all__ = ["apply_symbolic"]

_CLASSES = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_COPY = {"u": 6, "g": 3, "o": 0}


def apply_symbolic(text: str, mode: int, *, is_directory: bool) -> int:
    """The mode after all clauses of `text`, which has been checked before."""
    for clause in text.split(","):
        who = re.match(r"[ugoa]*", clause)
        assert who is not None
        named = "ugo" if not who[0] or "a" in who[0] else who[0]
        for operator, symbols in re.findall(r"([+=-])([rwxXstugo]*)", clause[who.end() :]):
            mode = _apply(mode, named, operator, symbols, is_directory=is_directory)
    return mode


def _apply(mode: int, who: str, operator: str, symbols: str, *, is_directory: bool) -> int:
    mask = 0
    for name in set(who):
        mask |= _CLASSES[name]
    bits = _bits(mode, who, symbols, is_directory=is_directory) & mask
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    kept = 0o6000 if is_directory else 0  # GNU: `=` leaves set-id bits of directories alone
    return (mode & ~(mask & ~kept)) | bits


def _bits(mode: int, who: str, symbols: str, *, is_directory: bool) -> int:
    if symbols in _COPY and symbols:
        value = mode >> _COPY[symbols] & 7
        return value << 6 | value << 3 | value
    bits = 0
    for symbol in symbols:
        if symbol == "r":
            bits |= 0o444
        elif symbol == "w":
            bits |= 0o222
        elif symbol == "x" or (symbol == "X" and (is_directory or mode & 0o111)):
            bits |= 0o111
        elif symbol == "s":
            bits |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
        elif symbol == "t":
            bits |= 0o1000
    return bits
