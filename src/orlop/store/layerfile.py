"""The frame of a layer file: what its first 4096 bytes say, and how they are checked.

Layout and write order: docs/internals/layers.md. Pure but for `read_head`; imported by workers,
so nothing here may import sqlite3 or asyncio.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from struct import Struct
from zlib import crc32

from orlop.base.errors import Kind, OrlopError
from orlop.oci.digest import Digest, InvalidDigest, encoded, parse_digest
from orlop.wire.erofs import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from orlop.wire.erofswrite import TAR_OFFSET

__all__ = ["TAR_OFFSET", "LayerCorrupt", "LayerHead", "decode_head", "encode_head", "layer_uuid", "read_head"]

MAGIC = b"orlop\0L\n"
VERSION = 1
FLAG_OPAQUE = 1  # the layer's root hides everything below the layer
FLAG_ROOT = 2  # the archive had an entry for the root itself
# magic, version, crc32 of the head with this field zero, tar size, metadata offset and length, file size,
# entries, inodes, content bytes, flags, sha256 of the metadata, diff id
_HEAD = Struct("<8sIIQQQQQQQI4x32s160s")
_CRC_OFFSET = 12


class LayerCorrupt(OrlopError):
    """A stored layer is not what its head or its name promises."""

    kind = Kind.CORRUPT
    code = "layer-corrupt"
    remedy = "remove the image and pull or build it again; orlop fsck tells what else is damaged"


@dataclass(frozen=True, slots=True)
class LayerHead:
    """What the head of a layer file states. Offsets and sizes are in bytes of the file."""

    diff_id: Digest
    tar_size: int
    metadata_offset: int
    metadata_size: int
    file_size: int
    entry_count: int
    inode_count: int
    content_bytes: int
    is_opaque: bool
    has_root: bool
    metadata_sha256: bytes


def layer_uuid(diff_id: Digest) -> bytes:
    """The superblock's uuid: the first 16 bytes of the digest."""
    return bytes.fromhex(encoded(diff_id)[:32])


def encode_head(head: LayerHead, superblock: bytes) -> bytes:
    """The first 4096 bytes of the file."""
    assert len(superblock) == SUPERBLOCK_SIZE
    flags = (FLAG_OPAQUE if head.is_opaque else 0) | (FLAG_ROOT if head.has_root else 0)
    block = bytearray(TAR_OFFSET)
    _HEAD.pack_into(
        block,
        0,
        MAGIC,
        VERSION,
        0,
        head.tar_size,
        head.metadata_offset,
        head.metadata_size,
        head.file_size,
        head.entry_count,
        head.inode_count,
        head.content_bytes,
        flags,
        head.metadata_sha256,
        head.diff_id.encode("ascii"),
    )
    block[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE] = superblock
    block[_CRC_OFFSET : _CRC_OFFSET + 4] = crc32(block).to_bytes(4, "little")
    return bytes(block)


def decode_head(block: bytes, file_size: int, name: str) -> LayerHead:
    """Check and read the first 4096 bytes of the file called `name` (for messages).

    Raises:
        LayerCorrupt: torn, truncated, of another version, or inconsistent in itself.
    """
    if len(block) != TAR_OFFSET or block[:8] != MAGIC:
        raise LayerCorrupt(f'layer file "{name}" has no head', hint="remove the image and pull it again")
    fields = _HEAD.unpack_from(block)
    zeroed = block[:_CRC_OFFSET] + bytes(4) + block[_CRC_OFFSET + 4 :]
    if fields[2] != crc32(zeroed):
        raise LayerCorrupt(f'the head of layer file "{name}" is damaged', hint="pull the image again")
    if fields[1] != VERSION:
        raise LayerCorrupt(f'layer file "{name}" has version {fields[1]}, this engine reads {VERSION}')
    try:
        diff_id = parse_digest(fields[12].rstrip(b"\0").decode("ascii", "replace"))
    except InvalidDigest as error:
        raise LayerCorrupt(f'layer file "{name}" names no digest') from error
    if fields[6] != file_size:
        raise LayerCorrupt(f'layer file "{name}" has {file_size} bytes instead of {fields[6]}')
    return LayerHead(
        diff_id,
        tar_size=fields[3],
        metadata_offset=fields[4],
        metadata_size=fields[5],
        file_size=fields[6],
        entry_count=fields[7],
        inode_count=fields[8],
        content_bytes=fields[9],
        is_opaque=bool(fields[10] & FLAG_OPAQUE),
        has_root=bool(fields[10] & FLAG_ROOT),
        metadata_sha256=fields[11],
    )


def read_head(fd: int, name: str) -> LayerHead:
    """`decode_head` of an open file.

    Raises:
        LayerCorrupt: as there.
    """
    return decode_head(os.pread(fd, TAR_OFFSET, 0), os.fstat(fd).st_size, name)
