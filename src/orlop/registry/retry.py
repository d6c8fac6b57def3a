"""When to try again and how long to wait before.

Exponential back-off with full jitter; a server's Retry-After is honoured up to a bound, above
which we give up at once and say so. An attempt that got ahead resets the count, so that a
transfer over a bad link ends when it stops making progress and not before; after one that got
far the next begins nearly at once, since a link that breaks every few megabytes is not overloaded.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Attempts", "RetryPolicy", "parse_retry_after"]

_GOOD_PROGRESS_BYTES = 64 << 10
_FAR_BYTES = 1 << 20
_FAR_DELAY_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The numbers; Docker makes 5 attempts too."""

    attempts: int = 5
    first_delay_s: float = 0.5
    max_delay_s: float = 15.0
    max_retry_after_s: float = 60.0


class Attempts:
    """Counts the failures of one operation."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0

    def delay_after_failure(
        self, retry_after_s: float | None = None, progress_bytes: int = 0
    ) -> float | None:
        """Seconds to wait before the next attempt, or None: give up."""
        if progress_bytes >= _GOOD_PROGRESS_BYTES:
            self._failures = 0
        self._failures += 1
        if self._failures >= self._policy.attempts:
            return None
        if retry_after_s is not None and retry_after_s > self._policy.max_retry_after_s:
            return None
        ceiling = min(self._policy.max_delay_s, self._policy.first_delay_s * 2 ** (self._failures - 1))
        if progress_bytes >= _FAR_BYTES:
            ceiling *= _FAR_DELAY_SHARE
        backoff = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads load, guards nothing
        return max(backoff, retry_after_s or 0.0)


def parse_retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header; dates and nonsense are None. Spec: RFC 9110, 10.2.3."""
    return float(value) if value.isdecimal() and len(value) <= 12 else None
