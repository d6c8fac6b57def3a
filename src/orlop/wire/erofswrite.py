"""Lay a layer's tree out as EROFS metadata: sizes and addresses first, then bytes.

Pure. File data is not moved: an inode points at its bytes inside the tar, which stands at
`TAR_OFFSET` of the layer file. Sparse files, and only they, get an area behind the metadata, as
long as the file is and with holes where it has holes; the caller copies the pieces there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orlop.wire.erofs import (
    BLOCK_BITS,
    BLOCK_SIZE,
    DIRENT,
    FILE_TYPES,
    FORMAT_INLINE,
    FORMAT_PLAIN,
    INODE,
    INODE_SIZE,
    SLOT,
    encode_device,
    encode_superblock,
    encode_xattrs,
    xattr_count,
)
from orlop.wire.layertree import Inode
from orlop.wire.tarheader import EntryKind, TarEntry, TarError, show

__all__ = ["TAR_OFFSET", "CopyPlan", "ErofsImage", "build_erofs"]

TAR_OFFSET = 4096
MAX_BLOCKS = (1 << 32) - 2  # 2 TiB
_NANO = 1_000_000_000
_U64 = (1 << 64) - 1
_OPAQUE = b"trusted.overlay.opaque"


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """`length` bytes at `source` of the layer file belong at `target` too."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class ErofsImage:
    """What frames a tar to make it mountable. Offsets are those of the layer file.

    `file_size` is the size the file must have in the end (holes count); `content_bytes` the
    sum of the sizes of all files, each inode once.
    """

    superblock: bytes
    metadata: bytearray
    metadata_offset: int
    file_size: int
    inode_count: int
    content_bytes: int
    copies: list[CopyPlan]


@dataclass(slots=True)
class _Directory:
    """A directory in waiting: the names of each of its blocks, and where they go."""

    inode: Inode
    parent: Inode
    blocks: list[list[tuple[bytes, Inode]]]
    size: int
    inline_at: int = -1  # in the metadata; or
    block: int = -1  # relative to the first data block


_Placed = tuple[Inode, bytes, int, int, int]  # inode, attributes, size, inline offset, relative data block


@dataclass(slots=True)
class _Layout:
    at: int = INODE_SIZE  # next free byte of the inode area; nid 0 stays unused
    blocks: int = 0  # data blocks behind the inode area
    placed: list[_Placed] = field(default_factory=list)
    directories: list[_Directory] = field(default_factory=list)
    content_bytes: int = 0


def build_erofs(root: Inode, tar_size: int, uuid: bytes) -> ErofsImage:
    """Lay out the tree under `root` behind a tar of `tar_size` bytes.

    Fills in `nid` and `nlink` of all inodes, so a tree can be laid out once.

    Raises:
        TarError: more than the format can address, or too many extended attributes on a file.
    """
    layout = _place_all(root)
    meta_block = (TAR_OFFSET + tar_size + BLOCK_SIZE - 1) >> BLOCK_BITS
    first_data = meta_block + ((layout.at + BLOCK_SIZE - 1) >> BLOCK_BITS)
    first_appended = first_data + layout.blocks
    metadata = bytearray((first_appended - meta_block) << BLOCK_BITS)
    copies, end_block = _write_inodes(metadata, layout, first_data, first_appended)
    data_base = (first_data - meta_block) << BLOCK_BITS
    for directory in layout.directories:
        _write_directory(metadata, directory, data_base)
    if end_block > MAX_BLOCKS:
        raise TarError(f"layer of {end_block * BLOCK_SIZE} bytes: the limit is 2 TiB, holes included")
    superblock = encode_superblock(
        root_nid=root.nid,
        inode_count=len(layout.placed),
        block_count=end_block,
        meta_block=meta_block,
        uuid=uuid,
    )
    return ErofsImage(
        superblock,
        metadata,
        meta_block << BLOCK_BITS,
        end_block << BLOCK_BITS,
        len(layout.placed),
        layout.content_bytes,
        copies,
    )


def _place_all(root: Inode) -> _Layout:
    """Give every inode its place, parents before children, and count its names."""
    layout = _Layout()
    root.nlink = 2
    _place(layout, root, root)
    stack = [root]
    file_kind, placed = EntryKind.FILE, layout.placed
    while stack:
        directory = stack.pop()
        assert directory.children is not None
        for inode in directory.children.values():
            if inode.nid >= 0:
                inode.nlink += 1
                continue
            inode.nlink = 1
            entry = inode.entry
            if entry.kind is file_kind and not entry.xattrs:  # most of them
                at = (layout.at + SLOT - 1) & -SLOT
                if at & 511 > BLOCK_SIZE - INODE_SIZE:
                    at = (at | 511) + 1
                inode.nid = at // SLOT
                layout.at = at + INODE_SIZE
                layout.content_bytes += entry.size
                placed.append((inode, b"", entry.size, -1, -1))
                continue
            if inode.children is not None:
                inode.nlink = 2
                directory.nlink += 1
                stack.append(inode)
            _place(layout, inode, directory)
    return layout


def _place(layout: _Layout, inode: Inode, parent: Inode) -> None:
    entry = inode.entry
    attributes = _attributes(inode)
    size, content, plan = 0, 0, None
    if inode.children is not None:
        plan = _plan_directory(inode, parent)
        size = content = plan.size
    elif entry.kind is EntryKind.SYMLINK:
        size = content = len(entry.link)
    elif entry.kind is EntryKind.FILE:
        size = entry.size
        layout.content_bytes += size
    fixed = INODE_SIZE + len(attributes)
    at = (layout.at + SLOT - 1) & -SLOT
    is_inline = 0 < content <= BLOCK_SIZE - fixed % BLOCK_SIZE
    room = BLOCK_SIZE - (at + fixed) % BLOCK_SIZE
    if at % BLOCK_SIZE > BLOCK_SIZE - INODE_SIZE or (is_inline and content > room):
        at = (at + BLOCK_SIZE - 1) // BLOCK_SIZE * BLOCK_SIZE
    inode.nid = at // SLOT
    inline_at, block = -1, -1
    if is_inline:
        inline_at = at + fixed
    elif content:
        block = layout.blocks
        layout.blocks += (content + BLOCK_SIZE - 1) >> BLOCK_BITS
    layout.at = at + fixed + (content if is_inline else 0)
    layout.placed.append((inode, attributes, size, inline_at, block))
    if plan is not None:
        plan.inline_at, plan.block = inline_at, block
        layout.directories.append(plan)


def _attributes(inode: Inode) -> bytes:
    xattrs = inode.entry.xattrs
    if inode.opaque:
        xattrs = xattrs | {_OPAQUE: b"y"}
    if not xattrs:
        return b""
    try:
        return encode_xattrs(xattrs)
    except ValueError as error:
        raise TarError(f"{error} on {show(inode.entry.path)}: more than a layer can hold") from error


def _plan_directory(inode: Inode, parent: Inode) -> _Directory:
    """Sort the names bytewise and fill blocks greedily; a name never crosses a block."""
    assert inode.children is not None
    items = [(b".", inode), (b"..", parent), *inode.children.items()]
    items.sort(key=_name_of)
    total = 12 * len(items) + sum(len(name) for name, _ in items)
    if total <= BLOCK_SIZE:
        return _Directory(inode, parent, [items], total)
    blocks: list[list[tuple[bytes, Inode]]] = []
    start = used = 0
    for index, (name, _) in enumerate(items):
        need = 12 + len(name)
        if used + need > BLOCK_SIZE:
            blocks.append(items[start:index])
            start, used = index, 0
        used += need
    blocks.append(items[start:])
    return _Directory(inode, parent, blocks, (len(blocks) - 1) * BLOCK_SIZE + used)


def _name_of(item: tuple[bytes, Inode]) -> bytes:
    return item[0]


def _write_inodes(
    metadata: bytearray, layout: _Layout, first_data: int, first_appended: int
) -> tuple[list[CopyPlan], int]:
    """Returns what the caller copies for sparse files, and the first block behind everything."""
    pack = INODE.pack_into
    copies: list[CopyPlan] = []
    appended = first_appended
    data_base = len(metadata) - (layout.blocks << BLOCK_BITS)
    for number, (inode, attributes, size, inline_at, block) in enumerate(layout.placed, 1):
        entry = inode.entry
        kind = entry.kind
        where = 0
        if kind is EntryKind.FILE:
            if entry.sparse is not None:
                where = appended
                copies += _copy_plans(entry, appended)
                appended += (size + BLOCK_SIZE - 1) >> BLOCK_BITS
            elif size:
                where = (TAR_OFFSET + entry.data_offset) >> BLOCK_BITS
        elif size:
            where = first_data + block if block >= 0 else 0
            if kind is EntryKind.SYMLINK:
                target_at = inline_at if inline_at >= 0 else data_base + (block << BLOCK_BITS)
                metadata[target_at : target_at + size] = entry.link
        else:
            where = encode_device(entry.major, entry.minor)
        at = inode.nid * SLOT
        form = FORMAT_INLINE if inline_at >= 0 else FORMAT_PLAIN
        attribute_count = xattr_count(len(attributes)) if attributes else 0
        mode = FILE_TYPES[kind][1] | (
            entry.mode if kind is not EntryKind.SYMLINK else 0o777
        )  # as on any disk
        seconds, nanos = divmod(entry.mtime_ns, _NANO)
        owner = (entry.uid, entry.gid, seconds & _U64, nanos, inode.nlink)
        pack(metadata, at, form, attribute_count, mode, 0, size, where, number, *owner)
        if attributes:
            metadata[at + INODE_SIZE : at + INODE_SIZE + len(attributes)] = attributes
    return copies, appended


def _copy_plans(entry: TarEntry, first_block: int) -> list[CopyPlan]:
    source = TAR_OFFSET + entry.data_offset
    plans = []
    for start, length in entry.sparse or ():
        plans.append(CopyPlan(source, (first_block << BLOCK_BITS) + start, length))
        source += length
    return plans


def _write_directory(metadata: bytearray, directory: _Directory, data_base: int) -> None:
    at = directory.inline_at if directory.inline_at >= 0 else data_base + (directory.block << BLOCK_BITS)
    pack = DIRENT.pack_into
    for items in directory.blocks:
        name_at = 12 * len(items)
        entry_at = at
        for name, inode in items:
            pack(metadata, entry_at, inode.nid, name_at, FILE_TYPES[inode.entry.kind][0])
            entry_at += 12
            name_at += len(name)
        names = b"".join([name for name, _ in items])
        metadata[entry_at : entry_at + len(names)] = names
        at += BLOCK_SIZE
