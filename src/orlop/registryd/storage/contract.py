"""What a registry stores, as its handlers see it: repositories, links, manifests, tags, uploads.

Theory of operation. Bytes are stored once, by digest; a repository sees only blobs that are linked
to it and manifests that were pushed to it. Everything a call reports as done is durable. A manifest
appears with its tags and its references in one step, and only when all that it names is there.
`tests/fakes/registry_storage.py` is the suite that every implementation passes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from orlop.oci.digest import Digest
from orlop.registryd.documents import Document
from orlop.registryd.paging import Page

__all__ = ["ManifestRow", "Missing", "Referrer", "Storage", "Upload"]


class Missing(enum.Enum):
    """What a manifest may name that its repository does not have."""

    NOTHING = "nothing"
    ANY = "any"  # caches: it comes when it is asked for; sparse copies: it never comes


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A manifest of a repository."""

    digest: Digest
    media_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest whose subject is another one, as the referrers API lists it."""

    digest: Digest
    media_type: str
    size_bytes: int
    artifact_type: str
    annotations: Mapping[str, str]


class Upload(Protocol):
    """A blob on its way in, for one request at a time."""

    @property
    def offset(self) -> int:
        """Bytes received so far, over all requests."""

    async def write(self, data: bytes) -> None:
        """Take more bytes."""

    async def flush(self) -> None:
        """Keep what was taken over the end of this process."""

    async def commit(self, digest: Digest) -> int:
        """Make it a blob of its repository, durably; returns its size. Then the upload is gone.

        Raises:
            Problem: DIGEST_INVALID: the bytes are others; they are dropped.
        """

    async def discard(self) -> None:
        """Drop it."""

    def open_reader(self) -> int:
        """A file descriptor of the bytes flushed so far and of those that follow; the caller closes it."""


class Storage(Protocol):
    """All repositories of a registry."""

    async def has_repository(self, name: str) -> bool:
        """True when something was ever pushed to it."""

    async def repositories(self, page: Page) -> list[str]:
        """Names in order, after `page.last`."""

    # blobs

    async def blob_size(self, name: str, digest: Digest) -> int | None:
        """The size of a blob that the repository sees; None when it sees none."""

    def open_blob(self, digest: Digest) -> int:
        """A file descriptor of the bytes; the caller closes it."""

    async def homes_of(self, digest: Digest) -> list[str]:
        """Repositories that see a blob, some of them when there are many."""

    async def mount_blob(self, source: str, target: str, digest: Digest) -> bool:
        """Let `target` see a blob of `source`; False when that does not have it."""

    async def unlink_blob(self, name: str, digest: Digest) -> bool:
        """The repository sees the blob no longer; False when it did not."""

    # uploads

    async def begin_upload(self, name: str) -> str:
        """The id of a new, empty upload."""

    def upload(self, name: str, upload_id: str) -> AbstractAsyncContextManager[Upload]:
        """Work on an upload; others wait meanwhile. Raises Problem BLOB_UPLOAD_UNKNOWN."""

    # manifests and tags

    async def put_manifest(
        self, name: str, document: Document, tags: Sequence[str], missing: Missing = Missing.NOTHING
    ) -> None:
        """Store a manifest and let tags point at it.

        Raises:
            Problem: MANIFEST_BLOB_UNKNOWN: something that it names is not in the repository.
        """

    async def size_of_reference(self, name: str, digest: Digest) -> int | None:
        """The size of a blob or manifest that a manifest of the repository names; it need not be stored."""

    async def find_manifest(self, name: str, reference: str) -> ManifestRow | None:
        """The manifest of a tag or digest."""

    async def read_manifest(self, digest: Digest) -> bytes:
        """The exact bytes of a manifest that was found."""

    async def delete_manifest(self, name: str, digest: Digest) -> bool:
        """Forget a manifest and all tags that point at it; False when there is none."""

    async def delete_tag(self, name: str, tag: str) -> bool:
        """Forget a tag; False when there is none."""

    async def tags(self, name: str, page: Page) -> list[str]:
        """Names in order, after `page.last`."""

    async def referrers(self, name: str, subject: Digest, artifact_type: str, page: Page) -> list[Referrer]:
        """Manifests about `subject`, ordered by digest, after `page.last`; "" is any artifact type."""

    # upkeep

    async def collect(self) -> tuple[int, int]:
        """Take away what nobody needs: how many things, and how many bytes were freed. Safe at any time."""

    async def close(self) -> None:
        """Finish what is under way."""
