"""Images in and out of files: save, load, import. The formats lie in `images`."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from orlop.base.clock import Clock
from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.image_views import StatusLine, StreamLine
from orlop.images.importing import import_image
from orlop.images.loading import LoadedImage, load
from orlop.images.model import Image, Layers
from orlop.images.saving import Selected, save, select_images
from orlop.images.store import ImageStore
from orlop.oci.digest import Digest
from orlop.oci.imageconfig import RunConfig
from orlop.oci.platform import Platform, host_platform
from orlop.oci.reference import Reference, parse_reference
from orlop.store.leases import Leases
from orlop.transfer.progress import Meter, Report, narrate, to_message

__all__ = ["ApplyChanges", "ImageArchives", "ImportRequest", "tag_reference"]

ApplyChanges = Callable[[RunConfig, Sequence[str]], RunConfig]  # Dockerfile instructions of --change
Publish = Callable[[str, Image, str], None]  # action, image, name


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What `docker import` says beside the tar."""

    source: str = "-"
    repository: str = ""
    tag: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: Platform | None = None


class ImageArchives:
    """The part of the image service that reads and writes tars."""

    def __init__(
        self,
        store: ImageStore,
        layers: Layers,
        leases: Leases,
        clock: Clock,
        *,
        apply_changes: ApplyChanges,
        publish: Publish,
        collect: Callable[[], Awaitable[int]],
    ) -> None:
        self._store = store
        self._layers = layers
        self._leases = leases
        self._clock = clock
        self._apply_changes = apply_changes
        self._publish = publish
        self._collect = collect

    async def save(
        self, names: Sequence[str], platforms: Sequence[Platform] = (), without: Collection[Digest] = ()
    ) -> AsyncIterator[bytes]:
        """An archive of images, as `images.saving` says; they cannot be collected meanwhile.

        Args:
            names: what to save.
            platforms: of each name only these; all that are here without any.
            without: layers to leave out, since the engine that will load the archive has them.

        Raises:
            ImageNotFound, AmbiguousImage, InvalidReference: before the first byte.
        """
        return self._saved(await select_images(self._store, names, platforms), without)

    async def layers_of(self, names: Sequence[str]) -> Sequence[Digest]:
        """The layers that images are made of, each once. Raises as `save`."""
        selected = await select_images(self._store, names)
        return list(dict.fromkeys(one for item in selected for one in item.image.diff_ids))

    async def missing_layers(self, wanted: Sequence[Digest]) -> Sequence[Digest]:
        """Those of `wanted` that are not stored here."""
        async with self._leases.hold("look for layers") as lease:
            return [one for one in wanted if await self._layers.hold(one, lease) is None]

    async def _saved(self, selected: Sequence[Selected], without: Collection[Digest]) -> AsyncIterator[bytes]:
        async with self._leases.hold("save") as lease:
            for item in selected:
                await self._store.hold(item.image.id, lease)
                self._publish("save", item.image, item.image.id)
            async for chunk in save(selected, self._layers, without):
                yield chunk

    async def load(
        self, stream: AsyncIterator[bytes], platforms: Sequence[Platform] = (), *, is_quiet: bool = False
    ) -> AsyncIterator[StreamLine | dict[str, object]]:
        """Store the images of an archive; lines and progress are those of `docker load`.

        Raises:
            BadArchive and others: as `images.loading.load`; nothing is stored then.
        """
        loaded: list[LoadedImage] = []

        async def work(report: Report) -> None:
            loaded.extend(await self._load(stream, platforms, report))

        async with aclosing(narrate("load", work)) as progress:
            async for value in progress:
                if not is_quiet:
                    yield to_message(value)
        for item in loaded:
            for name in item.names:
                before = item.displaced.get(name.familiar)
                if before is not None:
                    yield StreamLine(
                        f"The image {name.familiar} already exists, "
                        f"renaming the old one with ID {before} to empty string\n"
                    )
                # docker CLI and docker-py match on these two texts
                yield StreamLine(f"Loaded image: {name.familiar}\n")
            if not item.names:
                yield StreamLine(f"Loaded image ID: {item.image.id}\n")
            self._publish("load", item.image, item.image.id)

    async def _load(
        self, stream: AsyncIterator[bytes], platforms: Sequence[Platform], report: Report
    ) -> list[LoadedImage]:
        meters: dict[str, Meter] = {}

        def tell(path: str, current: int, total: int) -> None:
            if path not in meters:
                name = posixpath.basename(path.removesuffix("/layer.tar"))[:12]
                meters[path] = Meter(report, name, "Loading layer", total)
            meters[path].at(current)

        try:
            async with self._leases.hold("load") as lease:
                return await load(stream, self._store, self._layers, lease, platforms=platforms, report=tell)
        except OrlopError:
            await self._collect()
            raise

    async def import_(
        self, stream: AsyncIterator[bytes], request: ImportRequest
    ) -> AsyncIterator[StatusLine]:
        """Make an image of the tar of a file system; the last line is its id."""
        run = self._apply_changes(RunConfig(), request.changes) if request.changes else RunConfig()
        names = [tag_reference(request.repository, request.tag)] if request.repository else []
        try:
            async with self._leases.hold("import") as lease:
                image = await import_image(
                    stream,
                    self._store,
                    self._layers,
                    lease,
                    run=run,
                    platform=request.platform or host_platform(),
                    created_ns=self._clock.now_ns(),
                    message=request.message or f"Imported from {request.source}",
                    names=names,
                )
        except OrlopError:
            await self._collect()
            raise
        self._publish("import", image, names[0].familiar if names else image.id)
        yield StatusLine(image.id)


def tag_reference(repository: str, tag: str) -> Reference:
    """The name that `repository` and `tag` (empty: `latest`) make together. Raises InvalidInput."""
    reference = parse_reference(repository)
    if reference.digest is not None:
        raise InvalidInput("refusing to create a tag with a digest reference")
    return reference.with_tag(tag) if tag else reference.with_default_tag()
