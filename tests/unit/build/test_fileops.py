import tarfile

import pytest
from made_trees import DIRECTORY, applied, context, copy, hardlink, link, made_tar, node

from orlop.base.errors import InvalidInput
from orlop.build import graph as g
from orlop.build.contenthash import SourceMissing
from orlop.wire.tar import TarError

SITE = {
    "a": b"1",
    "d": DIRECTORY,
    "d/x": b"2",
    "d/e": DIRECTORY,
    "d/e/y.txt": b"3",
    "abs": link("/d/x"),
    "up": link("../../../d"),
    "d/rel": link("x"),
    "loop": link("loop"),
    "dangling": link("/nowhere"),
}
PASSWD = {
    "etc": DIRECTORY,
    "etc/passwd": b"root:x:0:0::/:\nbob:x:7:8::/:\nbad:x:x:y\n",
    "etc/group": b"root:x:0:\nstaff:x:9:\n",
}


def names(layer):
    return sorted(layer)


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("/a", "/b", ["b"]),
        ("/a", "/b/", ["b", "b/a"]),
        ("/a", "/p/q/b", ["p", "p/q", "p/q/b"]),
        ("/d", "/n", ["n", "n/e", "n/e/y.txt", "n/rel", "n/x"]),
        ("/d", "/n/", ["n", "n/e", "n/e/y.txt", "n/rel", "n/x"]),
        ("/d/", "/n", ["n", "n/e", "n/e/y.txt", "n/rel", "n/x"]),
        ("/d/*", "/n/", ["n", "n/rel", "n/x", "n/y.txt"]),
        ("/d/e/*.txt", "/n/", ["n", "n/y.txt"]),
        ("/*/x", "/n/", ["n", "n/x"]),
        ("/no*", "/n/", []),
        ("/[ad]", "/n/", ["n", "n/a", "n/e", "n/e/y.txt", "n/rel", "n/x"]),
        ("/abs", "/b", ["b"]),
        ("/abs", "/n/", ["n", "n/abs"]),
        ("/up", "/n", ["n", "n/e", "n/e/y.txt", "n/rel", "n/x"]),
        ("/up/x", "/b", ["b"]),
        ("/../../a", "/b", ["b"]),
    ],
)
def test_what_copy_puts_where(source, destination, expected):
    layer = applied([copy(source, destination)], context(SITE))

    assert names(layer) == expected


def test_a_link_as_source_is_followed_and_one_below_is_kept():
    layer = applied([copy("/abs", "/b"), copy("/d", "/n")], context(SITE))

    assert (layer["b"].kind, layer["b"].body) == ("file", b"2")
    assert (layer["n/rel"].kind, layer["n/rel"].body) == ("link", "x")


@pytest.mark.parametrize("source", ["/none", "/a/", "/dangling", "/d/none"])
def test_a_missing_source_has_the_text_of_the_classic_builder(source):
    with pytest.raises(SourceMissing, match="file not found in build context or excluded by"):
        applied([copy(source, "/n")], context(SITE))


def test_links_in_circles_end():
    with pytest.raises(InvalidInput, match="too many levels of symbolic links"):
        applied([copy("/loop", "/n")], context(SITE))


def test_new_files_belong_to_root_and_keep_mode_and_time():
    layer = applied(
        [copy("/a", "/b")],
        context({"a": b"1"}, mode=0o4751, uid=1234, gid=1, pax_headers={"mtime": "1234.75"}),
    )

    assert (layer["b"].mode, layer["b"].uid, layer["b"].gid, layer["b"].mtime) == (0o4751, 0, 0, 1234)


def test_made_parents_are_0755_and_existing_ones_stay_as_they_are():
    base = context({"old": DIRECTORY}, uid=0)
    base.find(b"old").mode = 0o1777
    layer = applied([copy("/a", "/old/new/b")], context(SITE), base)

    assert (layer["old"].mode, layer["old/new"].mode) == (0o1777, 0o755)


def test_the_destination_directory_keeps_its_metadata_those_below_take_the_source_s():
    base = context({"n": DIRECTORY, "n/e": DIRECTORY})
    base.find(b"n").mode = base.find(b"n/e").mode = 0o700
    layer = applied([copy("/d", "/n")], context(SITE), base)

    assert (layer["n"].mode, layer["n/e"].mode) == (0o700, 0o755)


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (g.Owner(g.Principal(name="bob", base=0)), (7, 8)),
        (g.Owner(g.Principal(id=5)), (5, 5)),
        (g.Owner(g.Principal(id=5), g.Principal(name="staff", base=0)), (5, 9)),
        (g.Owner(g.Principal(name="bob", base=0), g.Principal(id=1)), (7, 1)),
        (g.Owner(None, g.Principal(id=3)), (0, 3)),
    ],
)
def test_chown_by_name_and_number(owner, expected):
    layer = applied([copy("/d", "/new/n", owner=owner)], context(SITE), context(PASSWD))

    assert {(entry.uid, entry.gid) for entry in layer.values()} == {expected}


@pytest.mark.parametrize("name", ["nobody", "bad"])
def test_chown_of_an_unknown_name_is_an_error(name):
    with pytest.raises(InvalidInput, match=f"no such user: {name}"):
        applied(
            [copy("/a", "/n", owner=g.Owner(g.Principal(name=name, base=0)))], context(SITE), context(PASSWD)
        )


def test_passwd_behind_a_link_stays_inside():
    base = context({"etc": DIRECTORY, "etc/passwd": link("/../../../../etc/shadow")})

    with pytest.raises(InvalidInput, match="no such user"):
        applied([copy("/a", "/n", owner=g.Owner(g.Principal(name="root2", base=0)))], context(SITE), base)


def test_chmod_applies_to_files_and_directories_alike():
    octal = applied([copy("/d", "/n", mode=0o700)], context(SITE))
    symbolic = applied([copy("/d", "/n", mode_text="go-r,u+X")], context(SITE))

    assert {entry.mode for name, entry in octal.items() if entry.kind != "link"} == {0o700}
    assert (symbolic["n/x"].mode, symbolic["n/e"].mode) == (0o600, 0o711)


@pytest.mark.parametrize(
    ("base", "destination", "expected"),
    [
        ({"l": link("/real"), "real": DIRECTORY}, "/l/b", "real/b"),
        ({"l": link("/real"), "real": DIRECTORY}, "/l/", "real/a"),
        ({"l": link("real/f"), "real": DIRECTORY, "real/f": b""}, "/l", "real/f"),
        ({"l": link("../../../out")}, "/l/b", "out/b"),
        ({"l": link("/new/deep")}, "/l", "new/deep"),
        ({"x": DIRECTORY, "x/l": link("..")}, "/x/l/b", "b"),
    ],
)
def test_links_of_the_destination_are_followed_inside_the_root(base, destination, expected):
    layer = applied([copy("/a", destination)], context(SITE), context(base))

    assert expected in layer
    assert layer[expected].body == b"1"


@pytest.mark.parametrize(
    ("base", "source", "destination", "message"),
    [
        ({"f": b""}, "/a", "/f/b", "not a directory"),
        ({"f": b""}, "/d", "/f", "cannot copy to non-directory: /f"),
        ({"n": DIRECTORY, "n/e": b""}, "/d", "/n", "cannot copy to non-directory: /n/e"),
        ({"n": DIRECTORY, "n/x": DIRECTORY}, "/d", "/n", "cannot replace to directory /n/x with file"),
        ({"n": DIRECTORY, "n/e": link("/etc")}, "/d", "/n", "cannot copy to non-directory: /n/e"),
    ],
)
def test_files_and_directories_do_not_replace_each_other(base, source, destination, message):
    with pytest.raises(InvalidInput) as caught:
        applied([copy(source, destination)], context(SITE), context(base))

    assert message in caught.value.message


def test_later_sources_see_what_earlier_ones_made():
    layer = applied([copy("/d", "/n/"), copy("/a", "/n/e/")], context(SITE))

    assert layer["n/e/a"].body == b"1"


def test_excludes_and_exceptions():
    layer = applied([copy("/d", "/n/", excludes=("**/*.txt", "!e/y.txt", "rel"))], context(SITE))

    assert names(layer) == ["n", "n/e", "n/e/y.txt", "n/x"]


def test_an_excluded_directory_comes_along_when_something_in_it_does():
    layer = applied([copy("/d", "/n/", excludes=("e", "!e/y.txt"))], context(SITE))

    assert names(layer) == ["n", "n/e", "n/e/y.txt", "n/rel", "n/x"]


def test_hard_links_stay_hard_links():
    layer = applied([copy("/", "/n")], context({"f": b"12", "g": hardlink("f")}))

    assert (layer["n/f"].body, layer["n/g"].kind, layer["n/g"].body) == (b"12", "hardlink", "n/f")


def test_special_files_are_metadata_and_never_opened():
    special = {"pipe": node(tarfile.FIFOTYPE), "null": node(tarfile.CHRTYPE, devmajor=1, devminor=3)}

    layer = applied([copy("/", "/n")], context(special))

    assert (layer["n/pipe"].kind, layer["n/null"].kind) == ("fifo", "char")


def test_names_that_mean_deletions_are_refused():
    with pytest.raises(InvalidInput, match="names that begin with"):
        applied([copy("/", "/n")], context({".wh.etc": b""}))


def test_workdir_makes_missing_directories_only():
    base = context({"a": DIRECTORY})

    layer = applied([g.MkdirAction("/a/b/c", 0o755, makes_parents=True)], base=base)
    nothing = applied([g.MkdirAction("/a", 0o755, makes_parents=True)], base=base)

    assert names(layer) == ["a", "a/b", "a/b/c"]
    assert nothing == {}


def test_workdir_follows_links_and_refuses_a_file():
    layer = applied([g.MkdirAction("/l/b", 0o755)], base=context({"l": link("/r")}))

    assert names(layer) == ["r", "r/b"]
    with pytest.raises(InvalidInput, match="not a directory"):
        applied([g.MkdirAction("/f/b", 0o755)], base=context({"f": b""}))


def test_mkfile_and_rm():
    base = context({"old": b"", "dir": DIRECTORY, "dir/x": b""})
    actions = [
        g.MkfileAction("/new", 0o600, b"n"),
        g.RmAction("/old"),
        g.RmAction("/dir"),
        g.RmAction("/no", may_be_missing=True),
    ]

    layer = applied(actions, base=base)

    assert names(layer) == [".wh.dir", ".wh.old", "new"]
    with pytest.raises(InvalidInput, match="no such file"):
        applied([g.RmAction("/no")], base=base)


def test_a_removed_directory_made_again_is_opaque():
    base = context({"dir": DIRECTORY, "dir/x": b""})

    layer = applied([g.RmAction("/dir"), g.MkdirAction("/dir", 0o755)], base=base)

    assert names(layer) == ["dir", "dir/.wh..wh..opq"]


# --- ADD of archives ---


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_is_unpacked_whatever_its_compression(mode):
    inner = made_tar({"x": b"1", "s": DIRECTORY, "s/y": b"2" * 100_000}, mode, uid=5, gid=6)

    layer = applied([copy("/in", "/n/", unpacks=True)], context({"in": inner}))

    assert names(layer) == ["n", "n/s", "n/s/y", "n/x"]
    assert (layer["n/x"].uid, layer["n/x"].gid, len(layer["n/s/y"].body)) == (5, 6, 100_000)


def test_chown_wins_over_the_owners_of_an_archive():
    inner = made_tar({"x": b"1"}, uid=5)

    layer = applied(
        [copy("/in", "/n", unpacks=True, owner=g.Owner(g.Principal(id=9)))], context({"in": inner})
    )

    assert {entry.uid for entry in layer.values()} == {9}


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b no gzip", bytes(1024), b"PK\x03\x04"])
def test_what_is_no_archive_is_copied(content):
    layer = applied([copy("/in", "/n/", unpacks=True)], context({"in": content}))

    assert layer["n/in"].body == content


def test_links_of_an_archive_cannot_leave_the_destination():
    inner = made_tar({"l": link("/"), "l/etc/x": b"1", "m": link("../../.."), "m/y": b"2"})

    layer = applied([copy("/in", "/n", unpacks=True)], context({"in": inner}))

    assert {"n/etc/x", "n/y"} <= set(layer)
    assert all(name == "n" or name.startswith("n/") for name in layer)


def test_an_archive_goes_through_the_links_of_the_image():
    inner = made_tar({"lib/x": b"1"})

    layer = applied(
        [copy("/in", "/", unpacks=True)], context({"in": inner}), context({"lib": link("usr/lib")})
    )

    assert layer["usr/lib/x"].body == b"1"
    assert "lib" not in layer


def test_an_archive_replaces_files_and_merges_directories():
    base = context({"d": DIRECTORY, "d/keep": b"", "f": DIRECTORY, "f/gone": b"", "l": link("d")})
    inner = made_tar({"d": DIRECTORY, "d/new": b"1", "f": b"2", "l": DIRECTORY})

    layer = applied([copy("/in", "/", unpacks=True)], context({"in": inner}), base)

    assert (layer["f"].kind, layer["l"].kind, layer["d/new"].body) == ("file", "dir", b"1")


def test_hard_links_of_an_archive_point_into_it_or_into_the_image():
    inner = made_tar({"x": b"1", "y": hardlink("x"), "z": hardlink("old")})

    layer = applied([copy("/in", "/", unpacks=True)], context({"in": inner}), context({"old": b"O"}))

    assert (layer["y"].kind, layer["y"].body) == ("hardlink", "x")
    assert (layer["old"].body, layer["z"].body) == (b"O", "old")


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ({"ok": b"", "../x": b"1"}, "`..` in its path"),
        ({"ok": b"", "y": hardlink("../../etc/passwd")}, "not a file"),
        ({"ok": b"", ".wh.x": b""}, "begin with .wh."),
    ],
)
def test_hostile_archives_are_refused(inner, message):
    with pytest.raises((TarError, InvalidInput)) as caught:
        applied([copy("/in", "/n", unpacks=True)], context({"in": made_tar(inner)}))

    assert message in caught.value.message


def test_a_torn_archive_is_refused():
    inner = made_tar({"x": b"1" * 10_000})[:5_000]

    with pytest.raises(TarError, match="truncated"):
        applied([copy("/in", "/n", unpacks=True)], context({"in": inner}))
