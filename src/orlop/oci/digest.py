"""Digests: `algorithm:hex`, checked before they are ever part of a path.

Spec: OCI image-spec, descriptor, "Digests".
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType, Protocol

from orlop.base.errors import InvalidInput

__all__ = [
    "Digest",
    "Hasher",
    "InvalidDigest",
    "algorithm",
    "digest_of",
    "encoded",
    "new_hasher",
    "parse_digest",
]

Digest = NewType("Digest", str)

_FORMS = {"sha256": re.compile(r"[0-9a-f]{64}\Z"), "sha512": re.compile(r"[0-9a-f]{128}\Z")}


class InvalidDigest(InvalidInput):
    """The text is not a digest of a registered algorithm."""

    code = "invalid-digest"


class Hasher(Protocol):
    """What hashlib objects offer; `update` releases the GIL for chunks over 2 KiB."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def parse_digest(text: str) -> Digest:
    """Check the form of a digest.

    Raises:
        InvalidDigest: unknown algorithm, wrong length, upper case, or anything but hex.
    """
    name, _, value = text.partition(":")
    form = _FORMS.get(name)
    if form is None or not form.match(value):
        raise InvalidDigest(
            f"invalid digest {text[:200]!r}", hint="expected sha256: and 64 lower-case hex digits"
        )
    return Digest(text)


def algorithm(digest: Digest) -> str:
    """`sha256` or `sha512`."""
    return digest.partition(":")[0]


def encoded(digest: Digest) -> str:
    """The hex part."""
    return digest.partition(":")[2]


def new_hasher(name: str = "sha256") -> Hasher:
    """A fresh hash object of a registered algorithm."""
    if name not in _FORMS:
        raise InvalidDigest(f"unsupported digest algorithm {name[:40]!r}", hint="use sha256 or sha512")
    return hashlib.new(name, usedforsecurity=True)


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """The sha256 digest of bytes in memory."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
