"""EROFS on disk, as far as Orlop writes it: numbers, superblock, inodes, attributes, directories.

Blocks of 512 bytes, so that a tar member's data is block-aligned where it stands. Only extended
inodes (64 bytes) in two layouts: *plain* (data in consecutive blocks) and *inline* (all data right
behind the inode, inside one block). Inodes are addressed by `nid`, in units of 32 bytes from the start of
the metadata. Nothing is compressed, chunked or shared; the reader refuses what the writer never writes.

```
inode | attribute header (12) + attributes, 4-aligned | inline data
directory block: 12-byte dirents, then their names
```
Spec: Linux `Documentation/filesystems/erofs.rst`, on-disk structures of `fs/erofs/erofs_fs.h`.
"""

from __future__ import annotations

from struct import Struct

from orlop.base.errors import Kind, OrlopError
from orlop.wire.tarheader import EntryKind

__all__ = [
    "BLOCK_BITS",
    "BLOCK_SIZE",
    "FILE_TYPES",
    "INODE",
    "MAX_XATTR_TOTAL",
    "SUPERBLOCK_OFFSET",
    "SUPERBLOCK_SIZE",
    "ErofsError",
    "decode_device",
    "decode_xattrs",
    "encode_device",
    "encode_superblock",
    "encode_xattrs",
]

BLOCK_BITS = 9
BLOCK_SIZE = 1 << BLOCK_BITS
SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_SIZE = 128
MAGIC = 0xE0F5E1E2
COMPAT_MTIME = 0x2  # the time in an inode is the modification time
SLOT = 32
INODE_SIZE = 64
NULL_BLOCK = 0xFFFFFFFF
FORMAT_PLAIN = 1  # bit 0: extended; bits 1-3: layout
FORMAT_INLINE = 1 | 2 << 1
DIRENT = Struct("<QHBx")
# format, attribute count, mode, reserved, size, block or device, ino, uid, gid, seconds, nanoseconds, links
INODE = Struct("<HHHHQIIIIQII16x")
# magic, checksum, compat, block bits, slots, root nid, inodes, time, nanoseconds, blocks, metadata block,
# shared attribute block, uuid, label, incompat; the rest is zero
SUPERBLOCK = Struct("<IIIBBHQQIIII16s16sI44x")

FILE_TYPES = {  # dirent type and the type bits of the mode
    EntryKind.FILE: (1, 0o100000),
    EntryKind.DIRECTORY: (2, 0o040000),
    EntryKind.CHAR: (3, 0o020000),
    EntryKind.BLOCK: (4, 0o060000),
    EntryKind.FIFO: (5, 0o010000),
    EntryKind.SYMLINK: (7, 0o120000),
}

_XATTR_HEADER = 12
MAX_XATTR_TOTAL = 65535 * 4
_PREFIXES = (  # longest first where one begins another
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
_WHOLE = (2, 3)  # the prefix is the whole name
_ENTRY = Struct("<BBH")


class ErofsError(OrlopError):
    """The metadata of a layer file is not what its writer left."""

    kind = Kind.CORRUPT
    code = "layer-index-corrupt"
    remedy = "remove the image and pull or build it again; orlop fsck tells what else is damaged"


def encode_superblock(
    *, root_nid: int, inode_count: int, block_count: int, meta_block: int, uuid: bytes
) -> bytes:
    """The 128 bytes at offset 1024. `uuid` is 16 bytes; times are per inode."""
    return SUPERBLOCK.pack(
        MAGIC,
        0,
        COMPAT_MTIME,
        BLOCK_BITS,
        0,
        root_nid,
        inode_count,
        0,
        0,
        block_count,
        meta_block,
        0,
        uuid,
        b"",
        0,
    )


def encode_device(major: int, minor: int) -> int:
    """The kernel's 32-bit form of a device number (12 bits major, 20 bits minor)."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def decode_device(value: int) -> tuple[int, int]:
    """The inverse of `encode_device`."""
    return (value >> 8) & 0xFFF, (value & 0xFF) | ((value >> 12) & 0xFFF00)


def encode_xattrs(xattrs: dict[bytes, bytes]) -> bytes:
    """The attribute area behind an inode; empty if none of the names can be stored.

    Names of other namespaces than user, trusted, security and the two POSIX ACLs do not exist on
    any file system of Linux that could take them: left out.

    Raises:
        ValueError: more than fits behind one inode.
    """
    body = bytearray()
    for name in sorted(xattrs):
        for prefix, index in _PREFIXES:
            if name == prefix if index in _WHOLE else name.startswith(prefix) and len(name) > len(prefix):
                value = xattrs[name]
                suffix = name[len(prefix) :]
                body += _ENTRY.pack(len(suffix), index, len(value)) + suffix + value
                body += bytes(-len(body) % 4)
                break
    if len(body) + 4 > MAX_XATTR_TOTAL:
        raise ValueError(f"{len(body)} bytes of extended attributes")
    return bytes(_XATTR_HEADER) + bytes(body) if body else b""


def xattr_count(area_size: int) -> int:
    """The inode's field for an attribute area of that size."""
    return (area_size - _XATTR_HEADER) // 4 + 1 if area_size else 0


def xattr_size(count: int) -> int:
    """The inverse of `xattr_count`."""
    return _XATTR_HEADER + (count - 1) * 4 if count else 0


def decode_xattrs(area: bytes) -> dict[bytes, bytes]:
    """The inverse of `encode_xattrs`.

    Raises:
        ErofsError: the area does not hold what it promises.
    """
    names = {index: prefix for prefix, index in _PREFIXES}
    found: dict[bytes, bytes] = {}
    at = _XATTR_HEADER
    if area and area[4]:
        raise ErofsError("corrupt layer: shared extended attributes")
    while at + 4 <= len(area):
        name_length, index, value_length = _ENTRY.unpack_from(area, at)
        value_at = at + 4 + name_length
        if index not in names or value_at + value_length > len(area):
            raise ErofsError("corrupt layer: bad extended attribute")
        name = names[index] + area[at + 4 : value_at]
        found[name] = area[value_at : value_at + value_length]
        at = (value_at + value_length + 3) // 4 * 4
    return found
