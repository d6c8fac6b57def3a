"""Mount points that a step's mounts made in its root, removed again before the step is kept.

The runtime makes an empty file or directory where a mount's target is missing (`/etc/hosts`,
`/proc`). They are not the user's, so what is still empty and was not there before goes, and a
directory that was only touched for them goes back to being the one below.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from orlop.build.trees import Tree

__all__ = ["remove_stubs"]


def remove_stubs(upper_fd: int, below: Tree, paths: list[bytes]) -> None:
    """Remove empty stubs at canonical `paths` from an upper directory. May be repeated."""
    for path in sorted(paths, key=len, reverse=True):
        parts = path.split(b"/")
        if below.find(path) is None:
            _remove_at(upper_fd, parts)
        for count in range(len(parts) - 1, 0, -1):
            _drop_directory(upper_fd, parts[:count], below)


def _remove_at(upper_fd: int, parts: list[bytes]) -> None:
    with _directory(upper_fd, parts[:-1]) as parent:
        if parent is None:
            return
        try:
            found = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(parts[-1], dir_fd=parent)
            elif stat.S_ISREG(found.st_mode) and found.st_size == 0 and found.st_nlink == 1:
                os.unlink(parts[-1], dir_fd=parent)
        except OSError:
            return  # missing, or no longer empty: then it is the user's


def _drop_directory(upper_fd: int, parts: list[bytes], below: Tree) -> None:
    """Remove an empty upper directory that says nothing that the one below does not say."""
    path = b"/".join(parts)
    node = below.find(path)
    with _directory(upper_fd, parts[:-1]) as parent:
        if parent is None:
            return
        try:
            found = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        except OSError:
            return
        is_same = node is None or (
            node.is_directory
            and (node.mode, node.uid, node.gid) == (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
        )
        if is_same and stat.S_ISDIR(found.st_mode) and not _is_opaque(parent, parts[-1]):
            with contextlib.suppress(OSError):
                os.rmdir(parts[-1], dir_fd=parent)


def _is_opaque(parent: int, name: bytes) -> bool:
    """True when the directory hides the one below; then removing it would uncover files."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return True
    try:
        return any(name.startswith("trusted.overlay.opaque") for name in os.listxattr(fd))
    finally:
        os.close(fd)


@contextlib.contextmanager
def _directory(root_fd: int, parts: list[bytes]) -> Iterator[int | None]:
    """A descriptor of a directory below the root, no link followed; None when it is not there."""
    fd = os.dup(root_fd)
    try:
        for part in parts:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
    except OSError:
        os.close(fd)
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
