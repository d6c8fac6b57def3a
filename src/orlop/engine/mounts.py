"""Mounts of a container: what -v, --mount, --tmpfs, VOLUME and --volumes-from ask for, in one form.

Pure. A `Wish` is one mount as asked for; `engine/volumes.py` turns wishes into `MountRecord`s by
creating volumes and checking sources. Grammar and texts: dockerd's volume parser.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from orlop.base.errors import InvalidInput
from orlop.engine.requests import BindOptions, ContainerConfig, HostConfig, Mount

__all__ = ["Wish", "check_volume_name", "collect_wishes", "split_volumes_from"]

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_CONSISTENCY = ("consistent", "cached", "delegated", "default")
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
_TMPFS_WORDS = re.compile(
    r"(rw|ro|exec|noexec|suid|nosuid|dev|nodev|sync|async|dirsync|mand|nomand|atime|noatime|diratime|"
    r"nodiratime|relatime|norelatime|strictatime|nostrictatime|swap|noswap|inode32|inode64|"
    r"(size|nr_blocks|nr_inodes|mode|uid|gid|mpol|huge)=[\w%.:,-]+)\Z"
)
_MAX_MOUNTS = 1024


@dataclass(frozen=True, slots=True)
class Wish:
    """One mount as asked for. An empty `source` of a volume asks for an anonymous one."""

    kind: str  # bind, volume, tmpfs, image
    target: str
    source: str = ""
    mode: str = ""
    is_read_only: bool = False
    propagation: str = ""
    is_recursive: bool = True
    is_read_only_recursive: bool = True
    create_source: bool = False
    copy_up: bool = False
    driver: str = ""
    driver_options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    tmpfs_options: tuple[str, ...] = ()
    subpath: str = ""  # below the volume or image


def check_volume_name(name: str) -> str:
    """Refuse what cannot be a directory's name in our state.

    Raises:
        InvalidInput: with dockerd's text.
    """
    if not _VOLUME_NAME.match(name) or len(name) > 255:
        raise InvalidInput(
            f'create {name[:300]}: "{name[:300]}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute '
            "path"
        )
    return name


def collect_wishes(config: ContainerConfig, host: HostConfig) -> list[Wish]:
    """All mounts asked for, in the order in which they are made; VOLUMEs of the image last.

    Raises:
        InvalidInput: bad grammar, or two for one path.
    """
    wishes = [_parse_bind(text, host.volume_driver) for text in host.binds or ()]
    wishes += [_parse_mount(mount) for mount in host.mounts or ()]
    wishes += [_parse_tmpfs(path, options) for path, options in (host.tmpfs or {}).items()]
    _refuse_duplicates(wish.target for wish in wishes)
    taken = {wish.target for wish in wishes}
    for path in sorted(config.volumes or ()):
        target = _clean_target(path, path)
        if target not in taken:
            wishes.append(Wish("volume", target, copy_up=True, driver=host.volume_driver or "local"))
    if len(wishes) > _MAX_MOUNTS:
        raise InvalidInput(f"too many mounts: {len(wishes)}, the limit is {_MAX_MOUNTS}")
    return wishes


def split_volumes_from(text: str) -> tuple[str, bool | None]:
    """`name[:ro|rw]` -> name, read-only or None for "as it is there"."""
    name, colon, mode = text.partition(":")
    if colon and mode.split(",")[0] not in ("ro", "rw", "z", "Z", ""):
        raise InvalidInput(f"invalid mode: {mode[:60]}")
    if not name:
        raise InvalidInput("missing container ID")
    if "ro" in mode.split(","):
        return name, True
    return name, None


def _refuse_duplicates(targets: Iterable[str]) -> None:
    seen = set()
    for target in targets:
        if target in seen:
            raise InvalidInput(f"Duplicate mount point: {target}")
        seen.add(target)


def _clean_target(path: str, spec: str, kind: str = "volume") -> str:
    if not path.startswith("/"):
        raise InvalidInput(
            f"invalid volume specification: '{spec[:300]}': invalid mount config for type "
            f"\"{kind}\": invalid mount path: '{path[:200]}' mount path must be absolute"
        )
    if "\0" in path or len(path) > 4095:
        raise InvalidInput(f"invalid mount path: '{path[:200]!r}'")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise InvalidInput(
            f"invalid volume specification: '{spec[:300]}': invalid mount config for type "
            f"\"{kind}\": invalid specification: destination can't be '/'"
        )
    return clean


def _parse_bind(text: str, driver: str) -> Wish:
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise InvalidInput(f"invalid volume specification: '{text[:300]}'")
    if len(parts) == 1:
        return Wish("volume", _clean_target(text, text), copy_up=True, driver=driver or "local")
    source = parts[0]
    target = _clean_target(parts[1], text, "bind" if source.startswith("/") else "volume")
    mode = parts[2] if len(parts) == 3 else ""
    words = [word for word in mode.split(",") if word]
    is_bind = source.startswith("/")
    propagation = _check_mode(words, text, is_bind=is_bind)
    if is_bind:
        if "\0" in source:
            raise InvalidInput(f"invalid volume specification: '{text[:300]!r}'")
        return Wish(
            "bind",
            target,
            source=posixpath.normpath(source),
            mode=mode,
            is_read_only="ro" in words,
            propagation=propagation or "rprivate",
            create_source=True,
        )
    return Wish(
        "volume",
        target,
        source=check_volume_name(source),
        mode=mode or "z",
        is_read_only="ro" in words,
        copy_up="nocopy" not in words,
        driver=driver or "local",
    )


def _check_mode(words: list[str], text: str, *, is_bind: bool) -> str:
    propagation = ""
    groups: set[str] = set()
    for word in words:
        if word in ("ro", "rw"):
            group = "access"
        elif word in ("z", "Z"):
            group = "label"
        elif word in _PROPAGATION and is_bind:
            group, propagation = "propagation", word
        elif word in _CONSISTENCY:
            group = "consistency"
        elif word in ("idmap", "noidmap") and is_bind:
            group = "owners"
        elif word == "nocopy" and not is_bind:
            group = "copy"
        else:
            raise InvalidInput(f"invalid mode: {word[:60]}", specification=text[:300])
        if group in groups:
            raise InvalidInput(f"invalid mode: {','.join(words)[:60]}", specification=text[:300])
        groups.add(group)
    return propagation


def _parse_tmpfs(path: str, options: str) -> Wish:
    words = tuple(word for word in options.split(",") if word)
    for word in words:
        if not _TMPFS_WORDS.match(word):
            raise InvalidInput(f'invalid tmpfs option ["{word[:60]}"]')
    return Wish("tmpfs", _clean_target(path, path), mode=options, tmpfs_options=(*_TMPFS_DEFAULTS, *words))


def _refuse_mount(kind: str, reason: str) -> InvalidInput:
    return InvalidInput(f'invalid mount config for type "{kind}": {reason}')


def _parse_mount(mount: Mount) -> Wish:
    kind = mount.type
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise _refuse_mount(kind[:60], "mount type unknown")
    if not mount.target:
        raise _refuse_mount(kind, "field Target must not be empty")
    if not mount.target.startswith("/"):
        raise _refuse_mount(kind, f"invalid mount path: '{mount.target[:200]}' mount path must be absolute")
    target = _clean_target(mount.target, mount.target)
    match kind:
        case "bind":
            return _parse_bind_mount(mount, target)
        case "volume":
            return _parse_volume_mount(mount, target)
        case "image":
            return _parse_image_mount(mount, target)
        case _:
            return _parse_tmpfs_mount(mount, target)


def _parse_bind_mount(mount: Mount, target: str) -> Wish:
    options = mount.bind_options
    if not mount.source:
        raise _refuse_mount("bind", "field Source must not be empty")
    if not mount.source.startswith("/") or "\0" in mount.source:
        raise _refuse_mount("bind", f"invalid mount path: '{mount.source[:200]}' mount path must be absolute")
    _refuse_options(mount, "bind")
    propagation = options.propagation if options else ""
    if propagation and propagation not in _PROPAGATION:
        raise _refuse_mount("bind", f"invalid propagation mode: {propagation[:60]}")
    if options:
        _check_recursion(options, is_read_only=mount.read_only)
    return Wish(
        "bind",
        target,
        source=posixpath.normpath(mount.source),
        is_read_only=mount.read_only,
        propagation=propagation or "rprivate",
        is_recursive=not (options and options.non_recursive),
        is_read_only_recursive=not (options and options.read_only_non_recursive),
        create_source=bool(options and options.create_mountpoint),
    )


def _parse_volume_mount(mount: Mount, target: str) -> Wish:
    options = mount.volume_options
    _refuse_options(mount, "volume")
    driver = options.driver_config if options else None
    subpath = options.subpath if options else ""
    if subpath and not mount.source:
        raise _refuse_mount("volume", "must not set Subpath when using anonymous volumes")
    return Wish(
        "volume",
        target,
        source=check_volume_name(mount.source) if mount.source else "",
        mode="z",
        is_read_only=mount.read_only,
        copy_up=not (options and options.no_copy) and not subpath,
        subpath=_check_subpath(subpath, "volume"),
        driver=(driver.name if driver else "") or "local",
        driver_options=dict((driver.options if driver else None) or {}),
        labels=dict((options.labels if options else None) or {}),
    )


def _parse_image_mount(mount: Mount, target: str) -> Wish:
    if not mount.source:
        raise _refuse_mount("image", "field Source must not be empty")
    _refuse_options(mount, "image")
    subpath = mount.image_options.subpath if mount.image_options else ""
    return Wish(
        "image", target, source=mount.source, is_read_only=True, subpath=_check_subpath(subpath, "image")
    )


def _refuse_options(mount: Mount, kind: str) -> None:
    """Options of another kind of mount are a mistake of the client's."""
    given = {
        "bind": (mount.bind_options, "BindOptions"),
        "volume": (mount.volume_options, "VolumeOptions"),
        "image": (mount.image_options, "ImageOptions"),
        "tmpfs": (mount.tmpfs_options, "TmpfsOptions"),
    }
    for name, (options, word) in given.items():
        if name != kind and options is not None:
            raise _refuse_mount(kind, f"field {word} must not be specified")


def _check_recursion(options: BindOptions, *, is_read_only: bool) -> None:
    """Which words about mounts below a bind go together."""
    wants_top_only, wants_all = options.read_only_non_recursive, options.read_only_force_recursive
    if wants_top_only and not is_read_only:
        raise _refuse_mount(
            "bind", "mount must be set read-only when specifying BindOptions.ReadOnlyNonRecursive"
        )
    if not wants_all:
        return
    if not is_read_only:
        raise _refuse_mount(
            "bind", "mount must be set read-only when specifying BindOptions.ReadOnlyForceRecursive"
        )
    if wants_top_only:
        raise _refuse_mount(
            "bind", "ReadOnlyNonRecursive conflicts with ReadOnlyForceRecursive: only one may be set"
        )
    if options.non_recursive:
        raise _refuse_mount("bind", "ReadOnlyForceRecursive conflicts with NonRecursive: only one may be set")


def _check_subpath(path: str, kind: str) -> str:
    if not path:
        return ""
    clean = posixpath.normpath(path)
    if path.startswith("/") or clean == ".." or clean.startswith("../") or "\0" in path or len(path) > 4095:
        raise _refuse_mount(kind, "subpath must be a relative path within the volume")
    return clean


def _parse_tmpfs_mount(mount: Mount, target: str) -> Wish:
    if mount.source:
        raise _refuse_mount("tmpfs", "field Source must not be specified")
    _refuse_options(mount, "tmpfs")
    words = list(_TMPFS_DEFAULTS)
    options = mount.tmpfs_options
    if options:
        if options.size_bytes < 0:
            raise _refuse_mount("tmpfs", "SizeBytes must not be negative")
        if options.size_bytes:
            words.append(f"size={options.size_bytes}")
        if options.mode:
            words.append(f"mode={options.mode & 0o7777:o}")
        for item in options.options or ():
            pair = [item] if isinstance(item, str) else list(item)
            word = "=".join(str(part) for part in pair)
            if not _TMPFS_WORDS.match(word):
                raise _refuse_mount("tmpfs", f"invalid option: {word[:60]!r}")
            words.append(word)
    if mount.read_only:
        words.append("ro")
    return Wish("tmpfs", target, is_read_only=mount.read_only, tmpfs_options=tuple(words))
