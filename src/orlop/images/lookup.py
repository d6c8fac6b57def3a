"""From what people write - a name, an id, the beginning of an id - to the row of an image."""

from __future__ import annotations

from dataclasses import replace

from orlop.images import rows
from orlop.images.model import AmbiguousImage, ImageNotFound
from orlop.oci.digest import Digest, InvalidDigest, parse_digest
from orlop.oci.reference import Reference, parse_reference
from orlop.store.db import Tx

__all__ = ["lookup"]

_HEX = frozenset("0123456789abcdef")


def lookup(tx: Tx, text: str) -> tuple[rows.ImageRow, Reference | None]:
    """The image that a name, an id or the beginning of an id means, and the name, if it is one.

    Raises:
        ImageNotFound, AmbiguousImage, InvalidReference: as `ImageStore.resolve`.
    """
    image, name = _lookup_id(tx, text)
    row = rows.load(tx, image)
    assert row is not None, "a name points at an image: foreign key"
    return row, name


def _lookup_id(tx: Tx, text: str) -> tuple[str, Reference | None]:
    full = _full_id(text)
    if full is not None:
        if rows.load(tx, full) is None:
            raise ImageNotFound(f"No such image: {full}")
        return full, None
    prefix = text.removeprefix("sha256:")
    is_prefix = bool(prefix) and len(prefix) < 64 and set(prefix) <= _HEX
    name = parse_reference(text).with_default_tag()
    if name.digest is not None:
        name = replace(name, tag=None)  # the digest says it all
    image = rows.find_by_name(tx, name)
    if image is not None:
        return image, name
    matches = rows.find_by_prefix(tx, f"sha256:{prefix}") if is_prefix else []
    if len(matches) > 1:
        raise AmbiguousImage(
            f'image id prefix "{text}" is ambiguous: it begins {" and ".join(matches[:2])}',
            hint="give more digits",
        )
    if matches:
        return matches[0], None
    raise ImageNotFound(f"No such image: {name.familiar}")


def _full_id(text: str) -> Digest | None:
    if len(text) == 64 and set(text) <= _HEX:
        return Digest(f"sha256:{text}")
    try:
        return parse_digest(text)
    except InvalidDigest:
        return None
