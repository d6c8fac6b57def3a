"""The two file systems Orlop is made of: overlay for roots, EROFS for layers; and the mount table.

Overlay layers are handed to the kernel as file descriptors, so a path may hold any character
and be of any length. Three ways, tried from the newest, and the one that works is remembered:
fd parameters (Linux 6.13), `lowerdir+` strings naming /proc/self/fd (6.5), and one
`lowerdir=a:b` through mount(2).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orlop.kernel import mount as mounts
from orlop.kernel.syscall import Path, c_path, fd_path

__all__ = [
    "FileBackedErofsUnsupported",
    "LayerStyle",
    "MountEntry",
    "erofs_fd",
    "erofs_mount",
    "filesystem_of",
    "mount_table",
    "overlay_fd",
    "parse_mountinfo",
]

DEFAULT_OVERLAY_OPTIONS = {"index": "off", "xino": "off", "metacopy": "off", "redirect_dir": "off"}
"""No state of overlay's own in the upper directory: it must be readable as a plain diff."""

MAX_LOWERS = 500  # fs/overlayfs/params.h, OVL_MAX_STACK
_MAX_STRING = 255  # fsconfig(2): longer values are refused
_MAX_DATA = 4095  # mount(2): one page of options


class FileBackedErofsUnsupported(OSError):
    """This kernel cannot mount an EROFS image straight from a file: use a loop device or unpack."""


class LayerStyle(enum.Enum):
    """How overlay is told its layers."""

    FD = "fd"
    STRING = "lowerdir+"
    MOUNT = "lowerdir="


_working_style: list[LayerStyle] = []  # at most one: the first that worked in this process


def overlay_fd(
    lowers: Sequence[Path],
    upper: Path | None = None,
    work: Path | None = None,
    options: Mapping[str, str | None] = DEFAULT_OVERLAY_OPTIONS,
    *,
    attributes: int = 0,
    style: LayerStyle | None = None,
) -> int:
    """A detached overlay mount, as an fd the caller closes (after `mount.attach`).

    Args:
        lowers: directories, topmost first; at least one, at most 500.
        upper: the writable directory; without it the mount is read-only.
        work: overlay's scratch directory, on the same file system as `upper`.
        options: further overlay options; None as value for flags such as `userxattr`.
        attributes: MOUNT_ATTR_* of the mount.
        style: forces one way of passing layers (tests).

    Raises:
        OSError: with the kernel's log of the context in its message (overlay itself says more in
            the kernel's ring buffer) and the upper directory or topmost lower as its file name.
    """
    if (upper is None) != (work is None):
        raise ValueError("upper and work go together")
    if not 0 < len(lowers) <= MAX_LOWERS:
        raise OSError(errno.E2BIG, f"overlay: {len(lowers)} layers, at most {MAX_LOWERS}")
    with contextlib.ExitStack() as stack:
        layers = [("lowerdir+", _open_directory(path, stack)) for path in lowers]
        if upper is not None and work is not None:
            layers += [("upperdir", _open_directory(upper, stack)), ("workdir", _open_directory(work, stack))]
        elif len(layers) == 1:
            layers.append(("lowerdir+", _empty_directory(stack)))
        try:
            return _mount_overlay(layers, options, attributes, style)
        except OSError as error:
            raise OSError(error.errno, f"overlay: {error.strerror}", upper or lowers[0]) from error


def _open_directory(path: Path, stack: contextlib.ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _empty_directory(stack: contextlib.ExitStack) -> int:
    """A second lower for a view of one layer: overlay wants two when nothing is writable."""
    fd = mounts.new_filesystem("tmpfs", {"size": "4k", "mode": "0755"}, mounts.MOUNT_ATTR_RDONLY)
    stack.callback(os.close, fd)
    return fd


_Layers = Sequence[tuple[str, int]]
_Options = Mapping[str, str | None]


def _mount_overlay(layers: _Layers, options: _Options, attributes: int, style: LayerStyle | None) -> int:
    styles = [style] if style else _working_style or list(LayerStyle)
    ways: dict[LayerStyle, Callable[[_Layers, _Options, int], int]] = {
        LayerStyle.FD: _overlay_by_fds,
        LayerStyle.STRING: _overlay_by_strings,
        LayerStyle.MOUNT: _overlay_by_mount,
    }
    first_error: OSError | None = None
    for candidate in styles:
        try:
            fd = ways[candidate](layers, options, attributes)
        except OSError as error:
            first_error = first_error or error
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EBADF):
                break
        else:
            if not style and not _working_style:
                _working_style.append(candidate)
            return fd
    assert first_error is not None
    raise first_error


def _overlay_by_fds(layers: _Layers, options: _Options, attributes: int) -> int:
    def add(context: int, key: str, fd: int) -> None:
        mounts.fsconfig_fd(context, key, fd)

    return _overlay_context(layers, options, attributes, add)


def _overlay_by_strings(layers: _Layers, options: _Options, attributes: int) -> int:
    def add(context: int, key: str, fd: int) -> None:
        mounts.fsconfig_string(context, key, fd_path(fd))

    return _overlay_context(layers, options, attributes, add)


def _overlay_context(
    layers: _Layers, options: _Options, attributes: int, add: Callable[[int, str, int], None]
) -> int:
    context = mounts.fsopen("overlay")
    try:
        mounts.fsconfig_string(context, "source", "overlay")
        for key, fd in layers:
            add(context, key, fd)
        for key, value in options.items():
            if value is None:
                mounts.fsconfig_flag(context, key)
            else:
                mounts.fsconfig_string(context, key, value)
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, attributes)
    finally:
        os.close(context)


def _overlay_by_mount(layers: _Layers, options: _Options, attributes: int) -> int:
    """mount(2) needs a place: the topmost lower, which overlay has already copied for itself.

    The mount is there for a moment only; whoever calls us lives in a mount namespace of ours.
    """
    lowers = ":".join(fd_path(fd) for key, fd in layers if key == "lowerdir+")
    words = [f"lowerdir={lowers}"]
    words += [f"{key}={fd_path(fd)}" for key, fd in layers if key != "lowerdir+"]
    words += [key if value is None else f"{key}={value}" for key, value in options.items()]
    data = ",".join(words)
    if len(data) > _MAX_DATA:
        raise OSError(errno.E2BIG, "overlay: too many layers for this kernel (Linux 6.5 has no such limit)")
    place = os.path.realpath(fd_path(layers[0][1]))
    mounts.mount("overlay", place, "overlay", 0, data)
    try:
        fd = mounts.detach(place)
    finally:
        mounts.umount2(place, mounts.MNT_DETACH)
    if attributes:
        mounts.mount_setattr(fd, set_attributes=attributes)
    return fd


def erofs_fd(path: Path, *, attributes: int = 0, options: Mapping[str, str | None] | None = None) -> int:
    """A detached read-only mount of the EROFS image in a regular file or block device; the caller closes it.

    Layer mounts are never used but as lowers of an overlay, which has its own rules for
    devices and setuid: nosuid and nodev here keep a bare layer harmless.

    Raises:
        FileBackedErofsUnsupported: the kernel lacks EROFS or takes block devices only.
        OSError: the image is refused, with the kernel's words if it has any.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        source = path if len(c_path(path)) <= _MAX_STRING else fd_path(fd)
        return _erofs_from(source, path, attributes, options or {})
    finally:
        os.close(fd)


def _erofs_from(source: Path, path: Path, attributes: int, options: Mapping[str, str | None]) -> int:
    try:
        context = mounts.fsopen("erofs")
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENOSYS):
            raise FileBackedErofsUnsupported(error.errno, "this kernel has no EROFS", path) from error
        raise
    try:
        mounts.fsconfig_string(context, "source", source)
        mounts.fsconfig_flag(context, "ro")
        for key, value in options.items():
            if value is None:
                mounts.fsconfig_flag(context, key)
            else:
                mounts.fsconfig_string(context, key, value)
        mounts.fsconfig_create(context)
        safe = mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV
        return mounts.fsmount(context, safe | attributes)
    except OSError as error:
        if error.errno == errno.ENOTBLK:
            text = "this kernel mounts EROFS from block devices only"
            raise FileBackedErofsUnsupported(error.errno, text, path) from error
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(context)


def erofs_mount(path: Path, target: Path | int, *, attributes: int = 0) -> None:
    """Mount the EROFS image in the file `path` read-only at `target`: our own path, or a directory fd."""
    fd = erofs_fd(path, attributes=attributes)
    try:
        mounts.attach(fd, target)
    finally:
        os.close(fd)


# --- mountinfo ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of /proc/<pid>/mountinfo (proc(5)). Paths are decoded from octal escapes."""

    id: int
    parent_id: int
    device: tuple[int, int]
    root: bytes
    target: bytes
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    kind: str
    source: bytes
    super_options: tuple[str, ...]


def mount_table(pid: int | str = "self") -> list[MountEntry]:
    """The mounts of a process's mount namespace, in mount order."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return list(parse_mountinfo(file.read()))


def filesystem_of(path: str, table: Iterable[MountEntry]) -> str:
    """The kind of file system that an absolute path without links lies on; "" when no mount is above it."""
    wanted = os.fsencode(path).rstrip(b"/") + b"/"
    found = b"", ""
    for entry in table:  # in mount order: of two at one place the later one is seen
        prefix = entry.target.rstrip(b"/") + b"/"
        if wanted.startswith(prefix) and len(prefix) >= len(found[0]):
            found = prefix, entry.kind
    return found[1]


def parse_mountinfo(text: bytes) -> Iterator[MountEntry]:
    """Entries of mountinfo's text; a line that is not of its shape raises ValueError."""
    for line in text.split(b"\n"):
        if line:
            yield _parse_line(line)


def _parse_line(line: bytes) -> MountEntry:
    head, separator, tail = line.partition(b" - ")
    fields, rest = head.split(b" "), tail.split(b" ")
    if not separator or len(fields) < 6 or len(rest) < 3:
        raise ValueError(f"not a mountinfo line: {line!r}")
    major, _, minor = fields[2].partition(b":")
    return MountEntry(
        id=int(fields[0]),
        parent_id=int(fields[1]),
        device=(int(major), int(minor)),
        root=_unescape(fields[3]),
        target=_unescape(fields[4]),
        options=_words(fields[5]),
        propagation=tuple(os.fsdecode(word) for word in fields[6:]),
        kind=os.fsdecode(rest[0]),
        source=_unescape(rest[1]),
        super_options=_words(rest[2]),
    )


def _words(field: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(field).split(","))


def _unescape(field: bytes) -> bytes:
    """Undo the kernel's octal escapes of space, tab, newline, backslash and number sign."""
    if b"\\" not in field:
        return field
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in rest)
