"""`docker import`: the tar of a file system becomes an image of one layer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from orlop.aio import offload
from orlop.base import failpoints
from orlop.base.ids import LeaseId
from orlop.images.model import Image, Layers
from orlop.images.store import ImageStore
from orlop.oci.imageconfig import HistoryEntry, RunConfig, derive_config
from orlop.oci.platform import Platform
from orlop.oci.reference import Reference
from orlop.store.compress import auto_decompressor

__all__ = ["import_image"]

_MAX_CONTENT_BYTES = 1 << 40


async def import_image(  # noqa: PLR0913 - what `docker import` can say
    stream: AsyncIterator[bytes],
    images: ImageStore,
    layers: Layers,
    lease: LeaseId,
    *,
    run: RunConfig,
    platform: Platform,
    created_ns: int,
    message: str = "",
    names: Sequence[Reference] = (),
) -> Image:
    """Store a tar (plain, gzip, bzip2, xz or zstd) as the only layer of a new image.

    Args:
        stream: the tar.
        images: where the image goes.
        layers: where the layer goes.
        lease: holds the layer until the image is stored.
        run: what containers of the image get.
        platform: of the programs in it.
        created_ns: time of the image and of its only step.
        message: the step's comment.
        names: tags it gets.

    Raises:
        TarError, BadCompression, ExpansionLimit: not acceptable; nothing is stored.
    """
    inflate = auto_decompressor(_MAX_CONTENT_BYTES)
    async with layers.writer(lease) as writer:
        async for chunk in stream:
            pieces = inflate.feed(chunk)
            while (piece := await offload.thread(next, pieces, None)) is not None:
                await writer.write(piece)
        inflate.finish()
        layer = await writer.commit()
    failpoints.hit("images.import.layer-stored")
    history = HistoryEntry(created_ns=created_ns, comment=message)
    config = derive_config(None, run=run, history=history, layer=layer.diff_id, platform=platform)
    return await images.put(config, lease=lease, names=names)
