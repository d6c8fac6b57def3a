"""Jobs on a snapshot's upper directory, run in workers: write it as a tar, compare it, measure it, empty it.

The directory was written by a container and is hostile: it arrives as an fd, and everything below is
reached relative to the fd of its own directory, never following a link. Paths in results are
text with undecodable bytes as lone surrogates (os.fsdecode), which JSON carries unharmed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from orlop.kernel.filesystems import overlay_fd
from orlop.store.stubs import Stubs
from orlop.store.treechanges import find_changes
from orlop.store.treecopy import copy_tree
from orlop.store.treediff import TreeDiff
from orlop.store.treewalk import DIRECTORY, Keep, list_directory, walk

__all__ = ["JOBS", "changes", "copy", "diff", "empty", "usage"]

Report = Callable[[dict[str, Any]], None]


def diff(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Write what an upper directory changes as a layer tar.

    Payload: `offset` in the file; `root`: mode, uid and gid that the root has without the upper;
    `latest_ns`: later times become this one, or null; `stubs`: paths to leave out, see `stubs`; `lowers`,
    needed then, topmost first. fds: upper directory, file to write. Result: `size_bytes`, `entry_count`.

    Raises:
        TarError: a name that a layer cannot carry (it begins with `.wh.`).
        OSError: ENOSPC among others.
    """
    del report
    upper, target = fds
    mode, uid, gid = payload["root"]
    with _merged(payload["lowers"] if payload.get("stubs") else ()) as lower:
        writer = TreeDiff(target, int(payload["offset"]), payload.get("latest_ns"), _keep(payload, lower))
        return writer.run(upper, (int(mode), int(uid), int(gid)))


def changes(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """What an upper directory changes, in the words of `docker diff`. fds: the upper directory.

    Payload: `lowers`, directories topmost first; `stubs`: paths to leave out, see `stubs`. Result:
    `changes`, a list of [path, kind] sorted by path; kinds are 0 modified, 1 added, 2 deleted.
    """
    del report
    (upper,) = fds
    with _merged(payload["lowers"]) as lower:
        return {"changes": find_changes(upper, lower, _keep(payload, lower))}


def copy(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Copy what is in a directory into an empty one, see `treecopy`. fds: source, target. Result: `count`."""
    del payload, report
    source, target = fds
    return {"count": copy_tree(source, target)}


def usage(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Bytes of the files below a directory, hard links once. fds: the directory. Result: `size_bytes`.

    As Docker counts: the length of files, not their blocks, and nothing for directories.
    """
    del payload, report
    total = 0
    seen: set[int] = set()
    for _, _, entries in walk(fds[0]):
        for _, status in entries:
            if stat.S_ISDIR(status.st_mode):
                continue
            if status.st_nlink > 1:
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            total += status.st_size
    return {"size_bytes": total}


def empty(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Remove everything below a directory, however deep. fds: the directory. Result: `count`, names removed.

    Subdirectories are first moved up into the directory itself: no path grows, two fds are open.
    What vanishes meanwhile is fine: a supervisor that ends removes its socket itself.
    """
    del payload, report
    (root,) = fds
    count = moved = 0
    while entries := list_directory(root):
        for name, status in entries:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(status.st_mode):
                    directory = os.open(name, DIRECTORY, dir_fd=root)
                    try:
                        moved += _flatten(directory, root, moved)
                    finally:
                        os.close(directory)
                    os.rmdir(name, dir_fd=root)
                else:
                    os.unlink(name, dir_fd=root)
                count += 1
    return {"count": count}


def _flatten(directory: int, root: int, moved: int) -> int:
    """Unlink the files of a directory, move its subdirectories to `root` under fresh names."""
    count = 0
    for name, status in list_directory(directory):
        if stat.S_ISDIR(status.st_mode):
            fresh = b".orlop-%d" % (moved + count)
            while _exists(root, fresh):
                count += 1
                fresh = b".orlop-%d" % (moved + count)
            os.rename(name, fresh, src_dir_fd=directory, dst_dir_fd=root)
            count += 1
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
    return count


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _merged(lowers: Sequence[str]) -> Iterator[int]:
    """The merged tree of directories, topmost first; -1 for none."""
    if not lowers:
        yield -1
        return
    fd = overlay_fd(lowers)
    try:
        yield fd
    finally:
        os.close(fd)


def _keep(payload: dict[str, Any], lower: int) -> Keep | None:
    paths = payload.get("stubs")
    return Stubs(map(os.fsencode, paths), lower).without if paths else None


JOBS = {
    "trees.diff": diff,
    "trees.changes": changes,
    "trees.copy": copy,
    "trees.usage": usage,
    "trees.empty": empty,
}
"""What the zygote's table (and `InlineWorkers` in tests) takes over."""
