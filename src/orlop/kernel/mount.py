"""Mounts by file descriptor: the new mount API, and the few old calls that are still needed.

Sources and targets that a container can influence are always fds (`open_tree`, `move_mount`
with AT_EMPTY_PATH forms); paths are taken only for our own state.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_uint64, sizeof
from typing import Literal

from orlop.kernel.syscall import INT, PTR, SIZE, STR, UINT, ULONG, Path, SystemCall, c_path

__all__ = [
    "attach",
    "context_log",
    "detach",
    "fsconfig_create",
    "fsconfig_fd",
    "fsconfig_flag",
    "fsconfig_string",
    "fsmount",
    "fsopen",
    "mount",
    "mount_setattr",
    "move_mount",
    "new_filesystem",
    "open_tree",
    "pivot_root",
    "umount2",
]

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

# mount(2), include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_SYMLINKS = 1
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_ATIME_MASK = 0x70
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6
_MAX_LOG_LINES = 32

_fsopen = SystemCall("fsopen", STR, UINT)
_fsconfig = SystemCall("fsconfig", INT, UINT, STR, STR, INT)
_fsmount = SystemCall("fsmount", INT, UINT, UINT)
_move_mount = SystemCall("move_mount", INT, STR, INT, STR, UINT)
_open_tree = SystemCall("open_tree", INT, STR, UINT)
_mount_setattr = SystemCall("mount_setattr", INT, STR, UINT, PTR, SIZE)
_mount = SystemCall("mount", STR, STR, STR, ULONG, STR)
_umount2 = SystemCall("umount2", STR, INT)
_pivot_root = SystemCall("pivot_root", STR, STR)


Propagation = Literal["private", "slave", "shared", "unbindable"]
_PROPAGATION = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": MS_UNBINDABLE}


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", c_uint64),
        ("attr_clr", c_uint64),
        ("propagation", c_uint64),
        ("userns_fd", c_uint64),
    )


# --- building a file system -----------------------------------------------------------------


def fsopen(kind: str) -> int:
    """A configuration context for a file system type; the caller closes it. ENODEV: no such type."""
    return _fsopen(kind.encode("ascii"), FSOPEN_CLOEXEC, path=kind)


def fsconfig_string(context: int, key: str, value: Path) -> None:
    """Set a parameter. The kernel takes at most 255 bytes (EINVAL beyond): pass fds for long paths."""
    _config(context, _FSCONFIG_SET_STRING, key, c_path(value), 0)


def fsconfig_flag(context: int, key: str) -> None:
    """Set a parameter without a value, such as `ro`."""
    _config(context, _FSCONFIG_SET_FLAG, key, None, 0)


def fsconfig_fd(context: int, key: str, fd: int) -> None:
    """Set a parameter to an open file."""
    _config(context, _FSCONFIG_SET_FD, key, None, fd)


def fsconfig_create(context: int) -> None:
    """Make the superblock."""
    _config(context, _FSCONFIG_CMD_CREATE, None, None, 0)


def _config(context: int, command: int, key: str | None, value: bytes | None, aux: int) -> None:
    name = None if key is None else key.encode("ascii")
    try:
        _fsconfig(context, command, name, value, aux)
    except OSError as error:
        log = context_log(context)
        if not log:
            raise
        number = error.errno or 0
        message = f"{error.strerror}: {'; '.join(log)}"
        raise OSError(number, message) from error


def context_log(context: int) -> list[str]:
    """The kernel's own words about what went wrong in a context, oldest first; empties the log."""
    lines: list[str] = []
    while len(lines) < _MAX_LOG_LINES:
        try:
            raw = os.read(context, 1024)
        except OSError:  # ENODATA: nothing (more) to say
            break
        lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
    return lines


def fsmount(context: int, attributes: int = 0) -> int:
    """A detached mount of the created superblock, as an fd the caller closes.

    Closing the fd without `move_mount` unmounts it.
    """
    return _fsmount(context, FSMOUNT_CLOEXEC, attributes)


def new_filesystem(kind: str, options: dict[str, Path | None], attributes: int = 0) -> int:
    """A detached mount of a fresh file system such as proc, tmpfs, mqueue or devpts; the caller closes it.

    An option whose value is None is a flag.
    """
    context = fsopen(kind)
    try:
        for key, value in options.items():
            if value is None:
                fsconfig_flag(context, key)
            else:
                fsconfig_string(context, key, value)
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


# --- attaching and changing -----------------------------------------------------------------


def move_mount(from_fd: int, from_path: Path, to_fd: int, to_path: Path, flags: int) -> None:
    """The system call as it is; `attach` is the common form."""
    _move_mount(from_fd, c_path(from_path), to_fd, c_path(to_path), flags, path=to_path or None)


def attach(mount_fd: int, target: Path | int) -> None:
    """Attach a detached mount at `target`: an fd, or a path of our own (a symlink at its end is refused)."""
    if isinstance(target, int):
        move_mount(mount_fd, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
    else:
        move_mount(mount_fd, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)


def open_tree(dir_fd: int, path: Path, flags: int = 0) -> int:
    """The system call, close-on-exec; the caller closes the fd. An empty path means `dir_fd` itself."""
    raw = c_path(path)
    extra = 0 if raw else AT_EMPTY_PATH
    return _open_tree(dir_fd, raw, flags | extra | OPEN_TREE_CLOEXEC, path=path or None)


def detach(source: Path | int, *, is_recursive: bool = False) -> int:
    """A detached copy (bind) of what an fd or a path names, as an fd the caller closes.

    With a path, a symlink at its end is followed: our own paths only.
    """
    flags = OPEN_TREE_CLONE | (AT_RECURSIVE if is_recursive else 0)
    if isinstance(source, int):
        return open_tree(source, b"", flags)
    return open_tree(AT_FDCWD, source, flags)


def mount_setattr(
    target: Path | int,
    *,
    set_attributes: int = 0,
    clear_attributes: int = 0,
    propagation: Propagation | None = None,
    userns_fd: int | None = None,
    is_recursive: bool = False,
) -> None:
    """Change attributes (MOUNT_ATTR_*) and propagation of a mount, given as an fd or a path of our own.

    With `is_recursive` all mounts below change too, all or none. `userns_fd` makes a detached
    mount idmapped.
    """
    attributes = _MountAttr(set_attributes, clear_attributes, 0, 0)
    if propagation is not None:
        attributes.propagation = _PROPAGATION[propagation]
    if userns_fd is not None:
        attributes.attr_set |= MOUNT_ATTR_IDMAP
        attributes.userns_fd = userns_fd
    flags = AT_RECURSIVE if is_recursive else 0
    pointer, size = byref(attributes), sizeof(attributes)
    if isinstance(target, int):
        _mount_setattr(target, b"", flags | AT_EMPTY_PATH, pointer, size)
    else:
        _mount_setattr(AT_FDCWD, c_path(target), flags, pointer, size, path=target)


# --- the old calls --------------------------------------------------------------------------


def mount(
    source: Path | None, target: Path, kind: str | None = None, flags: int = 0, data: Path | None = None
) -> None:
    """The old system call. For our own paths only."""
    raw_source = None if source is None else c_path(source)
    raw_kind = None if kind is None else kind.encode("ascii")
    raw_data = None if data is None else c_path(data)
    _mount(raw_source, c_path(target), raw_kind, flags, raw_data, path=target)


def umount2(target: Path, flags: int = 0) -> None:
    """Unmount; MNT_DETACH for a lazy unmount. A symlink at the end is never followed."""
    _umount2(c_path(target), flags | UMOUNT_NOFOLLOW, path=target)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """Change the root mount; with (".", ".") the old root ends stacked above, to be unmounted at "."."""
    _pivot_root(c_path(new_root), c_path(put_old), path=new_root)
