"""What a sequence of entries means as a layer: containment, replacement, whiteouts."""

import pytest

from orlop.wire.layertree import LayerTree, is_whiteout
from orlop.wire.tarheader import EntryKind, TarEntry, TarError


def f(path, **fields):
    return TarEntry(path, EntryKind.FILE, **fields)


def d(path, **fields):
    return TarEntry(path, EntryKind.DIRECTORY, fields.pop("mode", 0o755), **fields)


def ln(path, target):
    return TarEntry(path, EntryKind.SYMLINK, 0o777, link=target)


def hard(path, target, **fields):
    return TarEntry(path, EntryKind.HARDLINK, link=target, **fields)


def tree_of(*entries):
    tree = LayerTree()
    for entry in entries:
        tree.add(entry)
    return tree.finish()


def shown(directory):
    """A nested dict: None for files, targets for links, "W" for whiteouts, "!" as key for opaque."""
    result = {b"!": True} if directory.opaque else {}
    for name, inode in directory.children.items():
        if inode.children is not None:
            result[name] = shown(inode)
        elif is_whiteout(inode):
            result[name] = "W"
        else:
            result[name] = inode.entry.link or None
    return result


ACCEPTED = {
    "dot prefix": ([f(b"./a/b")], {b"a": {b"b": None}}),
    "absolute": ([f(b"/a/b")], {b"a": {b"b": None}}),
    "doubled slashes": ([f(b"//a//./b")], {b"a": {b"b": None}}),
    "trailing slashes": ([d(b"a//")], {b"a": {}}),
    "trailing dot": ([d(b"a/."), f(b"a/x"), d(b"a/./b/./."), f(b"a/b/y")], {b"a": {b"x": None, b"b": {b"y": None}}}),
    "root only": ([d(b"./"), d(b"/"), d(b".")], {}),
    "odd bytes": ([f(b"a\n\\\xff\xfe")], {b"a\n\\\xff\xfe": None}),
    "255 bytes": ([f(b"x" * 255)], {b"x" * 255: None}),
    "missing parents": ([f(b"a/b/c")], {b"a": {b"b": {b"c": None}}}),
    "through a link": ([d(b"usr/bin"), ln(b"bin", b"usr/bin"), f(b"bin/sh")], {b"usr": {b"bin": {b"sh": None}}, b"bin": b"usr/bin"}),
    "through an absolute link": ([ln(b"l", b"/t"), f(b"l/x")], {b"l": b"/t", b"t": {b"x": None}}),
    "link up and out": ([ln(b"l", b"../../../etc"), f(b"l/x")], {b"l": b"../../../etc", b"etc": {b"x": None}}),
    "link to the root": ([ln(b"l", b"/"), f(b"l/x")], {b"l": b"/", b"x": None}),
    "link chain": ([ln(b"a", b"b"), ln(b"b", b"c/d"), f(b"a/x")], {b"a": b"b", b"b": b"c/d", b"c": {b"d": {b"x": None}}}),
    "link/..": ([d(b"p/q"), ln(b"l", b"p/q/.."), f(b"l/x")], {b"p": {b"q": {}, b"x": None}, b"l": b"p/q/.."}),
    "link replaced": ([ln(b"l", b"t"), f(b"l/x"), d(b"l"), f(b"l/y")], {b"l": {b"y": None}, b"t": {b"x": None}}),
    "directory replaced by link": ([d(b"a"), f(b"a/x"), ln(b"a", b"/b"), f(b"a/y")], {b"a": b"/b", b"b": {b"y": None}}),
    "last component not followed": ([ln(b"l", b"/etc/passwd"), f(b"l")], {b"l": None}),
    "file, directory, link": ([f(b"a"), d(b"a"), f(b"a/b"), ln(b"a", b"x")], {b"a": b"x"}),
    "directory twice keeps children": ([d(b"a"), f(b"a/b"), d(b"a", mode=0o700)], {b"a": {b"b": None}}),
    "hard link through link": ([f(b"d/x"), ln(b"l", b"d"), hard(b"h", b"l/x")], {b"d": {b"x": None}, b"l": b"d", b"h": None}),
    "hard link to link": ([ln(b"l", b"t"), hard(b"h", b"/l")], {b"l": b"t", b"h": b"t"}),
    "whiteout": ([f(b"a/.wh.b")], {b"a": {b"b": "W"}}),
    "whiteout as directory": ([d(b"a/.wh.b/")], {b"a": {b"b": "W"}}),
    "whiteout with data": ([f(b".wh.b", size=9)], {b"b": "W"}),
    "whiteout then file": ([f(b".wh.b"), f(b"b")], {b"b": None}),
    "file then whiteout": ([f(b"b"), f(b".wh.b")], {b"b": None}),
    "whiteout then directory": ([f(b".wh.b"), d(b"b")], {b"b": {b"!": True}}),
    "directory then whiteout": ([d(b"b"), f(b"b/c"), f(b".wh.b")], {b"b": {b"!": True, b"c": None}}),
    "whiteout then implied directory": ([f(b".wh.b"), f(b"b/c")], {b"b": {b"!": True, b"c": None}}),
    "opaque": ([f(b"a/.wh..wh..opq"), f(b"a/b")], {b"a": {b"!": True, b"b": None}}),
    "opaque root": ([f(b".wh..wh..opq"), f(b".wh.x")], {b"!": True, b"x": "W"}),
    "whiteout in an opaque directory": ([f(b"a/.wh..wh..opq"), f(b"a/.wh.b"), f(b"a/c/.wh.d")], {b"a": {b"!": True, b"c": {}}}),
    "aufs files": ([d(b".wh..wh.plnk"), f(b".wh..wh.plnk/1.2"), f(b".wh..wh.aufs"), d(b".wh..wh.orph")], {}),
    "raw 0:0 device": ([TarEntry(b"a", EntryKind.CHAR)], {b"a": "W"}),
    "whiteout through a link": ([ln(b"l", b"t"), f(b"l/.wh.x")], {b"l": b"t", b"t": {b"x": "W"}}),
    "case and normal forms": ([f(b"A"), f(b"a"), f("\u00e9".encode()), f("e\u0301".encode())], {b"A": None, b"a": None, b"\xc3\xa9": None, b"e\xcc\x81": None}),
}  # fmt: skip

REFUSED = {
    "..": [f(b"../x")],
    "a/../../x": [f(b"a/../../x")],
    "harmless ..": [f(b"a/../x")],
    "trailing ..": [d(b"a/..")],
    "root as file": [f(b"./")],
    "root as link": [ln(b"/", b"x")],
    "256 bytes": [f(b"x" * 256)],
    "256 bytes as parent": [f(b"x" * 256 + b"/y")],
    "256 bytes as whiteout": [f(b".wh." + b"x" * 256)],
    "through a file": [f(b"a"), f(b"a/b")],
    "through a device": [TarEntry(b"a", EntryKind.CHAR, major=1, minor=3), f(b"a/b")],
    "opaque in a file": [f(b"a"), f(b"a/.wh..wh..opq")],
    "link loop": [ln(b"a", b"b"), ln(b"b", b"a"), f(b"a/x")],
    "link to itself": [ln(b"a", b"a"), f(b"a/x")],
    "link that doubles": [*[ln(b"l%d" % n, b"/".join([b"l%d" % (n + 1)] * 2)) for n in range(60)], f(b"l0/x")],
    "empty link": [ln(b"a", b"")],
    "link of 4096 bytes": [ln(b"a", b"x" * 4096)],
    "hard link to nothing": [hard(b"h", b"x")],
    "hard link to later entry": [hard(b"h", b"x"), f(b"x")],
    "hard link to itself": [f(b"h"), hard(b"h", b"h")],
    "hard link to directory": [d(b"x"), hard(b"h", b"x")],
    "hard link out": [f(b"etc/passwd"), hard(b"h", b"../etc/passwd")],
    "hard link to the root": [hard(b"h", b"/")],
    "hard link to whiteout": [f(b".wh.x"), hard(b"h", b"x")],
    "hard link in missing directory": [hard(b"h", b"x/y")],
    "whiteout of nothing": [f(b".wh.")],
    "whiteout of .": [f(b".wh..")],
    "whiteout of ..": [f(b".wh...")],
    "below a whiteout name": [f(b".wh.../x")],
    "below another whiteout name": [f(b".wh.a/x")],
    "too deep": [*[d(b"/".join([b"d"] * 1500)), ln(b"l", b"/".join([b"d"] * 1500))], d(b"l/" + b"/".join([b"e"] * 1500) + b"/x")],
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_and_contained(name):
    entries, wanted = ACCEPTED[name]

    assert shown(tree_of(*entries)) == wanted


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    with pytest.raises(TarError, match="layer entry"):
        tree_of(*REFUSED[name])


def test_last_entry_wins_with_its_metadata():
    root = tree_of(f(b"a", mode=0o600), f(b"a", mode=0o644), d(b"b", mode=0o700), d(b"b", mode=0o711))

    assert (root.children[b"a"].entry.mode, root.children[b"b"].entry.mode) == (0o644, 0o711)


def test_hard_links_share_one_inode_and_the_last_metadata():
    root = tree_of(f(b"a", uid=1), hard(b"b", b"a", uid=2), f(b"a"))

    assert root.children[b"b"].entry.uid == 2
    assert root.children[b"a"] is not root.children[b"b"]


def test_overlay_attributes_never_reach_the_tree():
    xattrs = {b"trusted.overlay.redirect": b"/etc", b"user.overlay.opaque": b"y", b"user.a": b"b"}

    root = tree_of(
        f(b"a", xattrs=dict(xattrs)),
        d(b"b", xattrs=dict(xattrs)),
        d(b"b", xattrs=dict(xattrs)),
        d(b"/", xattrs=dict(xattrs)),
    )

    assert [inode.entry.xattrs for inode in (root, *root.children.values())] == [{b"user.a": b"b"}] * 3


def test_links_cannot_multiply_the_work():
    chain = [ln(b"l%d" % n, b"./" * 1000 + b"l%d" % (n + 1)) for n in range(7)]

    with pytest.raises(TarError, match="too many directories"):
        tree_of(*chain, d(b"l7"), *[f(b"l0/%d/x" % n) for n in range(1000)])


def test_two_thousand_nested_directories_are_fine():
    root = tree_of(*[d(b"/".join([b"d"] * depth)) for depth in range(1, 2000)])

    depth = 0
    while root.children:
        root, depth = root.children[b"d"], depth + 1
    assert depth == 1999
