"""Sources of mounts that are no path of the host: a part of a volume, an image, a part of an image.

Each is resolved by descriptor, so that a link in a volume ends inside the volume however it changes
meanwhile, and attached below the exec root in the engine's mount namespace. From there the container's
first process, or another runtime, takes a copy; after the start the place goes away. What a crash leaves is
swept at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from orlop.aio import offload
from orlop.base import failpoints, log
from orlop.base.errors import InvalidInput
from orlop.engine.model import MountRecord, Record
from orlop.engine.services import Services
from orlop.kernel import filesystems, mount
from orlop.kernel.openat import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from orlop.oci.digest import Digest

__all__ = ["NotAccessible", "staged", "sweep"]

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
_IMAGE_ATTRIBUTES = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV


class NotAccessible(InvalidInput):
    """The part of a volume or image that shall be mounted is not there, or outside of it."""

    code = "subpath-not-accessible"


@dataclass(frozen=True, slots=True)
class _Item:
    """One source to make: a directory, or the layers of an image, topmost first."""

    number: int
    place: str
    subpath: str
    directory: str = ""
    layers: tuple[str, ...] = ()


@contextlib.asynccontextmanager
async def staged(services: Services, record: Record) -> AsyncIterator[Record]:
    """The record with a path for every mount, for as long as the block runs.

    Raises:
        NotAccessible: with dockerd's text.
        ImageNotFound: the image of a mount is gone.
    """
    home = os.path.join(_root(services.exec_root), record.id)
    items = [
        await _item(services, mount_record, number, os.path.join(home, str(number)))
        for number, mount_record in enumerate(record.mounts)
        if mount_record.image or mount_record.subpath
    ]
    if not items:
        yield record
        return
    try:
        await offload.thread(_attach_all, home, items)
        failpoints.hit("volume.stage.made")
        places = {item.number: item.place for item in items}
        yield replace(
            record,
            mounts=tuple(
                _at(mount_record, places.get(number, "")) for number, mount_record in enumerate(record.mounts)
            ),
        )
    finally:
        await _take_away(home)


async def _take_away(home: str) -> None:
    """Take the places away; a failure is told and left to the next start."""
    try:
        await offload.thread(_clear, home)
    except OSError as error:
        log.warning("mounts of a start could not be taken away", path=home, error=error)


def sweep(exec_root: str) -> None:
    """Take away what starts have left that a crash cut short."""
    root = _root(exec_root)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(root):
            _clear(os.path.join(root, name))


def _root(exec_root: str) -> str:
    return os.path.join(exec_root, "staged")


def _at(record: MountRecord, place: str) -> MountRecord:
    return replace(record, point=replace(record.point, source=place)) if place else record


async def _item(services: Services, record: MountRecord, number: int, place: str) -> _Item:
    if not record.image:
        return _Item(number, place, record.subpath, directory=record.point.source)
    image = await services.images.get(Digest(record.image))
    workspace = await services.snapshots.view(image.diff_ids)
    return _Item(number, place, record.subpath, layers=tuple(workspace.lowers))


def _attach_all(home: str, items: Sequence[_Item]) -> None:
    _clear(home)
    os.makedirs(home, mode=0o700)
    for item in items:
        _attach(item)


def _attach(item: _Item) -> None:
    if item.layers:
        whole = filesystems.overlay_fd(list(item.layers), attributes=_IMAGE_ATTRIBUTES)
        # A part can only be taken of a tree that is attached.
        os.mkdir(item.place, 0o700)
        try:
            mount.attach(whole, item.place)
        finally:
            os.close(whole)
    if item.subpath:
        _attach_part(item)


def _attach_part(item: _Item) -> None:
    base = item.place if item.layers else item.directory
    root = os.open(base, _DIRECTORY)
    try:
        part = _open_part(root, base, item.subpath)
        try:
            is_directory = _check_kind(part, base, item.subpath)
            tree = mount.detach(part, is_recursive=not item.layers)
        finally:
            os.close(part)
    finally:
        os.close(root)
    try:
        if item.layers:
            mount.umount2(item.place, mount.MNT_DETACH)
            os.rmdir(item.place)
        if is_directory:
            os.mkdir(item.place, 0o700)
        else:
            os.close(os.open(item.place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        mount.attach(tree, item.place)
    finally:
        os.close(tree)


def _open_part(root: int, base: str, subpath: str) -> int:
    try:
        return openat2(root, subpath, os.O_PATH, resolve=_BENEATH)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise NotAccessible(
                f"path concatenation escapes the base directory, base: {base}, subpath: {subpath[:300]}",
                hint="a link on the way leads out of the volume",
            ) from error
        reason = os.strerror(error.errno or 0).lower()
        raise NotAccessible(
            f"cannot access path {base}/{subpath[:300]}: {reason}",
            hint="the path must exist in the volume before the container starts",
        ) from error


def _check_kind(part: int, base: str, subpath: str) -> bool:
    """Whether it is a directory; only that and plain files are mounted, never a device of a volume."""
    mode = os.fstat(part).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise NotAccessible(f"cannot access path {base}/{subpath[:300]}: neither a file nor a directory")
    return stat.S_ISDIR(mode)


def _clear(home: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(home):
            place = os.path.join(home, name)
            while True:
                try:
                    mount.umount2(place, mount.MNT_DETACH)
                except OSError:
                    break
            # What is left are empty places of ours, or nothing is deleted.
            os.rmdir(place) if stat.S_ISDIR(os.lstat(place).st_mode) else os.unlink(place)
        os.rmdir(home)
