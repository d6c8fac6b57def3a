"""PAX extended headers and sparse maps: what stands beside a tar header and changes its meaning.

Two choices where readers in the field disagree. A global header (`g`) applies its owner, group and
time to what follows, as POSIX says; one that states paths, sizes or sparse maps is refused, since a
reader that ignores globals (Docker does) would see another tree. Extended attributes come from
`SCHILY.xattr.`; the twin `LIBARCHIVE.xattr.` is ignored.

Spec: POSIX.1-2017 pax, "pax Extended Header"; GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

import re

from orlop.wire.tarheader import (
    BLOCK,
    MAX_ID,
    MAX_PATH_BYTES,
    MAX_SIZE_BYTES,
    TarEntry,
    TarError,
    parse_number,
    show,
)

__all__ = ["MAX_PAX_BYTES", "MAX_XATTR_BYTES", "SparseMap", "apply_pax", "parse_records", "parse_time_ns"]

MAX_PAX_BYTES = 1 << 20
MAX_XATTR_BYTES = 64 << 10  # one value: the kernel's XATTR_SIZE_MAX
MAX_XATTR_NAME_BYTES = 255
MAX_SPARSE_PIECES = 1 << 20

Records = list[tuple[bytes, bytes]]
SparseMap = tuple[tuple[int, int], ...]

_XATTR = b"SCHILY.xattr."
_NO_NUL = frozenset((b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.name"))
_NOT_GLOBAL = (b"path", b"linkpath", b"size", b"GNU.sparse.", _XATTR)
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?\Z")
_DECIMAL = re.compile(rb"[0-9]{1,20}\Z")


def parse_records(data: bytes, offset: int, *, is_global: bool = False) -> Records:
    r"""Split `LENGTH KEY=VALUE\n` records; order and repetitions are kept.

    Raises:
        TarError: a length that does not fit, a missing `=`, a NUL where none may be, or a
            global header with keys that only belong to one entry.
    """
    records: Records = []
    at, end = 0, len(data)
    while at < end:
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        if length < len(digits) + 4 or at + length > end or data[at + length - 1] != 0x0A:
            raise TarError(f"malformed pax record in the header at offset {offset}")
        key, equals, value = data[space + 1 : at + length - 1].partition(b"=")
        if not equals or not key or b"\0" in key or (key in _NO_NUL and b"\0" in value):
            raise TarError(f"malformed pax record {show(key)} in the header at offset {offset}")
        if is_global and key.startswith(_NOT_GLOBAL):
            raise TarError(
                f"global pax header at offset {offset} sets {show(key)}, which readers take differently"
            )
        records.append((key, value))
        at += length
    return records


def parse_time_ns(value: bytes) -> int:
    """Decimal seconds with a fraction, possibly negative; digits past the ninth are dropped.

    Raises:
        ValueError: not such a number, or out of the range of 64-bit seconds.
    """
    match = _TIME.match(value)
    if match is None:
        raise ValueError(f"not a time: {value[:40]!r}")
    sign, seconds, fraction = match.groups()
    total = int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    if int(seconds) >= 1 << 63:
        raise ValueError(f"time {value[:40]!r} is out of range")
    return -total if sign else total


def _decimal(value: bytes, limit: int) -> int:
    if not _DECIMAL.match(value) or int(value) > limit:
        raise ValueError(f"not a number from 0 to {limit}: {value[:40]!r}")
    return int(value)


def apply_pax(entry: TarEntry, records: Records) -> list[tuple[bytes, bytes]]:
    """Override fields of `entry` in place; returns the `GNU.sparse.` records, unread.

    An empty value leaves what the header said. `size` sets the stored size.

    Raises:
        TarError: a value that is not what its key demands.
    """
    sparse: Records = []
    try:
        for key, value in records:
            if key.startswith(b"GNU.sparse."):
                sparse.append((key[11:], value))
            elif key.startswith(_XATTR):
                _add_xattr(entry, key[len(_XATTR) :], value)
            elif value:
                _apply_field(entry, key, value)
    except ValueError as error:
        raise TarError(
            f"invalid pax header of {show(entry.path)} at offset {entry.offset}: {error}", offset=entry.offset
        ) from error
    return sparse


def _apply_field(entry: TarEntry, key: bytes, value: bytes) -> None:
    if key == b"path":
        entry.path = value
    elif key == b"linkpath":
        entry.link = value
    elif key == b"mtime":
        entry.mtime_ns = parse_time_ns(value)
    elif key == b"uid":
        entry.uid = _decimal(value, MAX_ID)
    elif key == b"gid":
        entry.gid = _decimal(value, MAX_ID)
    elif key == b"size":
        entry.size = entry.stored_size = _decimal(value, MAX_SIZE_BYTES)


def _add_xattr(entry: TarEntry, name: bytes, value: bytes) -> None:
    if not name or len(name) > MAX_XATTR_NAME_BYTES:
        raise ValueError(f"extended attribute name of {len(name)} bytes")
    if len(value) > MAX_XATTR_BYTES:
        raise ValueError(f"extended attribute {show(name)} of {len(value)} bytes")
    if not entry.xattrs:
        entry.xattrs = {}
    entry.xattrs[name] = value


def checked_map(pieces: list[tuple[int, int]], size: int, stored: int) -> SparseMap:
    """The pieces if they are in order, apart, inside `size`, and add up to `stored`.

    Raises:
        ValueError: they are not.
    """
    at = total = 0
    for start, length in pieces:
        if start < at or start + length > size:
            raise ValueError(f"sparse piece at {start} of {length} bytes does not fit")
        at = start + length
        total += length
    if total != stored:
        raise ValueError(f"sparse pieces hold {total} bytes, the archive stores {stored}")
    return tuple(piece for piece in pieces if piece[1])


def pax_sparse(entry: TarEntry, records: Records) -> bool:
    """Apply `GNU.sparse.` records of formats 0.0 and 0.1; True if a 1.0 map leads the data.

    Raises:
        ValueError: unknown version, or a map that does not fit.
    """
    values = dict(records)
    size = values.get(b"realsize", values.get(b"size"))
    name = values.get(b"name")
    if name:
        entry.path = name
    version = (values.get(b"major", b"0"), values.get(b"minor", b"1" if b"map" in values else b"0"))
    if size is None:
        raise ValueError("sparse file without its size")
    entry.size = _decimal(size, MAX_SIZE_BYTES)
    if version == (b"1", b"0"):
        return True
    if version[0] != b"0":
        raise ValueError(f"unknown sparse format {version[0][:20]!r}")
    if b"map" in values:
        numbers = values[b"map"].split(b",") if values[b"map"] else []
    else:
        numbers = [value for key, value in records if key in (b"offset", b"numbytes")]
        if [key for key, _ in records if key in (b"offset", b"numbytes")] != [
            b"offset",
            b"numbytes",
        ] * (len(numbers) // 2):
            raise ValueError("sparse offsets and lengths do not alternate")
    entry.sparse = checked_map(_pairs(numbers), entry.size, entry.stored_size)
    return False


def _pairs(numbers: list[bytes]) -> list[tuple[int, int]]:
    if len(numbers) % 2 or len(numbers) > 2 * MAX_SPARSE_PIECES:
        raise ValueError(f"sparse map of {len(numbers)} numbers")
    values = [_decimal(number, MAX_SIZE_BYTES) for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


class MapReader:
    """The map of a 1.0 sparse file: decimal lines at the start of the stored data, in whole blocks."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._lines = 0
        self._wanted = 0  # lines of the whole map; 0 until the first one is read

    def feed(self, block: bytes) -> list[tuple[int, int]] | None:
        """Take the next block; the pieces once the map is complete.

        Raises:
            ValueError: not decimal lines, or too many.
        """
        self._data += block
        self._lines += block.count(b"\n")
        if not self._wanted and self._lines:
            first = bytes(self._data[: self._data.index(b"\n")])
            self._wanted = 1 + 2 * _decimal(first, MAX_SPARSE_PIECES)
        if not self._wanted or len(self._data) > 21 * self._wanted + BLOCK:
            raise ValueError("sparse map without its count or with overlong lines")
        if self._lines < self._wanted:
            return None
        return _pairs(bytes(self._data).split(b"\n", self._wanted)[1 : self._wanted])


def old_gnu_pieces(block: bytes, at: int, count: int) -> list[tuple[int, int]]:
    """Pieces of a GNU `S` header (4 of them, at 386) or of one of its extension blocks (21, at 0).

    Raises:
        ValueError: not numbers.
    """
    pieces = []
    for index in range(count):
        start = at + 24 * index
        if not block[start]:
            break
        pair = parse_number(block[start : start + 12]), parse_number(block[start + 12 : start + 24])
        if pair[0] < 0 or pair[1] < 0:
            raise ValueError("negative number")
        pieces.append(pair)
    return pieces


def check_names(entry: TarEntry) -> None:
    """Refuse names that no file system could hold.

    Raises:
        TarError: empty or too long, or a link without a target.
    """
    for what, name in (("path", entry.path), ("link target", entry.link)):
        if len(name) > MAX_PATH_BYTES:
            raise TarError(
                f"{what} of {len(name)} bytes at offset {entry.offset}: the limit is {MAX_PATH_BYTES}"
            )
    if not entry.path:
        raise TarError(f"entry without a name at offset {entry.offset}", offset=entry.offset)
