r"""One 512-byte tar header block: numbers, checksum, dialects, and the entry it describes.

Dialects told apart by the magic at 257: `ustar\0` (POSIX, prefix at 345), `ustar  \0` (GNU, no prefix),
`ustar\0` with `tar\0` at 508 (star, short prefix), anything else (v7, no device numbers, no prefix).

Spec: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from struct import Struct
from zlib import adler32

from orlop.base.errors import Kind, OrlopError

__all__ = [
    "BLOCK",
    "MAX_COMPONENT_BYTES",
    "MAX_ENTRIES",
    "MAX_PATH_BYTES",
    "MAX_SIZE_BYTES",
    "NO_XATTRS",
    "EntryKind",
    "TarEntry",
    "TarError",
    "check_checksum",
    "decode_block",
    "show",
]

BLOCK = 512
MAX_ENTRIES = 4_000_000
MAX_PATH_BYTES = 4096
MAX_COMPONENT_BYTES = 255
MAX_SIZE_BYTES = (1 << 63) - 1
MAX_ID = (1 << 32) - 2  # the last value means "leave unchanged" to chown(2)
MAX_MAJOR = (1 << 12) - 1  # the kernel's own widths
MAX_MINOR = (1 << 20) - 1
_NANO = 1_000_000_000
_CACHE_LIMIT = 4096

NO_XATTRS: dict[bytes, bytes] = {}  # shared by all entries without any; never written to


class TarError(OrlopError):
    """The archive is not one we accept; the message names the entry and the offset of its header."""

    kind = Kind.INVALID
    code = "invalid-tar"


class EntryKind(enum.Enum):
    """What an entry makes; the value is the type byte we write."""

    FILE = b"0"
    HARDLINK = b"1"
    SYMLINK = b"2"
    CHAR = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"

    __hash__ = object.__hash__  # members are singletons; enum's own hash is slow Python


@dataclass(slots=True)
class TarEntry:
    """One member as the archive states it; `path` and `link` are the archive's bytes, not yet trusted.

    `size` is the size of the file, `stored_size` the bytes that follow the header (they differ
    for sparse files only). `sparse` lists (offset in the file, length) of the stored pieces.
    Offsets count from the start of the archive; `offset` is that of the first header block.
    """

    path: bytes
    kind: EntryKind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=lambda: NO_XATTRS)
    major: int = 0
    minor: int = 0
    offset: int = 0
    data_offset: int = 0
    stored_size: int = 0
    sparse: tuple[tuple[int, int], ...] | None = None


# name | mode uid gid | size | mtime | checksum | type | link | magic | (user names) | device | prefix
_FIELDS = Struct("100s24s12s12s8sc100s8s64x16s155s12x").unpack
_CODES = {
    b"0": EntryKind.FILE,
    b"\0": EntryKind.FILE,
    b"7": EntryKind.FILE,  # contiguous: a hint to allocators of the past
    b"S": EntryKind.FILE,  # old GNU sparse
    b"1": EntryKind.HARDLINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.CHAR,
    b"4": EntryKind.BLOCK,
    b"5": EntryKind.DIRECTORY,
    b"6": EntryKind.FIFO,
}
_POSIX, _GNU = b"ustar\x00", b"ustar  \x00"
_FILE = EntryKind.FILE
_SPACES = b" " * 8
_ENDS = b"\0 "
_CHECKSUM_ENDS = (b"\0 ", b" \0")  # the two common ways; what int() takes beyond digits, the sum settles

_owners: dict[bytes, tuple[int, int, int]] = {}  # mode, uid and gid fields seen so far: few distinct ones
_times: dict[bytes, int] = {}


def show(name: bytes) -> str:
    """A name for messages: quoted, control and non-UTF-8 bytes escaped, shortened."""
    text = name[:200].decode("utf-8", "backslashreplace")
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text) + '"'


def parse_number(field: bytes) -> int:
    """Octal text (spaces and NULs around it) or base-256; empty counts as 0.

    Raises:
        ValueError: anything else.
    """
    if field.isdigit():  # not int() alone: it takes signs, underscores and prefixes
        return int(field, 8)
    if field[0] & 0x80:  # base-256: the top bit is the mark, the next one the sign
        value, bits = int.from_bytes(field, "big"), 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    text = field.strip(b" \0")
    if not text:
        return 0
    if not text.isdigit():
        raise ValueError(f"not an octal number: {field!r}")
    return int(text, 8)


def check_checksum(block: bytes, stored: bytes, offset: int) -> None:
    """Compare with the sum of unsigned bytes, and with that of signed bytes as old tars wrote it.

    Raises:
        TarError: neither matches.
    """
    try:
        wanted = int(stored[:6], 8) if stored[6:] in _CHECKSUM_ENDS else parse_number(stored)
    except ValueError:
        wanted = -1
    # adler32's low half is the byte sum plus one modulo 65521: exact here while all bytes are ASCII
    if block.isascii() and (adler32(block) & 0xFFFF) - 1 - sum(stored) + 256 == wanted:
        return
    body = block[:148] + _SPACES + block[156:]
    unsigned = sum(body)
    if wanted not in (unsigned, unsigned - 256 * sum(1 for byte in body if byte > 127)):
        raise TarError(f"invalid tar header at offset {offset}: the checksum does not match", offset=offset)


def decode_block(block: bytes, offset: int) -> tuple[bytes, TarEntry]:
    """Read a header block whose checksum still has to be checked.

    Returns:
        The type byte and an entry without extensions applied. For extension headers (x, g, L, K)
        and unknown types the kind is meaningless; the caller looks at the type byte first.

    Raises:
        TarError: bad checksum, numbers that are none or out of range.
    """
    name, owner, size_field, time_field, stored, code, link, magic, device, prefix = _FIELDS(block)
    check_checksum(block, stored, offset)
    if 0 in name:
        name = name[: name.index(0)]
    if magic[:6] == _POSIX:
        if block[508:] == b"tar\0":
            prefix = prefix[:131]
        if prefix[0]:
            name = prefix.partition(b"\0")[0] + b"/" + name
    try:
        ids = _owners.get(owner) or _parse_owner(owner)
        digits = size_field[:11]
        size = int(digits, 8) if digits.isdigit() and size_field[11] in _ENDS else parse_number(size_field)
        seconds = _times.get(time_field)
        if seconds is None:
            seconds = _parse_time(time_field)
    except ValueError as error:
        raise TarError(f"invalid tar header at offset {offset} of {show(name)}: {error}") from error
    if not 0 <= size <= MAX_SIZE_BYTES:
        raise TarError(f"invalid size {size} in the tar header at offset {offset} of {show(name)}")
    kind = _CODES.get(code, _FILE)
    mode, uid, gid = ids
    if kind is _FILE:
        return code, TarEntry(
            name, kind, mode, uid, gid, size, seconds, b"", NO_XATTRS, 0, 0, offset, offset + BLOCK, size
        )
    entry = TarEntry(name, kind, mode, uid, gid, 0, seconds)
    entry.offset = offset
    entry.data_offset = offset + BLOCK
    entry.link = link.partition(b"\0")[0]
    if kind in (EntryKind.CHAR, EntryKind.BLOCK) and magic[:5] == b"ustar":
        entry.major, entry.minor = _parse_device(device, name, offset)
    return code, entry


def _parse_owner(owner: bytes) -> tuple[int, int, int]:
    mode, uid, gid = (parse_number(owner[at : at + 8]) for at in (0, 8, 16))
    for value in (uid, gid):
        if not 0 <= value <= MAX_ID:
            raise ValueError(f"owner {value} is out of range")
    if len(_owners) >= _CACHE_LIMIT:
        _owners.clear()
    result = _owners[owner] = (mode & 0o7777, uid, gid)
    return result


def _parse_time(field: bytes) -> int:
    seconds = parse_number(field)
    if not -(1 << 63) <= seconds < 1 << 63:
        raise ValueError(f"time {seconds} is out of range")
    if len(_times) >= _CACHE_LIMIT:
        _times.clear()
    result = _times[field] = seconds * _NANO
    return result


def _parse_device(device: bytes, name: bytes, offset: int) -> tuple[int, int]:
    try:
        major, minor = parse_number(device[:8]), parse_number(device[8:])
    except ValueError as error:
        raise TarError(f"invalid tar header at offset {offset} of {show(name)}: {error}") from error
    if not (0 <= major <= MAX_MAJOR and 0 <= minor <= MAX_MINOR):
        raise TarError(f"device number {major}:{minor} of {show(name)} is out of range (offset {offset})")
    return major, minor
