"""Which images a filter wants. Pure: everything it compares with was resolved before.

Spec: Docker Engine API v1.51, ImageList and ImagePrune, "filters".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from orlop.base.errors import InvalidInput
from orlop.engine.filters import Filters
from orlop.images.model import Image
from orlop.oci.reference import Reference

__all__ = ["LIST_KEYS", "PRUNE_KEYS", "ImageFilter", "matches_glob"]

LIST_KEYS = frozenset({"before", "dangling", "label", "label!", "reference", "since", "until"})
PRUNE_KEYS = frozenset({"dangling", "label", "label!", "until"})
_MAX_PATTERN = 512


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Filters with their times resolved; both bounds are exclusive."""

    filters: Filters
    before_ns: int | None = None
    since_ns: int | None = None

    def select(self, image: Image) -> Sequence[Reference] | None:
        """The tags to show of an image that passes, or None."""
        filters = self.filters
        labels = image.config.run.labels
        if self.before_ns is not None and image.created_ns >= self.before_ns:
            return None
        if self.since_ns is not None and image.created_ns <= self.since_ns:
            return None
        if not filters.matches_labels("label", labels) or not filters.excludes_labels("label!", labels):
            return None
        if "dangling" in filters and filters.get_bool("dangling") != (not image.tags):
            return None
        patterns = filters.get("reference")
        if not patterns:
            return image.tags
        tags = [tag for tag in image.tags if any(_matches(pattern, tag) for pattern in patterns)]
        digests = any(_matches(pattern, name) for pattern in patterns for name in image.repo_digests)
        return tags if tags or digests else None


def matches_glob(pattern: str, text: str) -> bool:
    """Go's path.Match: `*` and `?` do not cross a slash.

    Raises:
        InvalidInput: the pattern is malformed or too long.
    """
    return _compile(pattern).fullmatch(text) is not None


def _matches(pattern: str, name: Reference) -> bool:
    return matches_glob(pattern, name.familiar) or matches_glob(pattern, name.familiar_name)


@lru_cache(maxsize=64)
def _compile(pattern: str) -> re.Pattern[str]:
    if len(pattern) > _MAX_PATTERN or pattern.count("*") > 16:
        raise InvalidInput("invalid filter 'reference': the pattern is too long")
    out: list[str] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        elif character == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise InvalidInput(f"invalid filter 'reference={pattern}': syntax error in pattern")
            body = pattern[at:end].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[{body}]")
            at = end + 1
        else:
            out.append(re.escape(character))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise InvalidInput(f"invalid filter 'reference={pattern}': syntax error in pattern") from error
