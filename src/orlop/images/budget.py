"""Which images and cache records go when they take more than they may: a pure plan with reasons.

Everything that may go is ordered by its last use, the longest unused first, and goes until what is left
fits. A layer is freed with the last thing that needs it. Never planned: what a container uses, what is
pinned, what was used within the time to keep, and what others are made from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orlop.base.errors import InvalidInput
from orlop.oci.digest import Digest

__all__ = ["Budget", "Item", "Plan", "Verdict", "make_plan", "parse_budget", "parse_size"]

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "t": 1_000_000_000_000}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """What images and build cache may take together (0: no limit), and how long they stay in any case."""

    max_bytes: int = 0
    keep_ns: int = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """An image or a cache record. `guard` says why it must stay; "" when it may go."""

    kind: str  # "image" or "build-cache"
    id: str
    name: str
    layers: tuple[Digest, ...]
    used_ns: int
    guard: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to an item, and why; `frees_bytes` only for what goes."""

    item: Item
    goes: bool
    reason: str
    frees_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Verdicts, the longest unused first."""

    total_bytes: int
    left_bytes: int
    verdicts: tuple[Verdict, ...]


def make_plan(items: Sequence[Item], sizes: Mapping[Digest, int], budget: Budget, now_ns: int) -> Plan:
    """Decide what goes.

    Args:
        items: all images and cache records.
        sizes: bytes on disk of every layer that they name.
        budget: what they may take.
        now_ns: the time to keep counts back from here.
    """
    users = Counter(layer for item in items for layer in set(item.layers))
    total = left = sum(sizes[layer] for layer in users)
    verdicts: list[Verdict] = []
    for item in sorted(items, key=lambda item: (item.used_ns, item.id)):
        reason = item.guard or _youth(item, budget, now_ns)
        if not reason and (not budget.max_bytes or left <= budget.max_bytes):
            reason = "within the budget" if budget.max_bytes else "there is no budget"
        if reason:
            verdicts.append(Verdict(item, goes=False, reason=reason))
            continue
        freed = 0
        for layer in set(item.layers):
            users[layer] -= 1
            freed += sizes[layer] if not users[layer] else 0
        left -= freed
        verdicts.append(Verdict(item, goes=True, reason="longest unused, over the budget", frees_bytes=freed))
    return Plan(total, left, tuple(verdicts))


def parse_budget(options: Mapping[str, str]) -> Budget:
    """The setting `image-gc`: `max-size` (20GB) and `keep` (24h).

    Raises:
        InvalidInput: an unknown option or a malformed value.
    """
    unknown = options.keys() - {"max-size", "keep"}
    if unknown:
        raise InvalidInput(f"invalid image-gc option {min(unknown)[:60]!r}: max-size and keep are known")
    budget = Budget()
    if "max-size" in options:
        budget = replace(budget, max_bytes=parse_size(options["max-size"]))
    if "keep" in options:
        text = options["keep"].strip().lower()
        number, unit = text[:-1], _TIMES.get(text[-1:])
        if unit is None or not number.isdecimal() or len(number) > 9:
            raise InvalidInput(f"invalid image-gc keep: {text[:40]!r}", hint="for example 24h or 7d")
        budget = replace(budget, keep_ns=int(number) * unit * _NANO)
    return budget


def parse_size(text: str) -> int:
    """`20GB`, `500m`, or bytes; decimal units, as sizes are shown."""
    number = text.strip().lower().removesuffix("b")
    unit = _UNITS.get(number[-1:] if number[-1:].isalpha() else "")
    digits = number.rstrip("kmgt")
    if unit is None or not digits.isdecimal() or len(digits) > 15:
        raise InvalidInput(f"invalid size: {text[:40]!r}", hint="for example 20GB")
    return int(digits) * unit


def _youth(item: Item, budget: Budget, now_ns: int) -> str:
    return "used recently" if now_ns - item.used_ns < budget.keep_ns else ""
