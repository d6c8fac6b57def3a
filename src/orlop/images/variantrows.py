"""The SQL of names that stand for several platforms and of attachments: units of work for `store`.

A name has one image that it means when nobody says a platform (`image_name.image`), and may have
further ones, its *variants*: other entries of the index that the name was pulled or loaded with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orlop.images import rows
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.reference import Reference
from orlop.store.db import Tx

__all__ = [
    "add_variants",
    "insert_attachments",
    "point",
    "promote",
    "select_attachments",
    "select_variants",
    "variants_of",
]

IsNative = Callable[[Digest], bool]


def point(
    tx: Tx, image: Digest, name: Reference, now_ns: int, index: Digest | None, is_native: IsNative
) -> str | None:
    """Point a name at an image that came from `index`; images of the same index stay beside it.

    The one for this machine is what the name means; without one, the one that was there first.
    Returns the image that the name does not stand for any more, if there is one.
    """
    before = rows.find_by_name(tx, name)
    old = [] if before is None else [Digest(before), *variants_of(tx, name)]
    kept = [item for item in old if item != image and index is not None and _has_document(tx, item, index)]
    native = next((item for item in (image, *kept) if is_native(item)), None)
    first = native or next((item for item in old if item in kept), image)
    rows.put_name(tx, first, name, now_ns)
    tx.execute("DELETE FROM image_variant WHERE name = ?", (str(name),))
    tx.executemany(
        "INSERT INTO image_variant VALUES (?, ?)",
        [(str(name), item) for item in {image, *kept} - {first}],
    )
    return before if before is not None and before not in {image, *kept} else None


def add_variants(tx: Tx, name: Reference, images: Iterable[Digest]) -> None:
    """Let a name stand for further images."""
    tx.executemany("INSERT OR IGNORE INTO image_variant VALUES (?, ?)", [(str(name), one) for one in images])


def variants_of(tx: Tx, name: Reference) -> list[Digest]:
    """The further images of a name."""
    found = tx.execute("SELECT image FROM image_variant WHERE name = ? ORDER BY image", (str(name),))
    return [Digest(row[0]) for row in found]


def select_variants(tx: Tx) -> list[tuple[Digest, Digest]]:
    """(image that a name means, further image of that name), each pair once."""
    found = tx.execute(
        "SELECT DISTINCT n.image, v.image FROM image_variant v JOIN image_name n ON n.name = v.name"
        " ORDER BY n.image, v.image"
    )
    return [(Digest(row[0]), Digest(row[1])) for row in found]


def promote(tx: Tx, image: Digest, now_ns: int, is_native: IsNative) -> None:
    """Before an image goes: names that have other images mean one of those from now on."""
    names = tx.execute("SELECT name FROM image_name WHERE image = ?", (image,)).fetchall()
    for (text,) in names:
        name = rows.parse_name(text)
        others = variants_of(tx, name)
        if others:
            heir = next((item for item in others if is_native(item)), others[0])
            rows.put_name(tx, heir, name, now_ns)
            tx.execute("DELETE FROM image_variant WHERE name = ? AND image = ?", (text, heir))


def insert_attachments(tx: Tx, image: Digest, attachments: Iterable[Descriptor]) -> None:
    """Keep blobs with an image."""
    tx.executemany(
        "INSERT OR IGNORE INTO image_attachment VALUES (?, ?, ?, ?)",
        [(image, item.digest, item.media_type, item.size_bytes) for item in attachments],
    )


def select_attachments(tx: Tx, image: Digest | None = None) -> dict[Digest, Descriptor]:
    """Blobs kept with one image, or with any."""
    where, args = ("WHERE image = ?", (image,)) if image else ("", ())
    # S608: the inserted text is one of the constants above
    found = tx.execute(f"SELECT digest, media_type, size_bytes FROM image_attachment {where}", args)  # noqa: S608
    return {Digest(row[0]): Descriptor(row[1], Digest(row[0]), row[2]) for row in found}


def _has_document(tx: Tx, image: Digest, digest: Digest) -> bool:
    query = "SELECT 1 FROM image_document WHERE image = ? AND digest = ?"
    return tx.value(query, (image, digest)) is not None
