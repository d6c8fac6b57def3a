"""From archive entries to the tree a layer holds: pure, contained, last entry wins.

Names are bytes. A path is a list of components from the layer's root; `.` and empty ones mean
nothing, `..` is refused. A parent that is a symbolic link *in the same layer* is followed inside the
root (absolute targets start there, `..` stops there), as unpacking in a chroot would; the last
component is never followed. Missing parents are made 0755 root, time 0.

Entries over existing ones: a directory over a directory replaces its metadata and keeps the children;
anything else replaces what was there. A hard link is one more name for an inode, and its header's owner,
mode, time and attributes apply to that inode, as Docker does it. Whiteouts hide what lies *below* the
layer, never what the layer itself brings, whatever their order; a directory that is whited out
and made anew is opaque. The result is what overlay wants to see: whiteouts are 0:0 character devices.
`trusted.overlay.` and `user.overlay.` attributes in an archive are an attack or an accident: dropped.

Spec: OCI image-spec, layer, "Applying Changesets" and "Whiteouts".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from orlop.wire.tarheader import MAX_COMPONENT_BYTES, EntryKind, TarEntry, TarError, show

__all__ = ["OPAQUE_NAME", "WHITEOUT_PREFIX", "Inode", "LayerTree", "is_whiteout", "whiteout"]

WHITEOUT_PREFIX: Final = b".wh."
META_PREFIX: Final = b".wh..wh."  # book-keeping of aufs, ignored but for the next one
OPAQUE_NAME: Final = b".wh..wh..opq"

MAX_LINK_BYTES = 4095
MAX_LINK_HOPS = 40  # as the kernel
MAX_DEPTH = 2048
MAX_WALK = 8192  # components looked at for one entry, links included;
WALK_BASE, WALK_PER_ENTRY = 1_000_000, 50  # and for all entries together: links must not multiply the work

_FORBIDDEN_XATTRS = (b"trusted.overlay.", b"user.overlay.")
_DIRECTORY, _SYMLINK, _FILE = EntryKind.DIRECTORY, EntryKind.SYMLINK, EntryKind.FILE
_ODD = frozenset((b"", b".", b".."))


@dataclass(slots=True, eq=False)
class Inode:
    """A file of the tree; two names of one inode are two references to the same object.

    `entry` gives its metadata (the path in it is of no more use). `nlink` and `nid` are filled
    in by whoever lays the tree out.
    """

    entry: TarEntry
    children: dict[bytes, Inode] | None = None
    opaque: bool = False
    nlink: int = 0
    nid: int = -1


def whiteout() -> Inode:
    """What hides a name of the layers below."""
    return Inode(TarEntry(b"", EntryKind.CHAR, 0))


def is_whiteout(inode: Inode) -> bool:
    """True for the 0:0 character device."""
    entry = inode.entry
    return entry.kind is EntryKind.CHAR and not entry.major and not entry.minor


def _implied_directory() -> Inode:
    return Inode(TarEntry(b"", _DIRECTORY, 0o755), {})


class LayerTree:
    """The tree of one layer; `add` its entries in order, then `finish`."""

    def __init__(self) -> None:
        self.root = _implied_directory()
        self.entry_count = 0
        self.has_root = False  # an entry for the root itself was among them
        self._walked = 0
        self._directories: dict[bytes, Inode] = {b"": self.root}  # raw parent path -> what it resolved to

    def add(self, entry: TarEntry) -> None:
        """Apply one entry.

        Raises:
            TarError: the path leaves the root, runs through a file or a loop, or cannot exist; a
                hard link without a target.
        """
        self.entry_count += 1
        path = entry.path
        if path[-1:] == b"/":
            path = path.rstrip(b"/")
        if path[:2] == b"./":
            path = path[2:]
        parent, _, base = path.rpartition(b"/")
        directory = self._directories.get(parent)
        if directory is None or base in _ODD or base[:4] == WHITEOUT_PREFIX:
            self._add_odd(entry, path)
            return
        self._place(directory, base, entry)

    def finish(self) -> Inode:
        """Drop whiteouts that hide nothing (inside opaque directories) and return the root."""
        stack = [(self.root, False)]
        while stack:
            directory, hidden = stack.pop()
            children = directory.children
            assert children is not None
            hidden = hidden or (directory.opaque and directory is not self.root)
            if hidden:
                for name in [name for name, inode in children.items() if is_whiteout(inode)]:
                    del children[name]
            stack += [(inode, hidden) for inode in children.values() if inode.children is not None]
        return self.root

    def _add_odd(self, entry: TarEntry, path: bytes) -> None:
        """Normalise, whiteouts, new parents: what the fast path leaves over."""
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        if b".." in names:
            raise self._refuse(entry, "its path has a '..' component")
        if any(name[:8] == META_PREFIX for name in names) and names[-1] != OPAQUE_NAME:
            return
        if not names:
            if entry.kind is not _DIRECTORY:
                raise self._refuse(entry, "the root of a layer must be a directory")
            self._set_metadata(self.root, entry)
            self.has_root = True
            return
        base = names.pop()
        raw, _, last = path.rpartition(b"/")
        is_plain = last == base  # not so for "a/."
        directory = self._parent(raw, names, entry) if is_plain else self._resolve(names, entry)
        if base == OPAQUE_NAME:
            directory.opaque = True
            return
        if base[:4] == WHITEOUT_PREFIX:
            self._white_out(directory, base[4:], entry)
            return
        if is_plain:
            self._directories[raw] = directory
        self._place(directory, base, entry)

    def _place(self, directory: Inode, base: bytes, entry: TarEntry) -> None:
        children = directory.children
        assert children is not None
        if len(base) > MAX_COMPONENT_BYTES:
            raise self._refuse(entry, f"a component has more than {MAX_COMPONENT_BYTES} bytes")
        if entry.xattrs:
            _drop_overlay_xattrs(entry)
        kind = entry.kind
        existing = children.get(base)
        if kind is _FILE and existing is None:
            children[base] = Inode(entry)
            return
        if kind is _DIRECTORY:
            self._place_directory(children, base, entry, existing)
            return
        inode = self._hard_link(entry, existing) if kind is EntryKind.HARDLINK else Inode(entry)
        if kind is _SYMLINK and not 0 < len(entry.link) <= MAX_LINK_BYTES:
            raise self._refuse(entry, f"a symbolic link to {len(entry.link)} bytes cannot exist")
        if is_whiteout(inode):  # what an overlay's upper directory holds when tarred as it is
            self._white_out(directory, base, entry)
            return
        if existing is not None:
            self._forget(existing)
        children[base] = inode

    def _place_directory(
        self, children: dict[bytes, Inode], base: bytes, entry: TarEntry, existing: Inode | None
    ) -> None:
        if existing is not None and existing.children is not None:
            self._set_metadata(existing, entry)
            return
        opaque = existing is not None and is_whiteout(existing)
        if existing is not None:
            self._forget(existing)
        children[base] = Inode(entry, {}, opaque)

    def _white_out(self, directory: Inode, name: bytes, entry: TarEntry) -> None:
        if name in _ODD or len(name) > MAX_COMPONENT_BYTES:
            raise self._refuse(entry, "a whiteout must name something that can exist")
        children = directory.children
        assert children is not None
        existing = children.get(name)
        if existing is None:
            children[name] = whiteout()
        elif existing.children is not None:
            existing.opaque = True

    def _hard_link(self, entry: TarEntry, existing: Inode | None) -> Inode:
        names = [name for name in entry.link.split(b"/") if name not in (b"", b".")]
        if not names or b".." in names:
            raise self._refuse(entry, f"its hard link target {show(entry.link)} is not a file of the layer")
        directory = self._resolve(names[:-1], entry, create=False)
        target = (directory.children or {}).get(names[-1])
        if target is None or is_whiteout(target):
            raise self._refuse(entry, f"its hard link target {show(entry.link)} does not exist before it")
        if target.children is not None or target is existing:
            what = "itself" if target is existing else "a directory"
            raise self._refuse(entry, f"its hard link target {show(entry.link)} is {what}")
        self._set_metadata(target, entry)
        return target

    def _set_metadata(self, inode: Inode, entry: TarEntry) -> None:
        old = inode.entry
        if inode.children is not None:
            _drop_overlay_xattrs(entry)
            inode.entry = entry
            return
        xattrs = old.xattrs | entry.xattrs if entry.xattrs else old.xattrs
        fields = (old.mode, old.uid, old.gid, old.mtime_ns)
        if fields != (entry.mode, entry.uid, entry.gid, entry.mtime_ns) or xattrs is not old.xattrs:
            inode.entry = replace(
                old, mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime_ns=entry.mtime_ns, xattrs=xattrs
            )

    def _forget(self, inode: Inode) -> None:
        if inode.children is not None or inode.entry.kind is _SYMLINK:
            self._directories = {b"": self.root}  # some of them may have led through it

    def _parent(self, raw: bytes, names: list[bytes], entry: TarEntry) -> Inode:
        """`_resolve` with a short way for the usual case: the directory's own parent is known already."""
        above, _, name = raw.rpartition(b"/")
        known = self._directories.get(above)
        if known is not None and name not in _ODD:
            child = self._step(known, name, entry, create=True)
            if child.children is not None:
                return child
        return self._resolve(names, entry)

    def _resolve(self, names: list[bytes], entry: TarEntry, *, create: bool = True) -> Inode:
        """The directory that `names` lead to, made on the way where missing."""
        stack = [self.root]
        pending = names[::-1]
        hops = steps = 0
        while pending:
            name = pending.pop()
            steps += 1
            self._walked += 1
            if name in _ODD:  # from link targets only
                if name == b".." and len(stack) > 1:
                    stack.pop()
                continue
            child = self._step(stack[-1], name, entry, create=create)
            if child.children is not None:
                stack.append(child)
            else:
                hops += 1
                target = child.entry.link
                stack = [self.root] if target[:1] == b"/" else stack
                pending += target.split(b"/")[::-1]
            if self._walked > WALK_BASE + WALK_PER_ENTRY * self.entry_count:
                raise self._refuse(entry, "the links of this layer lead through too many directories")
            if hops > MAX_LINK_HOPS or steps > MAX_WALK or len(stack) > MAX_DEPTH:
                raise self._refuse(entry, "its path leads through too many links or directories")
        return stack[-1]

    def _step(self, directory: Inode, name: bytes, entry: TarEntry, *, create: bool) -> Inode:
        """The child directory or symbolic link of that name; a missing directory is made if `create`."""
        children = directory.children
        assert children is not None
        child = children.get(name)
        if child is not None and (child.children is not None or child.entry.kind is _SYMLINK):
            return child
        if child is not None and not is_whiteout(child):
            raise self._refuse(entry, f"its parent {show(name)} is not a directory")
        if not create:
            raise self._refuse(entry, f"its hard link target {show(entry.link)} does not exist before it")
        if len(name) > MAX_COMPONENT_BYTES or name[:4] == WHITEOUT_PREFIX:
            raise self._refuse(entry, f"its parent {show(name)} cannot be a directory")
        made = _implied_directory()
        made.opaque = child is not None
        children[name] = made
        return made

    @staticmethod
    def _refuse(entry: TarEntry, why: str) -> TarError:
        return TarError(
            f"layer entry {show(entry.path)} at offset {entry.offset} is refused: {why}",
            path=show(entry.path),
            offset=entry.offset,
        )


def _drop_overlay_xattrs(entry: TarEntry) -> None:
    for name in [name for name in entry.xattrs if name.startswith(_FORBIDDEN_XATTRS)]:
        del entry.xattrs[name]
