"""How many bytes a container may write to its own layer: a project quota of the file system below us.

One project per snapshot, on `upper` and `work` alike: a copy-up is made in `work` and renamed, which the
kernel refuses between projects. The id is derived from the snapshot's key; which ids are in use is
the file system's own knowledge, nothing is stored here. What a snapshot has is read from `work`, which no
container sees: its root can give its own files, and the root directory, any project.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from orlop.base.errors import Kind, OrlopError
from orlop.kernel import projectquota

__all__ = ["QuotaUnavailable", "is_available", "limit", "release", "unavailable"]

_FIRST, _COUNT = 0x4F52_0000, 1 << 24  # far from what administrators number by hand
_TRIES = 64
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class QuotaUnavailable(OrlopError):
    """The data root's file system has no project quotas."""

    kind = Kind.INVALID
    code = "quota-unavailable"


def unavailable() -> QuotaUnavailable:
    """The error for whoever asks for a limit that cannot be had."""
    return QuotaUnavailable(
        "--storage-opt is supported only where the data root lies on ext4 or xfs with the 'prjquota' mount "
        "option",
        hint="mount that file system with prjquota (ext4: tune2fs -O project,quota first), or give the data "
        "root a file system of its own",
    )


def is_available(folder: str) -> bool:
    """Whether limits can be set below a directory."""
    fd = os.open(folder, _FLAGS)
    try:
        return projectquota.is_enforced(fd)
    finally:
        os.close(fd)


def limit(key: str, upper: str, work: str, limit_bytes: int) -> None:
    """Limit what is below both directories together; may be repeated, also with another limit.

    Raises:
        QuotaUnavailable: the file system cannot.
    """
    fds = [os.open(path, _FLAGS) for path in (work, upper)]
    try:
        if not projectquota.is_enforced(fds[0]):
            raise unavailable()
        project = projectquota.get_project(fds[0]) or _free_project(key, fds[0])
        projectquota.set_limit(fds[0], project, limit_bytes)
        for fd in fds:
            if projectquota.get_project(fd) != project:
                projectquota.set_project(fd, project)
    finally:
        for fd in fds:
            os.close(fd)


def release(work: str) -> None:
    """Forget the limit of a snapshot before its directories go; fine when there is none."""
    try:
        fd = os.open(work, _FLAGS)
    except OSError:
        return
    try:
        if projectquota.is_enforced(fd):
            project = projectquota.get_project(fd)
            if project >= _FIRST:
                projectquota.set_limit(fd, project, 0)
    except OSError:
        return  # a limit of nobody does no harm
    finally:
        os.close(fd)


def _free_project(key: str, fd: int) -> int:
    for project in _candidates(key):
        if projectquota.read_usage(fd, project) == (0, 0):
            return project
    raise QuotaUnavailable("no free project id", hint="look at the project quotas of the file system")


def _candidates(key: str) -> Iterator[int]:
    for attempt in range(_TRIES):
        digest = hashlib.sha256(f"{key}/{attempt}".encode()).digest()
        yield _FIRST + int.from_bytes(digest[:4], "big") % _COUNT
