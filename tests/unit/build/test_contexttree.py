import tarfile

import pytest
from made_trees import DIRECTORY, context, hardlink, link, node

from orlop.build import contexttree
from orlop.build.trees import resolve, walk
from orlop.wire.ignorefile import IgnoreRules
from orlop.wire.tar import TarError


def paths(tree):
    return [path.decode() for path, _ in walk(tree, b"")][1:]


def test_missing_parents_are_made_up():
    assert paths(context({"a/b/c": b"1"})) == ["a", "a/b", "a/b/c"]


def test_dots_slashes_and_order_do_not_matter():
    assert paths(context({"./b": b"", "/a": b"", "c//d": b"", ".": DIRECTORY})) == ["a", "b", "c", "c/d"]


def test_a_later_entry_replaces_an_earlier_one_with_all_below():
    tree = context({"d": DIRECTORY, "d/x": b"1", "./d": b"file"})

    assert paths(tree) == ["d"]
    assert tree.find(b"d").size == 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../x": b""}, "`..` in its path"),
        ({"a/../../x": b""}, "`..` in its path"),
        ({"h": hardlink("/etc/passwd")}, "not a file"),
        ({"h": hardlink("../x")}, "`..`"),
        ({"d": DIRECTORY, "h": hardlink("d")}, "not a file"),
        ({"f": b"", "f/x": b""}, "not a directory"),
        ({"l": link("/tmp"), "l/x": b""}, "not a directory"),
        ({"x/" * 600 + "y": b""}, "deeper than"),
    ],
)
def test_hostile_names_are_refused(files, message):
    with pytest.raises(TarError) as caught:
        context(files)

    assert message in caught.value.message


def test_a_file_reached_through_a_hard_link_to_an_ignored_one_is_seen_by_its_own_name():
    tree = context({"secret": b"s", "alias": hardlink("secret")})

    tree.ignore(IgnoreRules.parse("secret"))

    assert paths(tree) == ["alias"]


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("d", ["a.txt", "e", "e/z.txt"]),
        ("**/*.txt", ["d", "d/y", "e"]),
        ("*\n!d/y", ["d", "d/y"]),
        ("d\n!d/x.txt\nd/x*", ["a.txt", "e", "e/z.txt"]),
        ("/a.txt\n# comment\n  \n", ["d", "d/x.txt", "d/y", "e", "e/z.txt"]),
        ("!../x", ["a.txt", "d", "d/x.txt", "d/y", "e", "e/z.txt"]),
    ],
)
def test_ignore_rules_filter_the_tree(rules, left):
    tree = context({"a.txt": b"", "d": DIRECTORY, "d/x.txt": b"", "d/y": b"", "e": DIRECTORY, "e/z.txt": b""})

    tree.ignore(IgnoreRules.parse(rules))

    assert paths(tree) == left


def test_only_harmless_attributes_are_kept():
    pax = {
        "SCHILY.xattr.user.note": "n",
        "SCHILY.xattr.security.capability": "c",
        "SCHILY.xattr.security.selinux": "s",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.system.posix_acl_access": "p",
    }
    tree = context({"f": b""}, pax_headers=pax)

    assert sorted(tree.find(b"f").xattrs) == [b"security.capability", b"user.note"]


def test_zeros_of_sparse_files_are_limited(monkeypatch):
    monkeypatch.setattr(contexttree, "MAX_SPARSE_BYTES", 1 << 20)
    pax = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(1 << 60),
    }

    with pytest.raises(TarError, match="GiB of zeros"):
        context({"s": node(tarfile.REGTYPE, pax_headers=pax)})


def test_names_that_are_not_utf8_are_kept():
    tree = context({b"caf\xe9".decode("utf-8", "surrogateescape"): b"1"})

    assert tree.names(b"") == [b"caf\xe9"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/l/x", b"d/x"),
        ("../../d/../d/x", b"d/x"),
        ("/up", b""),
        ("/l", b"d"),
        ("/new/file", b"new/file"),
        ("/chain", b"d"),
    ],
)
def test_paths_are_resolved_inside_the_tree(path, expected):
    tree = context(
        {"d": DIRECTORY, "d/x": b"", "l": link("/d"), "up": link("../../.."), "chain": link("./l/.")}
    )

    assert resolve(tree, path.encode()) == expected
