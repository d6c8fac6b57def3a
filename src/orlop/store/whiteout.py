"""What overlay leaves in an upper directory, in words: whiteouts, opaque directories, its own attributes.

Everything goes through fds of the file at hand; no path is followed. Runs in workers.
Spec: Linux `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["is_opaque", "is_whiteout", "read_xattrs"]

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
# Overlay's own state, and what belongs to this host's security modules, not to the content.
_HOST_PREFIXES = (
    b"trusted.overlay.",
    b"user.overlay.",
    b"security.selinux",
    b"security.ima",
    b"security.evm",
    b"security.apparmor",
    b"security.SMACK64",
)


def is_whiteout(status: os.stat_result) -> bool:
    """True for the 0:0 character device that hides a name of the lower layers."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory_fd: int) -> bool:
    """True for a directory that hides what the lower layers have under its name."""
    for name in _OPAQUE:
        try:
            return os.getxattr(directory_fd, name) == b"y"
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


def read_xattrs(target: int | str) -> dict[bytes, bytes]:
    """The extended attributes that belong to the content.

    `target` is an fd; for links, devices and sockets, which cannot be opened for reading,
    `/proc/self/fd/<directory>/<name>` of a directory held open (the last component is not followed).
    """
    found: dict[bytes, bytes] = {}
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target) if follow else os.listxattr(target, follow_symlinks=False)
        for name in names:
            raw = os.fsencode(name)
            if not raw.startswith(_HOST_PREFIXES):
                found[raw] = (
                    os.getxattr(target, name) if follow else os.getxattr(target, name, follow_symlinks=False)
                )
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA):
            raise
    return found
