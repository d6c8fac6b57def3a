"""The option words of one mount, split into what each kind of step needs. Pure.

Spec: OCI runtime-spec 1.2, config.md, "Linux mount options".
"""

from __future__ import annotations

from dataclasses import dataclass

from orlop.bundle.config import Mount
from orlop.bundle.refusal import Refused
from orlop.kernel import mount as attr
from orlop.runtime.mountopts import MountOptions, parse_options

__all__ = ["MountPlan", "plan_mount"]

_RECURSIVE_SET = {
    "rro": attr.MOUNT_ATTR_RDONLY,
    "rnosuid": attr.MOUNT_ATTR_NOSUID,
    "rnodev": attr.MOUNT_ATTR_NODEV,
    "rnoexec": attr.MOUNT_ATTR_NOEXEC,
    "rnodiratime": attr.MOUNT_ATTR_NODIRATIME,
    "rnosymfollow": attr.MOUNT_ATTR_NOSYMFOLLOW,
    "rnoatime": attr.MOUNT_ATTR_NOATIME,
    "rstrictatime": attr.MOUNT_ATTR_STRICTATIME,
}
_RECURSIVE_CLEAR = {
    "rrw": attr.MOUNT_ATTR_RDONLY,
    "rsuid": attr.MOUNT_ATTR_NOSUID,
    "rdev": attr.MOUNT_ATTR_NODEV,
    "rexec": attr.MOUNT_ATTR_NOEXEC,
    "rdiratime": attr.MOUNT_ATTR_NODIRATIME,
    "rsymfollow": attr.MOUNT_ATTR_NOSYMFOLLOW,
    "rrelatime": attr.MOUNT_ATTR_ATIME_MASK,
    "ratime": attr.MOUNT_ATTR_ATIME_MASK,
}
_ATIME = attr.MOUNT_ATTR_NOATIME | attr.MOUNT_ATTR_STRICTATIME
# Of the superblock, not of the mount; `async` and the like are what happens anyway.
_SUPERBLOCK = frozenset({"sync", "dirsync", "lazytime", "mand"})
_NOTHING = frozenset({"async", "nolazytime", "nomand", "loud", "silent", "iversion", "noiversion", "remount"})
_OWN = frozenset({"bind", "rbind", "tmpcopyup", "idmap", "ridmap"})


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One mount, ready: `kind` is bind, cgroup or a type of file system."""

    kind: str
    destination: str
    source: str
    options: MountOptions
    recursive_set: int = 0
    recursive_clear: int = 0
    is_recursive_propagation: bool = False
    copies_up: bool = False
    idmap: str = ""  # "", idmap or ridmap
    uid_mappings: tuple[tuple[int, int, int], ...] = ()
    gid_mappings: tuple[tuple[int, int, int], ...] = ()

    @property
    def is_bind(self) -> bool:
        """Whether it shows something of the host."""
        return self.kind == "bind"


def plan_mount(mount: Mount) -> MountPlan:
    """Read the words of one mount.

    Raises:
        Refused: they contradict each other.
    """
    words = list(mount.options)
    is_bind = mount.kind == "bind" or bool({"bind", "rbind"} & set(words))
    kind = "bind" if is_bind else {"cgroup2": "cgroup", "": "none"}.get(mount.kind, mount.kind)
    if kind == "none":
        raise Refused(f"mount at {mount.destination}: neither a type nor bind is given")
    recursive_set, recursive_clear = _recursive(words)
    known = _RECURSIVE_SET.keys() | _RECURSIVE_CLEAR.keys() | _NOTHING | (_OWN - {"rbind"})
    left = [word for word in words if word not in known]
    superblock = {word: None for word in left if word in _SUPERBLOCK and not is_bind}
    options = parse_options([word for word in left if word not in _SUPERBLOCK], takes_data=True)
    options.data.update(superblock)
    mappings = [
        tuple((item.container_id, item.host_id, item.size) for item in items)
        for items in (mount.uid_mappings, mount.gid_mappings)
    ]
    if bool(mappings[0]) != bool(mappings[1]):
        raise Refused(f"mount at {mount.destination}: both uidMappings and gidMappings must be given")
    idmap = "ridmap" if "ridmap" in words else "idmap" if "idmap" in words or mappings[0] else ""
    if idmap and not is_bind:
        raise Refused(f"mount at {mount.destination}: id-mapped mounts are only supported for bind mounts")
    return MountPlan(
        kind,
        mount.destination,
        mount.source,
        options,
        recursive_set,
        recursive_clear,
        is_recursive_propagation=any(
            word in words for word in ("rshared", "rslave", "rprivate", "runbindable")
        ),
        copies_up="tmpcopyup" in words,
        idmap=idmap,
        uid_mappings=mappings[0],
        gid_mappings=mappings[1],
    )


def _recursive(words: list[str]) -> tuple[int, int]:
    added = removed = 0
    for word in words:
        if word in _RECURSIVE_SET:
            added |= _RECURSIVE_SET[word]
            removed &= ~_RECURSIVE_SET[word]
        elif word in _RECURSIVE_CLEAR:
            removed |= _RECURSIVE_CLEAR[word]
            added &= ~_RECURSIVE_CLEAR[word]
    if added & _ATIME:
        removed |= attr.MOUNT_ATTR_ATIME_MASK  # the kernel wants the old mode cleared
    return added, removed
