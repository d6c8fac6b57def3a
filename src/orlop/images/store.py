"""The image store: names and ids to images, and the rows behind them.

Rows hold what lists and look-ups need; configs and manifests are blobs, parsed configs are
kept in memory because they never change. A lookup never fetches anything. An image row is a
root of collection: it needs its config, its documents and its layers until it is removed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from orlop.aio import offload
from orlop.base import failpoints
from orlop.base.clock import Clock, SystemClock
from orlop.base.errors import NotFound, OrlopError
from orlop.base.ids import LeaseId
from orlop.images import rows, variantrows
from orlop.images.lookup import lookup
from orlop.images.model import (
    Image,
    ImageBroken,
    ImageNotFound,
    Layers,
    LayerSource,
)
from orlop.images.uses import ImageUses
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, algorithm, encoded, new_hasher
from orlop.oci.imageconfig import ImageConfig, parse_image_config
from orlop.oci.manifest import parse_manifest
from orlop.oci.platform import Platform, host_platform
from orlop.oci.reference import Reference
from orlop.oci.strictjson import HARD_LIMIT_BYTES
from orlop.store.blobs import BlobStore
from orlop.store.db import Database, Tx
from orlop.store.leases import tx_hold

__all__ = ["KIND_IMAGE", "Image", "ImageStore"]

KIND_IMAGE = "image"
_KIND_BLOB = "blob"
_KIND_LAYER = "layer"
_CACHED_CONFIGS = 4096


class ImageStore:
    """The images of one data root."""

    def __init__(self, db: Database, blobs: BlobStore, layers: Layers, clock: Clock | None = None) -> None:
        self._db = db
        self._blobs = blobs
        self._layers = layers
        self._clock = clock or SystemClock()
        self._host = host_platform()
        self.uses = ImageUses(db, self._clock)
        self._configs: OrderedDict[Digest, ImageConfig] = OrderedDict()

    async def resolve(self, name_or_id: str, platform: Platform | None = None) -> Image:
        """The image of a name (`latest` is implied), an id, or the beginning of an id.

        Args:
            name_or_id: what the user wrote.
            platform: choose among the images of a name; what fits none gives the one for this machine.

        Raises:
            ImageNotFound: with Docker's text.
            AmbiguousImage: several ids begin so.
            InvalidReference: neither a name nor an id.
        """
        image, name = await self.resolve_name(name_or_id)
        if platform is None or name is None or image.config.platform.runs_on(platform):
            return image
        fitting = [one for one in await self.variants(name) if one.config.platform.runs_on(platform)]
        return max(fitting, key=lambda one: one.config.platform.variant, default=image)

    async def variants(self, name: Reference) -> Sequence[Image]:
        """The further images of a name, for other platforms."""
        name = name.with_default_tag()

        def work(tx: Tx) -> list[rows.ImageRow]:
            found = [rows.load(tx, image) for image in variantrows.variants_of(tx, name)]
            return [row for row in found if row is not None]

        return await self._images(await self._db.read(work))

    async def variant_pairs(self) -> Sequence[tuple[Digest, Digest]]:
        """(image that a name means, further image of the name), of all names."""
        return await self._db.read(variantrows.select_variants)

    async def attachments(self, image_id: Digest | None = None) -> dict[Digest, Descriptor]:
        """Attestations and their parts that are kept with an image, or with any."""
        return await self._db.read(lambda tx: variantrows.select_attachments(tx, image_id))

    async def put_document(self, data: bytes, lease: LeaseId) -> Digest:
        """Keep the exact bytes of a document, held by `lease` until an image names it."""
        return await self._blobs.put(data, lease)

    async def read_document(self, descriptor: Descriptor) -> bytes:
        """The exact bytes of a manifest, an index or an attachment."""
        return await self._blobs.read(descriptor.digest, max(descriptor.size_bytes, 1))

    async def resolve_name(self, name_or_id: str) -> tuple[Image, Reference | None]:
        """`resolve`, and the name that the text is; None when it is an id."""
        row, name = await self._db.read(lambda tx: lookup(tx, name_or_id))
        return (await self._images([row]))[0], name

    async def find(self, name_or_id: str, platform: Platform | None = None) -> Image | None:
        """`resolve`, or None when nothing is found."""
        try:
            return await self.resolve(name_or_id, platform)
        except ImageNotFound:
            return None

    async def find_ids(self, names: Collection[str]) -> dict[str, Digest]:
        """Which image each name or id means now, in one read; what means none is left out."""

        def look(tx: Tx) -> dict[str, Digest]:
            found: dict[str, Digest] = {}
            for name in names:
                with suppress(OrlopError):
                    found[name] = lookup(tx, name)[0].id
            return found

        return await self._db.read(look)

    async def get(self, image_id: Digest) -> Image:
        """The image with exactly this id. Raises ImageNotFound."""
        row = await self._db.read(lambda tx: rows.load(tx, image_id))
        if row is None:
            raise ImageNotFound(f"No such image: {image_id}")
        return (await self._images([row]))[0]

    async def list(self) -> Sequence[Image]:
        """Every image, in order of ids."""
        return await self._images(await self._db.read(rows.load_all))

    async def children(self, image_id: Digest) -> Sequence[Digest]:
        """Images known to be made from this one."""
        return [Digest(item) for item in await self._db.read(lambda tx: rows.children(tx, image_id))]

    async def put(  # noqa: PLR0913 - all that may be known of an image
        self,
        config: bytes,
        *,
        lease: LeaseId,
        manifest: bytes | None = None,
        media_type: str = "",
        index: Descriptor | None = None,
        names: Sequence[Reference] = (),
        sources: Sequence[LayerSource] = (),
        attachments: Sequence[Descriptor] = (),
        parent: str = "",
    ) -> Image:
        """Store an image whose layers are stored; idempotent by config digest.

        Rows and names appear in one transaction, after the documents are durable.

        Args:
            config: exact bytes; their digest becomes the id.
            lease: holds the layers and, until the transaction, the documents.
            manifest: exact bytes of the manifest that described it, if any.
            media_type: what the manifest was announced as.
            index: the index it was chosen from, already a blob held by the lease.
            names: tags it gets, and `name@digest` for what a registry calls it.
            sources: where the compressed layers came from.
            attachments: attestations and their parts, already blobs held by the lease.
            parent: id of the image it was made from, when known.

        Raises:
            ImageBroken: the manifest does not fit the config.
            NotFound: a layer is not stored.
        """
        parsed = parse_image_config(config)
        sizes = await self._held_sizes(parsed, lease)
        documents = [index] if index else []
        if manifest is not None:
            documents.append(_check_manifest(manifest, media_type, parsed))
            await self._blobs.put(manifest, lease)
        image_id = await self._blobs.put(config, lease)
        now_ns = self._clock.now_ns()
        row = rows.new_row(image_id, parsed.created_ns or 0, now_ns, parent, sizes)

        def work(tx: Tx) -> None:
            rows.insert_image(tx, row, parsed.diff_ids)
            for number, document in enumerate(documents):
                rows.put_document(tx, image_id, document, now_ns + number)
            variantrows.insert_attachments(tx, image_id, attachments)
            origin = index.digest if index else None
            for name in names:
                variantrows.point(tx, image_id, name.with_default_tag(), now_ns, origin, self._is_native)
            rows.insert_sources(tx, sources, now_ns)

        self._configs[image_id] = parsed
        failpoints.hit("images.put.before-row")
        await self._db.write(work)
        failpoints.hit("images.put.after-row")
        return await self.get(image_id)

    async def put_derived(
        self,
        config: bytes,
        diff_ids: Sequence[str],
        names: Sequence[Reference],
        lease: LeaseId,
        parent: str = "",
    ) -> Image:
        """Store an image made here, of layers that `lease` or another image holds.

        Raises:
            ImageBroken: the config names other layers than `diff_ids`.
            NotFound: a layer is not stored.
        """
        if tuple(diff_ids) != parse_image_config(config).diff_ids:
            raise ImageBroken("the config of a new image names other layers than it was made of")
        return await self.put(config, lease=lease, names=names, parent=parent)

    async def tag(self, image_id: Digest, name: Reference, variants: Sequence[Digest] = ()) -> Digest | None:
        """Point a name at an image; returns the image that had the name, if it was another.

        Args:
            image_id: what the name means from now on.
            name: a tag, or a repository digest.
            variants: further images, for other platforms.

        Raises:
            ImageNotFound: the image is gone.
        """
        name = name.with_default_tag()

        def work(tx: Tx) -> str | None:
            if rows.load(tx, image_id) is None:
                raise ImageNotFound(f"No such image: {image_id}")
            before = rows.put_name(tx, image_id, name, self._clock.now_ns())
            tx.execute("DELETE FROM image_variant WHERE name = ?", (str(name),))
            variantrows.add_variants(tx, name, [one for one in variants if one != image_id])
            return before

        before = await self._db.write(work)
        return None if before is None else Digest(before)

    async def add_digest(self, name: Reference, digest: Reference) -> None:
        """What `name` stands for is known in a registry as `digest`; nothing if the name is gone."""

        def work(tx: Tx) -> None:
            image = rows.find_by_name(tx, name)
            if image is not None:
                rows.put_name(tx, Digest(image), digest, self._clock.now_ns())
                variantrows.add_variants(tx, digest, variantrows.variants_of(tx, name))

        await self._db.write(work)

    async def untag(self, name: Reference) -> bool:
        """Take a name away and nothing else; False when it was not there."""
        name = name.with_default_tag()
        return await self._db.write(lambda tx: rows.delete_name(tx, name), frees_space=True)

    async def remove(self, image_id: Digest, untag: Sequence[Reference], *, delete: bool) -> None:
        """Carry out a removal plan in one transaction; what is gone already is fine."""

        def work(tx: Tx) -> None:
            for name in untag:
                if rows.find_by_name(tx, name) == image_id:
                    rows.delete_name(tx, name)
            if delete:
                variantrows.promote(tx, image_id, self._clock.now_ns(), self._is_native)
                rows.delete_image(tx, image_id)

        await self._db.write(work, frees_space=True)
        if delete:
            self._configs.pop(image_id, None)

    async def hold(self, image_id: Digest, lease: LeaseId) -> None:
        """Keep an image's bytes while `lease` lives, even if the image is removed. Raises ImageNotFound."""

        def work(tx: Tx) -> None:
            if rows.load(tx, image_id) is None:
                raise ImageNotFound(f"No such image: {image_id}")
            for _, (kind, key) in _edges(tx, image_id):
                tx_hold(tx, lease, kind, key)

        await self._db.write(work)

    def tx_require(self, tx: Tx, image_id: Digest, asked: str) -> None:
        """Be sure, in the transaction that writes a user of the image, that it is still there.

        Raises:
            ImageNotFound: with the name that was `asked` for.
        """
        if tx.value("SELECT 1 FROM image WHERE id = ?", (image_id,)) is None:
            raise ImageNotFound(f"No such image: {asked}")

    async def sources(self, diff_id: Digest) -> Sequence[LayerSource]:
        """Known compressed forms of a layer, latest first."""
        return await self._db.read(lambda tx: rows.select_sources(tx, diff_id))

    async def compressed_forms(
        self, diff_ids: Collection[Digest]
    ) -> tuple[dict[Digest, Sequence[LayerSource]], frozenset[Digest]]:
        """Known compressed forms of layers, and the digests of those that are kept here."""

        def work(tx: Tx) -> tuple[dict[Digest, Sequence[LayerSource]], frozenset[Digest]]:
            found: dict[Digest, Sequence[LayerSource]] = {}
            found |= {diff_id: rows.select_sources(tx, diff_id) for diff_id in diff_ids}
            digests = {form.digest for forms in found.values() for form in forms}
            kept = [
                item
                for item in digests
                if tx.value("SELECT 1 FROM blob WHERE digest = ?", (item,)) is not None
            ]
            return found, frozenset(kept)

        return await self._db.read(work)

    async def record_sources(self, sources: Sequence[LayerSource]) -> None:
        """Remember compressed forms, for instance those a push has made."""
        now_ns = self._clock.now_ns()
        await self._db.write(lambda tx: rows.insert_sources(tx, sources, now_ns))

    async def documents(self, image_id: Digest) -> Sequence[Descriptor]:
        """Manifests and indexes kept with an image, latest last; their bytes are blobs."""

        def work(tx: Tx) -> Sequence[Descriptor]:
            found = tx.execute(
                "SELECT media_type, digest, size_bytes FROM image_document"
                " WHERE image = ? ORDER BY stored_ns",
                (image_id,),
            )
            return [Descriptor(row[0], Digest(row[1]), row[2]) for row in found]

        return await self._db.read(work)

    # What collection asks: see store.collect.Resource. Images themselves are removed by people.

    kind = KIND_IMAGE

    def keys(self, tx: Tx) -> Iterable[str]:  # noqa: ARG002 - the protocol's shape
        """Nothing: an unnamed image stays until it is pruned."""
        return ()

    def roots(self, tx: Tx) -> Iterable[tuple[str, str]]:
        """Every image."""
        return [(KIND_IMAGE, row[0]) for row in tx.execute("SELECT id FROM image")]

    def edges(self, tx: Tx) -> Iterable[tuple[str, tuple[str, str]]]:
        """Config, documents and layers."""
        return _edges(tx, None)

    def forget(self, tx: Tx, keys: Sequence[str]) -> None:
        """Never asked, since `keys` is empty."""

    async def sweep(self, keys: Sequence[str] | None = None) -> int:  # noqa: ARG002
        """An image has no bytes of its own."""
        return 0

    async def _held_sizes(self, config: ImageConfig, lease: LeaseId) -> Sequence[int]:
        """Hold the layers and return the size of the files in each."""
        facts = await asyncio.gather(*(self._layers.hold(diff_id, lease) for diff_id in config.diff_ids))
        for diff_id, found in zip(config.diff_ids, facts, strict=True):
            if found is None:
                raise NotFound(f"layer {diff_id} is not stored", hint="pull or build the image again")
        return [found.content_bytes for found in facts if found is not None]

    async def _images(self, found: Sequence[rows.ImageRow]) -> Sequence[Image]:
        missing = [row.id for row in found if row.id not in self._configs]
        if missing:
            for config in await offload.thread(self._read_configs, missing):
                self._configs[config.digest] = config
        images = [_image(row, self._configs[row.id]) for row in found]
        while len(self._configs) > _CACHED_CONFIGS:
            self._configs.popitem(last=False)
        return images

    def _is_native(self, image_id: Digest) -> bool:
        """True when programs of the image run here without emulation; called in the database's thread."""
        config = self._configs.get(image_id)
        if config is None:
            config = self._read_configs([image_id])[0]
        return config.platform.runs_on(self._host)

    def _read_configs(self, missing: Sequence[Digest]) -> Sequence[ImageConfig]:
        return [parse_image_config(self._blobs.read_now(image_id, HARD_LIMIT_BYTES)) for image_id in missing]


def _image(row: rows.ImageRow, config: ImageConfig) -> Image:
    return Image(
        id=row.id,
        config=config,
        manifest=row.manifest,
        tags=tuple(name for name in row.names if name.digest is None),
        repo_digests=tuple(replace(name, tag=None) for name in row.names if name.digest is not None),
        layer_sizes=row.layer_sizes,
        created_ns=row.created_ns,
        stored_ns=row.stored_ns,
        tagged_ns=row.tagged_ns,
        parent=row.parent,
        index=row.index,
        variant_names=row.variant_names,
    )


def _edges(tx: Tx, image: Digest | None) -> Iterable[tuple[str, tuple[str, str]]]:
    where, args = ("WHERE image = ?", (image,)) if image else ("", ())
    own, own_args = ("WHERE id = ?", (image,)) if image else ("", ())
    # S608: the inserted text is one of the constants above
    found = [(row[0], (_KIND_BLOB, row[0])) for row in tx.execute(f"SELECT id FROM image {own}", own_args)]  # noqa: S608
    found += [
        (row[0], (_KIND_BLOB, row[1]))
        for row in tx.execute(f"SELECT image, digest FROM image_document {where}", args)  # noqa: S608
    ]
    found += [
        (row[0], (_KIND_BLOB, row[1]))
        for row in tx.execute(f"SELECT image, digest FROM image_attachment {where}", args)  # noqa: S608
    ]
    found += [
        (row[0], (_KIND_LAYER, row[1]))
        for row in tx.execute(f"SELECT image, diff_id FROM image_layer {where}", args)  # noqa: S608
    ]
    return found


def _check_manifest(data: bytes, media_type: str, config: ImageConfig) -> Descriptor:
    manifest = parse_manifest(data, media_type)
    hasher = new_hasher(algorithm(manifest.config.digest))
    hasher.update(config.raw)
    if hasher.hexdigest() != encoded(manifest.config.digest) or manifest.config.size_bytes != len(config.raw):
        raise ImageBroken("the manifest names another config", manifest=manifest.digest)
    if len(manifest.layers) != len(config.diff_ids):
        raise ImageBroken(
            f"the manifest has {len(manifest.layers)} layers, the config {len(config.diff_ids)}",
            manifest=manifest.digest,
        )
    return manifest.descriptor
