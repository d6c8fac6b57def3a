"""What refers to a manifest: signatures, attestations, SBOMs.

The referrers API, and for registries without it the tag schema: an index under the tag
`<algorithm>-<hex>`. Spec: OCI distribution-spec 1.1, "Listing Referrers", "Backwards Compatibility".
"""

from __future__ import annotations

import re
from urllib.parse import quote

from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm, encoded
from orlop.oci.index import Index, parse_document, parse_index
from orlop.oci.mediatype import OCI_INDEX
from orlop.registry.client import MAX_MANIFEST_BYTES, Repository
from orlop.registry.errors import BadRegistry, NotOnRegistry, parse_problem
from orlop.registry.session import Session

__all__ = ["list_referrers", "referrers_tag"]

_MAX_PAGES = 100
_NEXT_LINK = re.compile(r'\s*<([^>]*)>\s*;\s*rel="?next"?')


def referrers_tag(digest: Digest) -> str:
    """Where registries without the API keep the list."""
    return f"{algorithm(digest)[:32]}-{encoded(digest)[:64]}"


async def list_referrers(repository: Repository, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
    """Manifests whose subject is `digest`, of one artifact type if that is given.

    Raises:
        RegistryError: the registry refuses.
        BadRegistry, MalformedDocument: its list is none, or has no end.
    """
    found = await repository.try_each(lambda session: _ask(session, repository, digest, artifact_type))
    if found is None:
        found = await _by_tag(repository, digest)
    # a registry may leave the filtering to us
    return [entry for entry in found if artifact_type in {"", entry.artifact_type}]


async def _ask(
    session: Session, repository: Repository, digest: Digest, artifact_type: str
) -> list[Descriptor] | None:
    """None: the registry does not have the API."""
    path = f"/v2/{repository.reference.path}/referrers/{digest}"
    query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    url = session.endpoint.url(path + query)
    found: dict[Digest, Descriptor] = {}
    for _ in range(_MAX_PAGES):
        answer = await session.call(
            "GET", url, scope=repository.scope, headers={"Accept": OCI_INDEX}, limit=MAX_MANIFEST_BYTES
        )
        kind = answer.header("content-type").partition(";")[0].strip()
        if answer.status in {400, 404, 405} or (answer.status == 200 and kind != OCI_INDEX):
            return None
        if answer.status != 200:
            raise parse_problem(answer.status, answer.headers, answer.body).to_error()
        page = parse_index(answer.body, OCI_INDEX).manifests
        found |= {entry.digest: entry for entry in page}
        link = _NEXT_LINK.match(answer.header("link"))
        if link is None or not page:
            return list(found.values())
        following = answer.url.join(link[1])
        if following.origin != session.endpoint.origin or following == url:
            raise BadRegistry(f"{session.endpoint.origin} continues its referrers at {following.origin}")
        url = following
    raise BadRegistry(f"{session.endpoint.origin} lists referrers without end")


async def _by_tag(repository: Repository, digest: Digest) -> list[Descriptor]:
    try:
        remote = await repository.get_manifest(referrers_tag(digest))
    except NotOnRegistry:
        return []
    document = parse_document(remote.data, remote.descriptor.media_type)
    return list(document.manifests) if isinstance(document, Index) else []
