"""Pull, push and remote inspection for clients: their parameters in, Docker's messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from orlop.base.errors import InvalidInput
from orlop.engine.auth import AuthConfig
from orlop.engine.events import EventBus
from orlop.engine.image_views import DistributionDescriptor, DistributionInspect, DistributionPlatform
from orlop.engine.remote_images import RemoteImages
from orlop.oci.digest import parse_digest
from orlop.oci.imageconfig import parse_image_config
from orlop.oci.index import Index, parse_document
from orlop.oci.manifest import Manifest
from orlop.oci.platform import Platform, parse_platform
from orlop.oci.reference import Reference, parse_reference
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry, Repository
from orlop.transfer.progress import to_message
from orlop.transfer.pull import Puller, PullRequest
from orlop.transfer.push import Pusher, PushRequest

__all__ = ["ImageTransfers"]

_MAX_CONFIG_BYTES = 8 << 20

Message = dict[str, object]


class ImageTransfers:
    """What goes over the network; one per engine."""

    def __init__(self, puller: Puller, pusher: Pusher, registry: Registry, events: EventBus) -> None:
        self._puller = puller
        self._pusher = pusher
        self._registry = registry
        self._events = events
        self.remote = RemoteImages(registry)

    async def pull(
        self, name: str, tag: str, platform: str = "", auth: AuthConfig | None = None
    ) -> AsyncIterator[Message]:
        """Pull an image, or every tag of a repository when neither `name` nor `tag` says which.

        Args:
            name: a reference.
            tag: a tag or a digest that replaces the name's; may be empty.
            platform: `os/arch[/variant]`; empty for the host's.
            auth: for the registry of `name`.
        """
        reference = _reference(name, tag)
        wanted: Platform | None = parse_platform(platform) if platform else None
        request = PullRequest(reference, wanted, _credentials(auth))
        one = reference.tag is not None or reference.digest is not None
        source = self._puller.pull(request) if one else self._puller.pull_all_tags(request)
        async with aclosing(source) as values:
            async for progress in values:
                yield to_message(progress)
        self._publish("pull", reference)

    async def push(
        self, name: str, tag: str, auth: AuthConfig | None = None, platform: Platform | None = None
    ) -> AsyncIterator[Message]:
        """Push a tag, or every tag of the repository when neither `name` nor `tag` says which."""
        reference = _reference(name, tag)
        request = PushRequest(
            reference, _credentials(auth), all_tags=reference.tag is None, platform=platform
        )
        async with aclosing(self._pusher.push(request)) as values:
            async for progress in values:
                yield to_message(progress)
        self._publish("push", reference)

    async def inspect_distribution(self, name: str, auth: AuthConfig | None = None) -> DistributionInspect:
        """What a registry has under a name, without pulling it."""
        reference = parse_reference(name).with_default_tag()
        repository = self._registry.repository(reference, _credentials(auth))
        remote = await repository.get_manifest(reference.digest or reference.tag or "latest")
        document = parse_document(remote.data, remote.descriptor.media_type)
        descriptor = document.descriptor
        return DistributionInspect(
            DistributionDescriptor(
                descriptor.media_type, reference.digest or descriptor.digest, descriptor.size_bytes
            ),
            tuple(
                DistributionPlatform(platform.architecture, platform.os, platform.variant)
                for platform in await _platforms(repository, document)
            ),
        )

    def _publish(self, action: str, reference: Reference) -> None:
        self._events.publish("image", action, reference.familiar, {"name": reference.familiar_name})


async def _platforms(repository: Repository, document: Index | Manifest) -> Sequence[Platform]:
    if isinstance(document, Index):
        return [entry.platform for entry in document.manifests if entry.platform is not None]
    if not document.is_image or document.config.size_bytes > _MAX_CONFIG_BYTES:
        return []
    config = await repository.read_blob(document.config, _MAX_CONFIG_BYTES)
    return [parse_image_config(config).platform]


def _reference(name: str, tag: str) -> Reference:
    # docker CLI of old sends `name:` for all tags
    reference = parse_reference(name.removesuffix(":"))
    if not tag:
        return reference
    if ":" in tag:
        return replace(reference, tag=None, digest=parse_digest(tag))
    if reference.digest is not None:
        raise InvalidInput("a tag and a digest cannot be given both")
    return reference.with_tag(tag)


def _credentials(auth: AuthConfig | None) -> Credentials | None:
    return None if auth is None else auth.credentials()
