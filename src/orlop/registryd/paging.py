"""Pages of lists: `n`, `last` and the Link header.

Spec: OCI distribution-spec 1.1, "Listing tags"; RFC 8288.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from orlop.aio.http_messages import HeaderFields
from orlop.registryd.problems import Problem, Word

__all__ = ["DEFAULT_PAGE", "MAX_PAGE", "Page", "link_to", "parse_page"]

DEFAULT_PAGE = 1_000
MAX_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """At most `count` entries that come after `last`."""

    count: int
    last: str


def parse_page(query: Mapping[str, str]) -> Page:
    """The page that a query asks for.

    Raises:
        Problem: PAGINATION_NUMBER_INVALID: `n` is no number.
    """
    text = query.get("n", "")
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Problem(Word.PAGINATION_NUMBER_INVALID, f"invalid number of entries {text[:40]!r}")
    count = min(int(text), MAX_PAGE) if text else DEFAULT_PAGE
    return Page(count, query.get("last", "")[:1024])


def link_to(path: str, page: Page, last: str, **more: str) -> HeaderFields:
    """The header that leads to what follows `last`."""
    query = urlencode({"n": page.count, "last": last, **more}, quote_via=quote)
    return (("Link", f'<{path}?{query}>; rel="next"'),)
