"""Content negotiation: which of our media types a client prefers. Pure.

Spec: RFC 9110, section 12.5.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["choose_type"]

_MAX_ACCEPT = 2000
_QUALITY = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")


def choose_type(accept: str, offers: Sequence[str], default: str) -> str:
    """The offer that `accept` names with the highest quality, the first of equals.

    It is `default` when none is named. Wildcards choose the default, too: clients of streams say `*/*`
    without thinking of what they can parse.
    """
    best, best_quality = default, 0.0
    qualities = _qualities(accept[:_MAX_ACCEPT])
    for offer in offers:
        quality = qualities.get(offer, 0.0)
        if quality > best_quality:
            best, best_quality = offer, quality
    return best


def _qualities(accept: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in accept.split(","):
        name, *parameters = (word.strip().lower() for word in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = float(value) if _QUALITY.match(value.strip()) else 0.0
        found[name] = quality
    return found
