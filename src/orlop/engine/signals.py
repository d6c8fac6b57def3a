"""Signals by name and number, as `docker kill -s` takes them."""

from __future__ import annotations

import signal

from orlop.base.errors import InvalidInput

__all__ = ["DEFAULT_STOP_SIGNAL", "parse_signal"]

DEFAULT_STOP_SIGNAL = int(signal.SIGTERM)
_MAX_SIGNAL = 64
_NAMES = {item.name.removeprefix("SIG"): int(item) for item in signal.Signals} | {
    "RTMIN": 34,
    "RTMAX": 64,
    "CLD": int(signal.SIGCHLD),
    "IOT": int(signal.SIGABRT),
    "POLL": int(signal.SIGIO),
}


def parse_signal(text: str) -> int:
    """The number of `SIGKILL`, `kill`, `9`, `RTMIN+3`.

    Raises:
        InvalidInput: with dockerd's text.
    """
    word = text.strip().upper().removeprefix("SIG")
    if word.isascii() and word.isdecimal() and 0 < int(word[:4]) <= _MAX_SIGNAL:
        return int(word)
    if word in _NAMES:
        return _NAMES[word]
    base, sign, offset = word.partition("+") if "+" in word else word.partition("-")
    if base in ("RTMIN", "RTMAX") and sign and offset.isascii() and offset.isdecimal():
        number = _NAMES[base] + int(f"{sign}{offset[:3]}")
        if _NAMES["RTMIN"] <= number <= _MAX_SIGNAL:
            return number
    raise InvalidInput(f"invalid signal: {text[:100]}")
