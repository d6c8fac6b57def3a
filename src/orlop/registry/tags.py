"""The tags of a repository, page by page. Spec: OCI distribution-spec, "Listing Tags"."""

from __future__ import annotations

import json
import re

from orlop.oci.reference import InvalidReference, Reference
from orlop.registry.errors import BadRegistry, parse_problem, pull_error
from orlop.registry.session import Session

__all__ = ["list_tags"]

_MAX_PAGE_BYTES = 8 << 20
_MAX_PAGES = 1000
_NEXT_LINK = re.compile(r'\s*<([^>]*)>\s*;\s*rel="?next"?')


async def list_tags(session: Session, reference: Reference, scope: str) -> list[str]:
    """All tags, in the registry's order, each once.

    Raises:
        RegistryError: the registry refuses.
        BadRegistry: pages without end or on another server, or a tag that is none.
    """
    found: list[str] = []
    url = session.endpoint.url(f"/v2/{reference.path}/tags/list?n=1000")
    for _ in range(_MAX_PAGES):
        answer = await session.call("GET", url, scope=scope, limit=_MAX_PAGE_BYTES)
        if answer.status != 200:
            raise pull_error(parse_problem(answer.status, answer.headers, answer.body), reference)
        page = _parse_page(reference, answer.body)
        found += page
        link = _NEXT_LINK.match(answer.header("link"))
        if link is None or not page:
            return list(dict.fromkeys(found))
        following = answer.url.join(link[1])
        if following.origin != session.endpoint.origin or following == url:
            raise BadRegistry(f"{session.endpoint.origin} continues its tags at {following.origin}")
        url = following
    raise BadRegistry(f"{session.endpoint.origin} lists tags without end")


def _parse_page(reference: Reference, body: bytes) -> list[str]:
    try:
        document = json.loads(body)
        tags = document["tags"] if isinstance(document, dict) else None
    except (ValueError, KeyError, RecursionError) as error:
        raise BadRegistry(f"the tag list of {reference.familiar_name} is malformed") from error
    found: list[str] = []
    for tag in tags if isinstance(tags, list) else ():
        try:
            found.append(reference.with_tag(str(tag)).tag or "")
        except InvalidReference as error:
            raise BadRegistry(f"{reference.familiar_name} has a tag that is no tag: {tag!r:.100}") from error
    return found
