"""fstab words of a mount request as the kernel's attributes (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from orlop.kernel import mount

__all__ = ["MountOptions", "Propagation", "parse_options"]

Propagation = Literal["private", "slave", "shared", "unbindable"]

_SET = {
    "ro": mount.MOUNT_ATTR_RDONLY,
    "nosuid": mount.MOUNT_ATTR_NOSUID,
    "nodev": mount.MOUNT_ATTR_NODEV,
    "noexec": mount.MOUNT_ATTR_NOEXEC,
    "noatime": mount.MOUNT_ATTR_NOATIME,
    "strictatime": mount.MOUNT_ATTR_STRICTATIME,
    "nodiratime": mount.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": mount.MOUNT_ATTR_NOSYMFOLLOW,
}
_CLEAR = {
    "rw": mount.MOUNT_ATTR_RDONLY,
    "suid": mount.MOUNT_ATTR_NOSUID,
    "dev": mount.MOUNT_ATTR_NODEV,
    "exec": mount.MOUNT_ATTR_NOEXEC,
    "diratime": mount.MOUNT_ATTR_NODIRATIME,
    "symfollow": mount.MOUNT_ATTR_NOSYMFOLLOW,
}
_PROPAGATION: dict[str, Propagation] = {
    "private": "private",
    "slave": "slave",
    "shared": "shared",
    "unbindable": "unbindable",
}
# Words that ask for what happens anyway, or that the engine has acted upon.
_IGNORED = frozenset(
    {"bind", "defaults", "relatime", "norelatime", "atime", "z", "Z", "nocopy", "async", "sync", ""}
)
_ATIME = mount.MOUNT_ATTR_NOATIME | mount.MOUNT_ATTR_STRICTATIME


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What `set_attributes` and `clear_attributes` say is disjoint; the last word of a pair won."""

    set_attributes: int = 0
    clear_attributes: int = 0
    is_recursive: bool = False
    propagation: Propagation | None = None
    is_mapped: bool = False
    is_top_only: bool = False  # of `ro`: mounts below stay as they are
    data: dict[str, str | None] = field(default_factory=dict)

    @property
    def is_read_only(self) -> bool:
        """True when `ro` was asked for."""
        return bool(self.set_attributes & mount.MOUNT_ATTR_RDONLY)


def parse_options(words: Sequence[str], *, base: int = 0, takes_data: bool = False) -> MountOptions:
    """Read the words of one mount.

    Args:
        words: such as `ro`, `rbind`, `rprivate`, `size=64m`.
        base: attributes set before the first word, which words may take back.
        takes_data: unknown words go to the file system (tmpfs) instead of being an error.

    Raises:
        ValueError: an unknown word.
    """
    added, removed = base, 0
    is_recursive = False
    propagation: Propagation | None = None
    is_mapped: bool = False
    is_top_only: bool = False
    data: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if word == "ro-top":
            added |= mount.MOUNT_ATTR_RDONLY
            removed &= ~mount.MOUNT_ATTR_RDONLY
            is_top_only = True
        elif word in _SET:
            added |= _SET[word]
            removed &= ~_SET[word]
        elif word in _CLEAR:
            removed |= _CLEAR[word]
            added &= ~_CLEAR[word]
        elif word == "rbind":
            is_recursive = True
        elif word == "idmap":
            is_mapped = True
        elif word.removeprefix("r") in _PROPAGATION:
            propagation = _PROPAGATION[word.removeprefix("r")]
        elif word in _IGNORED:
            continue
        elif takes_data:
            data[name] = value if equals else None
        else:
            raise ValueError(f"unknown mount option {word!r}")
    if added & _ATIME:
        removed |= mount.MOUNT_ATTR_ATIME_MASK  # the kernel wants the old mode cleared
    return MountOptions(added, removed, is_recursive, propagation, is_mapped, is_top_only, data)
