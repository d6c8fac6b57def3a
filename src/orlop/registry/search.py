"""Search: the index's old API, the only one there is for "which images match a word".

`TERM` asks the configured index (Docker Hub's); `host/TERM` asks that host. It is asked without
credentials: the index is another server than the registry that they were given for.
Spec: Docker Registry v1 API, `GET /v1/search`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from orlop.aio.http_client import ConnectFailed, TlsFailed
from orlop.oci.reference import DEFAULT_DOMAIN
from orlop.registry.client import Registry
from orlop.registry.errors import BadRegistry, NotOnRegistry, RegistryUnavailable, parse_problem
from orlop.registry.session import Session

__all__ = ["SearchHit", "search"]

_MAX_ANSWER_BYTES = 4 << 20
_MAX_TEXT = 4096


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One repository that was found."""

    name: str
    description: str
    stars: int
    is_official: bool
    is_automated: bool


async def search(registry: Registry, term: str, limit: int) -> list[SearchHit]:
    """Repositories that match `term`, in the index's order.

    Raises:
        NotOnRegistry: the host has no search.
        RegistryError: it refuses or cannot be reached.
    """
    domain, words = _split(term)
    failure: Exception | None = None
    for session in await registry.index_sessions(domain):
        try:
            return await _ask(session, words, limit)
        except (ConnectFailed, TlsFailed) as error:  # an insecure registry may speak plain HTTP
            failure = error
    raise RegistryUnavailable(f"cannot search {domain}: {failure}") from failure


def _split(term: str) -> tuple[str, str]:
    head, slash, rest = term.partition("/")
    if slash and (set(head) & set(".:") or head == "localhost"):
        domain = DEFAULT_DOMAIN if head in {DEFAULT_DOMAIN, f"index.{DEFAULT_DOMAIN}"} else head
        return domain, rest.removeprefix("library/") if domain == DEFAULT_DOMAIN else rest
    return DEFAULT_DOMAIN, term.removeprefix("library/")


async def _ask(session: Session, words: str, limit: int) -> list[SearchHit]:
    url = session.endpoint.url("/v1/search?" + urlencode({"q": words, "n": limit}))
    answer = await session.call("GET", url, limit=_MAX_ANSWER_BYTES)
    if answer.status == 404:
        raise NotOnRegistry(
            f"{session.endpoint.origin} has no search",
            hint="few registries but Docker Hub have one; `orlop tags NAME` lists the tags of a repository",
        )
    if answer.status != 200:
        raise parse_problem(answer.status, answer.headers, answer.body).to_error()
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise BadRegistry(f"the search answer of {session.endpoint.origin} is not JSON") from error
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise BadRegistry(f"the search answer of {session.endpoint.origin} has no results")
    return [_hit(item) for item in results[:limit] if isinstance(item, dict) and item.get("name")]


def _hit(item: dict[str, Any]) -> SearchHit:
    stars = item.get("star_count")
    return SearchHit(
        _text(item.get("name")),
        _text(item.get("description")),
        stars if isinstance(stars, int) and not isinstance(stars, bool) else 0,
        item.get("is_official") is True,
        item.get("is_automated") is True,
    )


def _text(value: object) -> str:
    """Printable: what strangers write is shown on terminals."""
    text = value[:_MAX_TEXT] if isinstance(value, str) else ""
    return "".join(c if c.isprintable() else " " for c in text)
