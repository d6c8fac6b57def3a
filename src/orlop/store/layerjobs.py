"""Jobs on one layer file, run in workers: index it, verify it, unpack it.

No job opens a path: all files and directories arrive as descriptors. Nothing here imports
sqlite3, asyncio, ssl or logging.
"""

from __future__ import annotations

import gc
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orlop.oci.digest import Digest, algorithm, encoded, new_hasher, parse_digest
from orlop.store.layerfile import TAR_OFFSET, LayerCorrupt, LayerHead, encode_head, layer_uuid, read_head
from orlop.store.unpack import unpack_tree
from orlop.wire.erofsread import ErofsReader
from orlop.wire.erofswrite import CopyPlan, ErofsImage, build_erofs
from orlop.wire.layertree import LayerTree
from orlop.wire.tar import scan

__all__ = ["JOBS", "index", "unpack", "verify"]

_CHUNK = 4 << 20
Report = Callable[[dict[str, Any]], None]


def index(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Make the tar that stands at `TAR_OFFSET` of a file mountable: write head and metadata around it.

    Payload: `tar_size`; `diff_id`, or `algorithm` to have the tar hashed here. fds: the file, read-write.
    Result: the fields of the head. Nothing is flushed to disk here.

    Raises:
        TarError: the tar is not a layer.
        OSError: ENOSPC among others.
    """
    del report
    (fd,) = fds
    tar_size = int(payload["tar_size"])
    digest = payload.get("diff_id")
    diff_id = parse_digest(digest) if digest else hash_range(fd, TAR_OFFSET, tar_size, payload["algorithm"])
    with _without_gc():
        tree = _read_tree(fd, tar_size)
        image = build_erofs(tree.finish(), tar_size, layer_uuid(diff_id))
    head = LayerHead(
        diff_id,
        tar_size,
        image.metadata_offset,
        len(image.metadata),
        image.file_size,
        tree.entry_count,
        image.inode_count,
        image.content_bytes,
        tree.root.opaque,
        tree.has_root,
        hashlib.sha256(image.metadata).digest(),
    )
    _write_image(fd, head, image)
    return {
        "diff_id": diff_id,
        "size_bytes": tar_size,
        "file_bytes": head.file_size,
        "content_bytes": head.content_bytes,
        "entry_count": head.entry_count,
        "is_opaque": head.is_opaque,
        "has_root": head.has_root,
    }


def verify(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Hash the tar and the metadata of a layer file and walk its tree. Payload: `diff_id`. fds: the file.

    Raises:
        LayerCorrupt, ErofsError: what is wrong.
    """
    del report
    (fd,) = fds
    diff_id = parse_digest(payload["diff_id"])
    head = read_head(fd, encoded(diff_id))
    found = hash_range(fd, TAR_OFFSET, head.tar_size, algorithm(diff_id))
    if head.diff_id != diff_id or found != diff_id:
        raise LayerCorrupt(
            f"layer {diff_id} is damaged: its bytes hash to {found}",
            hint="remove the image and pull it again",
        )
    metadata = hash_range(fd, head.metadata_offset, head.metadata_size, "sha256")
    if encoded(metadata) != head.metadata_sha256.hex():
        raise LayerCorrupt(f"the index of layer {diff_id} is damaged", hint="pull the image again")
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
        inodes = {inode.nid for _, inode in ErofsReader(view).walk()}
    if len(inodes) != head.inode_count:
        raise LayerCorrupt(f"layer {diff_id} has {len(inodes)} inodes instead of {head.inode_count}")
    return {"inode_count": len(inodes)}


def unpack(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Make real files of a layer, for hosts that cannot mount it. fds: the file, an empty directory.

    Works from the index, so both ways of using a layer show the same tree. Files are flushed
    by the caller (syncfs), as there are many.
    """
    del payload, report
    fd, directory = fds
    read_head(fd, "layer")
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
        count = unpack_tree(ErofsReader(view), fd, directory)
    os.sync()
    return {"count": count}


def hash_range(fd: int, offset: int, size: int, name: str) -> Digest:
    """The digest of `size` bytes at `offset`.

    Raises:
        LayerCorrupt: the file ends before that.
    """
    hasher = new_hasher(name)
    buffer = bytearray(min(_CHUNK, max(size, 1)))
    view = memoryview(buffer)
    end = offset + size
    while offset < end:
        count = os.preadv(fd, [view[: end - offset]], offset)
        if count <= 0:
            raise LayerCorrupt(f"layer file ends at {offset} instead of {end}")
        hasher.update(view[:count])
        offset += count
    return Digest(f"{name}:{hasher.hexdigest()}")


def _read_tree(fd: int, tar_size: int) -> LayerTree:
    tree = LayerTree()
    if not tar_size:
        return tree
    with mmap.mmap(fd, TAR_OFFSET + tar_size, prot=mmap.PROT_READ) as view:
        view.madvise(mmap.MADV_RANDOM)  # headers only: readahead would drag in all the data
        add = tree.add
        for entry in scan(view, TAR_OFFSET):
            add(entry)
    return tree


def _write_image(fd: int, head: LayerHead, image: ErofsImage) -> None:
    os.ftruncate(fd, TAR_OFFSET + head.tar_size)
    os.ftruncate(fd, head.file_size)
    _write_at(fd, memoryview(image.metadata), image.metadata_offset)
    for plan in image.copies:
        _copy(fd, plan)
    _write_at(fd, memoryview(encode_head(head, image.superblock)), 0)


def _write_at(fd: int, data: memoryview, offset: int) -> None:
    while data.nbytes:
        count = os.pwrite(fd, data[:_CHUNK], offset)
        data, offset = data[count:], offset + count


def _copy(fd: int, plan: CopyPlan) -> None:
    source, target, left = plan.source, plan.target, plan.length
    while left:
        data = os.pread(fd, min(_CHUNK, left), source)
        _write_at(fd, memoryview(data), target)
        source, target, left = source + len(data), target + len(data), left - len(data)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Hundreds of thousands of objects, no cycles: the collector would only re-scan them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


JOBS = {"layers.index": index, "layers.verify": verify, "layers.unpack": unpack}
"""What the zygote's table (and `InlineWorkers` in tests) takes over."""
