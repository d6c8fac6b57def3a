"""Packages of an image from the databases of dpkg and apk. Pure: text in, names and versions out.

The databases were written by a stranger: what cannot be read is left out, and every length has a limit.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["MAX_DATABASE_BYTES", "is_database", "parse_packages"]

MAX_DATABASE_BYTES = 64 << 20
_MAX_PACKAGES = 50_000
_MAX_FIELD = 256
_DPKG = b"var/lib/dpkg/status"
_DPKG_PARTS = b"var/lib/dpkg/status.d/"  # images without a shell: one file for each package
_APK = (b"lib/apk/db/installed", b"usr/lib/apk/db/installed")


def is_database(path: bytes) -> bool:
    """True for files that list installed packages."""
    is_part = path.startswith(_DPKG_PARTS) and not path.endswith(b".md5sums")
    return path == _DPKG or path in _APK or is_part


def parse_packages(path: bytes, data: bytes) -> dict[str, str]:
    """Names and versions in a database; a foreign architecture is part of the name."""
    paragraphs = _paragraphs(data[:MAX_DATABASE_BYTES])
    rows = _apk(paragraphs) if path in _APK else _dpkg(paragraphs)
    found: dict[str, str] = {}
    for name, version in rows:
        if len(found) >= _MAX_PACKAGES:
            break
        found[name] = version
    return found


def _paragraphs(data: bytes) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            key, colon, value = line.partition(":")
            if colon:
                fields.setdefault(key, value.strip()[:_MAX_FIELD])
    if fields:
        yield fields


def _dpkg(paragraphs: Iterator[dict[str, str]]) -> Iterator[tuple[str, str]]:
    for fields in paragraphs:
        status = fields.get("Status", "install ok installed")
        if "Package" in fields and "Version" in fields and status.endswith(" installed"):
            yield fields["Package"], fields["Version"]


def _apk(paragraphs: Iterator[dict[str, str]]) -> Iterator[tuple[str, str]]:
    for fields in paragraphs:
        if "P" in fields and "V" in fields:
            yield fields["P"], fields["V"]
