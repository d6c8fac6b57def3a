"""The SQL of images: units of work that `store` runs, values in and out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orlop.images.model import LayerSource
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.reference import Reference, parse_reference
from orlop.store.db import Tx

__all__ = [
    "ImageRow",
    "children",
    "delete_image",
    "delete_name",
    "find_by_name",
    "find_by_prefix",
    "insert_image",
    "insert_sources",
    "load",
    "load_all",
    "new_row",
    "parse_name",
    "put_document",
    "put_name",
    "select_sources",
]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image without its parsed config."""

    id: Digest
    created_ns: int
    stored_ns: int
    tagged_ns: int
    parent: str
    layer_sizes: tuple[int, ...]
    names: tuple[Reference, ...]
    manifest: Descriptor | None
    index: Descriptor | None = None
    variant_names: tuple[Reference, ...] = ()  # names that mean another image unless a platform is given


def parse_name(text: str) -> Reference:
    """A name as it is stored."""
    return parse_reference(text)


def new_row(image: Digest, created_ns: int, now_ns: int, parent: str, layer_sizes: Sequence[int]) -> ImageRow:
    """An image that has no names and no documents yet."""
    return ImageRow(image, created_ns, now_ns, 0, parent, tuple(layer_sizes), (), None)


def load(tx: Tx, image: str) -> ImageRow | None:
    """One image."""
    rows = _load(tx, "WHERE id = ?", "WHERE image = ?", (image,))
    return rows[0] if rows else None


def load_all(tx: Tx) -> list[ImageRow]:
    """Every image, in order of ids; five statements however many there are."""
    return _load(tx, "", "", ())


def _load(tx: Tx, where_id: str, where_image: str, args: Sequence[str]) -> list[ImageRow]:
    sizes: dict[str, list[int]] = {}
    names: dict[str, list[Reference]] = {}
    manifests: dict[str, Descriptor] = {}
    indexes: dict[str, Descriptor] = {}
    # S608: the inserted text is one of two constants above
    for image, size_bytes in tx.execute(
        f"SELECT image, size_bytes FROM image_layer {where_image} ORDER BY image, position",  # noqa: S608
        args,
    ):
        sizes.setdefault(image, []).append(size_bytes)
    for image, name in tx.execute(
        f"SELECT image, name FROM image_name {where_image} ORDER BY name",  # noqa: S608
        args,
    ):
        names.setdefault(image, []).append(parse_reference(name))
    variant_names: dict[str, list[Reference]] = {}
    for image, name in tx.execute(
        f"SELECT image, name FROM image_variant {where_image} ORDER BY name",  # noqa: S608
        args,
    ):
        variant_names.setdefault(image, []).append(parse_reference(name))
    for image, digest, media_type, size_bytes in tx.execute(
        f"SELECT image, digest, media_type, size_bytes FROM image_document {where_image}"  # noqa: S608
        " ORDER BY stored_ns",
        args,
    ):
        kind = indexes if "manifest.list" in media_type or "image.index" in media_type else manifests
        kind[image] = Descriptor(media_type, Digest(digest), size_bytes)
    rows = tx.execute(
        f"SELECT id, created_ns, stored_ns, tagged_ns, parent FROM image {where_id} ORDER BY id",  # noqa: S608
        args,
    )
    return [
        ImageRow(
            id=Digest(row[0]),
            created_ns=row[1],
            stored_ns=row[2],
            tagged_ns=row[3],
            parent=row[4],
            layer_sizes=tuple(sizes.get(row[0], ())),
            names=tuple(names.get(row[0], ())),
            manifest=manifests.get(row[0]),
            index=indexes.get(row[0]),
            variant_names=tuple(variant_names.get(row[0], ())),
        )
        for row in rows
    ]


def find_by_name(tx: Tx, name: Reference) -> str | None:
    """The image id behind a normalised name."""
    value: str | None = tx.value("SELECT image FROM image_name WHERE name = ?", (str(name),))
    return value


def find_by_prefix(tx: Tx, prefix: str) -> list[str]:
    """Up to three image ids that begin with `prefix` (`sha256:` and hex digits)."""
    rows = tx.execute("SELECT id FROM image WHERE id >= ? AND id < ? LIMIT 3", (prefix, prefix + "g"))
    return [row[0] for row in rows]


def children(tx: Tx, image: str) -> list[str]:
    """Images that were made from this one, as far as known."""
    return [row[0] for row in tx.execute("SELECT id FROM image WHERE parent = ? ORDER BY id", (image,))]


def insert_image(tx: Tx, row: ImageRow, diff_ids: Sequence[Digest]) -> None:
    """Write an image and its layers; an image that is there already stays, with a parent if it had none."""
    known = tx.value("SELECT 1 FROM image WHERE id = ?", (row.id,))
    if known is not None:
        tx.execute("UPDATE image SET parent = ? WHERE id = ? AND parent = ''", (row.parent, row.id))
        return
    tx.execute(
        "INSERT INTO image VALUES (?, ?, ?, ?, ?)",
        (row.id, row.created_ns, row.stored_ns, row.tagged_ns, row.parent),
    )
    layers = zip(diff_ids, row.layer_sizes, strict=True)
    tx.executemany(
        "INSERT INTO image_layer VALUES (?, ?, ?, ?)",
        [(row.id, position, diff_id, size) for position, (diff_id, size) in enumerate(layers)],
    )


def put_document(tx: Tx, image: Digest, document: Descriptor, now_ns: int) -> None:
    """Remember a manifest or index that described the image; the latest one is shown."""
    tx.execute(
        "INSERT OR REPLACE INTO image_document VALUES (?, ?, ?, ?, ?)",
        (image, document.digest, document.media_type, document.size_bytes, now_ns),
    )


def put_name(tx: Tx, image: Digest, name: Reference, now_ns: int) -> str | None:
    """Point a name at an image; returns the image that had it before, if another."""
    before = find_by_name(tx, name)
    tx.execute(
        # not REPLACE, which would delete the row and with it the variants of the name
        "INSERT INTO image_name VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET image = excluded.image",
        (str(name), name.name, image, int(name.digest is not None)),
    )
    if name.tag is not None and name.digest is None:
        tx.execute("UPDATE image SET tagged_ns = ? WHERE id = ?", (now_ns, image))
    return before if before != image else None


def delete_name(tx: Tx, name: Reference) -> bool:
    """Take a name away; False when it was not there."""
    return tx.execute("DELETE FROM image_name WHERE name = ?", (str(name),)).rowcount > 0


def delete_image(tx: Tx, image: Digest) -> None:
    """Delete an image with its names, layers and documents; its bytes are left to collection."""
    tx.execute("DELETE FROM image WHERE id = ?", (image,))


def insert_sources(tx: Tx, sources: Iterable[LayerSource], now_ns: int) -> None:
    """Record where compressed layers can be had."""
    tx.executemany(
        "INSERT OR REPLACE INTO layer_source VALUES (?, ?, ?, ?, ?, ?)",
        [
            (item.diff_id, item.digest, item.media_type, item.size_bytes, item.repository, now_ns)
            for item in sources
        ],
    )


def select_sources(tx: Tx, diff_id: Digest) -> list[LayerSource]:
    """Known compressed forms of a layer, the latest seen first."""
    rows = tx.execute(
        "SELECT digest, media_type, size_bytes, repository FROM layer_source"
        " WHERE diff_id = ? ORDER BY seen_ns DESC, digest, repository",
        (diff_id,),
    )
    return [LayerSource(diff_id, Digest(row[0]), row[1], row[2], row[3]) for row in rows]
