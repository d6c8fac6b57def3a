"""Three ways to see a layer's tree as a directory, behind one contract; the best one is found by trying.

*file*: the kernel mounts the layer file itself (Linux 6.12). *loop*: the same through a loop device.
*unpacked*: real files made by a worker, for hosts without EROFS. Mounts live below the exec root, in
the mount namespace of the engine; there is one per layer, shared by everything that uses it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection
from typing import Protocol

from orlop.aio import offload
from orlop.aio.keyed_lock import KeyedLock
from orlop.base import ids, log
from orlop.base.errors import OrlopError, describe_os_error
from orlop.kernel import loop
from orlop.kernel.filesystems import erofs_mount
from orlop.kernel.mount import MNT_DETACH, UMOUNT_NOFOLLOW, umount2
from orlop.oci.digest import Digest, digest_of, encoded
from orlop.procs.workers import Workers
from orlop.store.files import ensure_directory, fsync_directory, full_or
from orlop.store.layerfile import LayerHead, encode_head, layer_uuid
from orlop.store.smalltree import empty_tree
from orlop.wire.erofswrite import TAR_OFFSET, build_erofs
from orlop.wire.layertree import LayerTree

__all__ = ["LayerMounts", "MountFailed", "MountedLayers", "UnpackedLayers", "choose_mounts"]

Attach = Callable[[str, str], None]  # layer file, directory


class MountFailed(OrlopError):
    """The kernel does not take a layer file, or the tree could not be made."""

    code = "layer-mount-failed"
    remedy = "orlop doctor tells how layers can be mounted on this host; dmesg tells why the kernel refused"


class LayerMounts(Protocol):
    """Makes layers visible. Contract: tests/root/store/test_mounts.py runs every implementation."""

    @property
    def name(self) -> str:
        """`file`, `loop` or `unpacked`."""

    async def mount(self, diff_id: Digest, file: str) -> str:
        """The directory that shows the layer stored in `file`; made on the first call, kept until `release`.

        Raises:
            MountFailed: it cannot be shown.
            FileNotFoundError: there is no such file.
        """

    async def release(self, diff_id: Digest) -> None:
        """Take the directory away; safe to repeat. Who still uses the tree keeps it."""

    async def sweep(self, keep: Collection[str]) -> None:
        """Release everything but the layers whose hex names are in `keep`: what a crash left."""


class MountedLayers:
    """Layers as mounts, at `<exec_root>/layers/<hex>`."""

    def __init__(self, name: str, exec_root: str, attach: Attach) -> None:
        self.name = name
        self._root = os.path.join(exec_root, "layers")
        self._attach = attach
        self._locks: KeyedLock[Digest] = KeyedLock()
        self._mounted: set[Digest] = set()
        ensure_directory(self._root)

    async def mount(self, diff_id: Digest, file: str) -> str:
        """See `LayerMounts.mount`."""
        target = os.path.join(self._root, encoded(diff_id))
        if diff_id in self._mounted:
            return target
        async with self._locks.hold(diff_id):
            if diff_id not in self._mounted:
                await offload.thread(self._mount, file, target)
                self._mounted.add(diff_id)
        return target

    async def release(self, diff_id: Digest) -> None:
        """See `LayerMounts.release`."""
        async with self._locks.hold(diff_id):
            self._mounted.discard(diff_id)
            await offload.thread(_unmount, os.path.join(self._root, encoded(diff_id)))

    async def sweep(self, keep: Collection[str]) -> None:
        """See `LayerMounts.sweep`."""
        for name in await offload.thread(os.listdir, self._root):
            if name not in keep:
                await offload.thread(_unmount, os.path.join(self._root, name))

    def _mount(self, file: str, target: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(target, 0o700)
        if _is_mount(target):  # an engine before this one made it
            return
        try:
            self._attach(file, target)
        except FileNotFoundError:
            os.rmdir(target)
            raise
        except OSError as error:
            raise MountFailed(
                f'cannot mount layer file "{file}": {describe_os_error(error)}',
                hint="`orlop fsck` checks it; pull the image again if it is damaged",
            ) from error


class UnpackedLayers:
    """Layers as directories of real files, at `<data_root>/unpacked/<hex>`."""

    name = "unpacked"

    def __init__(self, data_root: str, workers: Workers) -> None:
        self._root = os.path.join(data_root, "unpacked")
        self._workers = workers
        self._locks: KeyedLock[Digest] = KeyedLock()
        ensure_directory(self._root)

    async def mount(self, diff_id: Digest, file: str) -> str:
        """See `LayerMounts.mount`."""
        target = os.path.join(self._root, encoded(diff_id))
        async with self._locks.hold(diff_id):
            if not await offload.thread(os.path.isdir, target):
                await self._unpack(file, target)
        return target

    async def release(self, diff_id: Digest) -> None:
        """See `LayerMounts.release`."""
        async with self._locks.hold(diff_id):
            await self._remove(encoded(diff_id))

    async def sweep(self, keep: Collection[str]) -> None:
        """See `LayerMounts.sweep`."""
        for name in await offload.thread(os.listdir, self._root):
            if name not in keep:
                await self._remove(name)

    async def _unpack(self, file: str, target: str) -> None:
        name = f"tmp-{ids.new_token()}"
        staging = os.path.join(self._root, name)
        os.mkdir(staging, 0o700)
        source = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        directory = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await self._workers.run("layers.unpack", {}, fds=[source, directory])
            os.rename(staging, target)
            await offload.thread(fsync_directory, self._root)
        except BaseException:
            await self._remove(name)
            raise
        finally:
            os.close(source)
            os.close(directory)

    async def _remove(self, name: str) -> None:
        """Out of sight first, so that half a tree is never taken for a layer."""
        trash = name if name.startswith("tmp-") else f"tmp-{ids.new_token()}"
        try:
            if trash != name:
                os.rename(os.path.join(self._root, name), os.path.join(self._root, trash))
            directory = os.open(os.path.join(self._root, trash), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            await empty_tree(self._workers, directory)
        finally:
            os.close(directory)
        os.rmdir(os.path.join(self._root, trash))


def choose_mounts(data_root: str, exec_root: str, workers: Workers, wanted: str = "") -> LayerMounts:
    """The best way this host offers, found by mounting an empty layer; or the `wanted` one. Blocks shortly.

    Raises:
        MountFailed: the wanted way does not work here.
        StoreFull: a new data root on a full disk.
    """
    file = _probe_file(data_root)
    ways: dict[str, Attach] = {"file": erofs_mount, "loop": _mount_loop}
    for name, attach in ways.items():
        if wanted not in ("", name):
            continue
        problem = _try(file, exec_root, attach)
        if problem is None:
            return MountedLayers(name, exec_root, attach)
        if wanted:
            raise MountFailed(f"layers cannot be mounted by way of {name!r} here: {problem}")
        log.info("layers cannot be mounted this way", way=name, why=problem)
    return UnpackedLayers(data_root, workers)


def _mount_loop(file: str, target: str) -> None:
    """The device detaches itself when the mount goes."""
    with loop.attached(file, block_size=512) as device:
        erofs_mount(device, target)


def _try(file: str, exec_root: str, attach: Attach) -> str | None:
    """Mount an empty layer; what went wrong, or None."""
    target = os.path.join(exec_root, f"probe-{ids.new_token()}")
    os.makedirs(target, 0o700)
    try:
        attach(file, target)
        _unmount(target)
    except OSError as error:
        return describe_os_error(error)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    return None


def _probe_file(data_root: str) -> str:
    """An empty layer where layers are: made once and kept, so that an engine starts on a full disk, too.

    EROFS reads through some file systems (ext4, xfs, btrfs) and not through others (tmpfs, overlay),
    and the exec root is usually a tmpfs.
    """
    path, wanted = os.path.join(data_root, "probe"), _empty_layer()
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if file.read(len(wanted) + 1) == wanted:
            return path
    try:
        with open(f"{path}.new", "wb", opener=_private) as file:
            file.write(wanted)
        os.rename(f"{path}.new", path)
    except OSError as error:
        raise full_or(error, "the data root") from error
    return path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _empty_layer() -> bytes:
    diff_id = digest_of(b"")
    image = build_erofs(LayerTree().finish(), 0, layer_uuid(diff_id))
    head = LayerHead(
        diff_id,
        0,
        TAR_OFFSET,
        len(image.metadata),
        image.file_size,
        0,
        image.inode_count,
        0,
        False,
        False,
        bytes(32),
    )
    return encode_head(head, image.superblock) + bytes(image.metadata)


def _is_mount(path: str) -> bool:
    return os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev


def _unmount(target: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        while _is_mount(target):
            umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW)
        os.rmdir(target)
