"""Images in registries: search, tags, referrers, deletion and copies; nothing is stored here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from orlop.base.errors import InvalidInput
from orlop.engine.auth import AuthConfig, find_auth
from orlop.engine.filters import Filters
from orlop.oci.descriptor import Descriptor
from orlop.oci.index import Index, parse_document, select
from orlop.oci.platform import parse_platform
from orlop.oci.reference import parse_reference
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry, RemoteManifest
from orlop.registry.deletion import delete_reference
from orlop.registry.errors import NotOnRegistry
from orlop.registry.referrers import list_referrers
from orlop.registry.search import SearchHit, search
from orlop.transfer.copying import copy_image
from orlop.transfer.progress import to_message
from orlop.wire.gojson import field

__all__ = ["RemoteImages", "RemoteReferrer", "RemoteReferrers", "RemoteTags", "SearchResult"]

SEARCH_KEYS = frozenset({"is-automated", "is-official", "stars"})
_DEFAULT_LIMIT, _MAX_LIMIT = 25, 100

Message = dict[str, object]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Docker's; it has lower-case names."""

    star_count: int = field("star_count")
    is_official: bool = field("is_official")
    name: str = field("name")
    is_automated: bool = field("is_automated")
    description: str = field("description")


@dataclass(frozen=True, slots=True)
class RemoteTags:
    """The tags of a repository."""

    name: str = field("Name")
    tags: Sequence[str] = field("Tags")


@dataclass(frozen=True, slots=True)
class RemoteReferrer:
    """Something that refers to a manifest."""

    media_type: str = field("MediaType")
    artifact_type: str = field("ArtifactType")
    digest: str = field("Digest")
    size: int = field("Size")
    annotations: Mapping[str, str] = field("Annotations")


@dataclass(frozen=True, slots=True)
class RemoteReferrers:
    """What refers to one manifest."""

    name: str = field("Name")
    digest: str = field("Digest")
    referrers: Sequence[RemoteReferrer] = field("Referrers")


class RemoteImages:
    """One per engine."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def search(self, term: str, limit: int | None, filters: Filters) -> Sequence[SearchResult]:
        """Search Docker Hub, or the host that `term` begins with.

        Raises:
            InvalidInput: a filter or the limit, in dockerd's words.
            RegistryError: the index refuses.
        """
        filters.check_keys(SEARCH_KEYS)
        limit = limit or _DEFAULT_LIMIT
        if not 1 <= limit <= _MAX_LIMIT:
            raise InvalidInput(f"limit {limit} is outside the range of [1, {_MAX_LIMIT}]")
        if not term:
            raise InvalidInput("a search term is needed")
        stars = max((_stars(text) for text in filters.get("stars")), default=0)
        hits = await search(self._registry, term, limit)
        return [_result(hit) for hit in hits if hit.stars >= stars and _is_wanted(hit, filters)]

    async def tags(self, name: str, auth: AuthConfig | None) -> RemoteTags:
        """All tags of a repository."""
        reference = parse_reference(name)
        tags = await self._registry.repository(reference, _credentials(auth)).tags()
        return RemoteTags(reference.familiar_name, tags)

    async def manifest(self, name: str, platform: str, auth: AuthConfig | None) -> RemoteManifest:
        """A manifest or index as the registry has it; with a platform, the manifest for that one."""
        reference = parse_reference(name).with_default_tag()
        repository = self._registry.repository(reference, _credentials(auth))
        remote = await repository.get_manifest(reference.digest or reference.tag or "latest")
        document = parse_document(remote.data, remote.descriptor.media_type)
        if platform and isinstance(document, Index):
            entry = select(document, parse_platform(platform))
            if entry is None:
                raise NotOnRegistry(f"{reference.familiar} has no image for {platform[:100]}")
            return await repository.get_manifest(entry.digest)
        return RemoteManifest(replace(remote.descriptor, media_type=document.media_type), remote.data)

    async def referrers(self, name: str, artifact_type: str, auth: AuthConfig | None) -> RemoteReferrers:
        """What refers to the manifest that `name` leads to: signatures, SBOMs, attestations."""
        reference = parse_reference(name).with_default_tag()
        repository = self._registry.repository(reference, _credentials(auth))
        digest = reference.digest
        if digest is None:
            digest = (await repository.get_manifest(reference.tag or "latest")).descriptor.digest
        found = await list_referrers(repository, digest, artifact_type)
        return RemoteReferrers(reference.familiar_name, digest, [_referrer(entry) for entry in found])

    async def delete(self, name: str, auth: AuthConfig | None) -> None:
        """Delete a tag, or with NAME@DIGEST a manifest, from its registry.

        Raises:
            InvalidInput: the name says neither: nothing is deleted by default.
            CannotDelete, NotOnRegistry, RegistryError: as the registry says.
        """
        reference = parse_reference(name)
        which = reference.digest or reference.tag
        if which is None:
            raise InvalidInput(f"{reference.familiar} names no tag and no digest: say which to delete")
        await delete_reference(self._registry.repository(reference, _credentials(auth), for_push=True), which)

    async def copy(
        self, source: str, target: str, platform: str, auth: Mapping[str, AuthConfig]
    ) -> AsyncIterator[Message]:
        """Copy an image between repositories; `auth` is by registry, each gets its own."""
        origin, aim = parse_reference(source), parse_reference(target)
        wanted = parse_platform(platform) if platform else None
        values = copy_image(
            self._registry.repository(origin, _credentials(find_auth(auth, origin.domain))),
            self._registry.repository(aim, _credentials(find_auth(auth, aim.domain)), for_push=True),
            wanted,
        )
        async with aclosing(values):
            async for progress in values:
                yield to_message(progress)


def _credentials(auth: AuthConfig | None) -> Credentials | None:
    return None if auth is None else auth.credentials()


def _stars(text: str) -> int:
    if not text.isdecimal() or len(text) > 12:
        raise InvalidInput(f"invalid filter 'stars=[{text[:60]}]'")
    return int(text)


def _is_wanted(hit: SearchHit, filters: Filters) -> bool:
    if "is-official" in filters and hit.is_official != filters.get_bool("is-official"):
        return False
    return "is-automated" not in filters or hit.is_automated == filters.get_bool("is-automated")


def _result(hit: SearchHit) -> SearchResult:
    return SearchResult(hit.stars, hit.is_official, hit.name, hit.is_automated, hit.description)


def _referrer(entry: Descriptor) -> RemoteReferrer:
    return RemoteReferrer(
        entry.media_type, entry.artifact_type or "", entry.digest, entry.size_bytes, entry.annotations
    )
