"""The digests are BuildKit's; the expected ones are computed here from its description, step by step."""

import hashlib

import pytest
from made_trees import DIRECTORY, context, hardlink, link

from orlop.base.errors import InvalidInput
from orlop.build.cachekey import Selection
from orlop.build.contenthash import ContentHasher, SourceMissing

FILES = {
    "a": b"hello",
    "b": b"",
    "d": DIRECTORY,
    "d/x": b"1",
    "d.txt": b"2",
    "d/sub": DIRECTORY,
    "d/sub/y": b"3",
    "l": link("d/x"),
}


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def header(mode, size, kind, target=""):
    return (
        f"namemode{mode}uid0gid0size{size}typeflag{kind}linkname{target}unamegnamedevmajor0devminor0"
    ).encode()


def file(content, mode=0o644):
    return sha(header(mode, len(content), "0") + content)


DIR = sha(header(0o755, 0, "5"))
SUB = sha(f"\0{DIR}\0y{file(b'3')}".encode())
D = sha(f"\0{DIR}\0sub{SUB}\0x{file(b'1')}".encode())
LINK = sha(header(0o777, 0, "2", "d/x"))
ROOT_HEADER = sha(b"")
ROOT = sha(f"\0{ROOT_HEADER}\0a{file(b'hello')}\0b{file(b'')}\0d{D}\0d.txt{file(b'2')}\0l{LINK}".encode())


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection("/a"), file(b"hello")),
        (Selection("/b"), file(b"")),
        (Selection("/d"), D),
        (Selection("/d/"), D),
        (Selection("/l"), LINK),
        (Selection("/l", follows_links=True), file(b"1")),
        (Selection("/"), ROOT),
        (Selection("/d/x*", True), sha(f"\0x{file(b'1')}".encode())),
        (Selection("/a*", True), sha(f"\0a{file(b'hello')}".encode())),
        (Selection("/none*", True), sha(b"")),
        (
            Selection("/d*", True),
            sha(
                f"\0d{DIR}\0d\0sub{DIR}\0d\0sub\0y{file(b'3')}\0d\0x{file(b'1')}\0d.txt{file(b'2')}".encode()
            ),
        ),
        (Selection("/d", excludes=("sub",)), sha(f"\0{DIR}\0x{file(b'1')}".encode())),
    ],
)
def test_digests_follow_the_description(selection, expected):
    assert ContentHasher(context(FILES)).digest(selection) == expected


def test_one_match_of_the_same_name_is_the_file_itself():
    tree = context({"x*": b"1"})

    assert ContentHasher(tree).digest(Selection("/x*", True)) == file(b"1")


def test_time_and_owner_of_a_context_do_not_matter_mode_and_content_do():
    def digest(**common):
        return ContentHasher(context({"a": b"1"}, **common)).digest(Selection("/a"))

    assert digest(mtime=1) == digest(mtime=2, uid=5, gname="x")
    assert digest() != digest(mode=0o600)


def test_a_hard_link_is_the_file():
    tree = context({"f": b"1", "g": hardlink("f")})

    assert ContentHasher(tree).digest(Selection("/g")) == file(b"1")


@pytest.mark.parametrize("path", ["/none", "/d/none", "/a/", "/a/b"])
def test_a_missing_path_is_named(path):
    with pytest.raises(SourceMissing, match="file does not exist"):
        ContentHasher(context(FILES)).digest(Selection(path))


def test_links_lead_nowhere_outside():
    tree = context(
        {
            "out": link("../../../etc/passwd"),
            "abs": link("/etc/passwd"),
            "etc": DIRECTORY,
            "etc/passwd": b"mine",
        }
    )

    for path in ("/out", "/abs"):
        assert ContentHasher(tree).digest(Selection(path, follows_links=True)) == file(b"mine")


def test_link_circles_end():
    with pytest.raises(InvalidInput, match="too many levels"):
        ContentHasher(context({"x": link("y"), "y": link("x")})).digest(Selection("/x", follows_links=True))


def test_deep_directories_are_hashed():
    tree = context({"/".join(["d"] * 490) + "/f": b"1"})

    assert ContentHasher(tree).digest(Selection("/")).startswith("sha256:")
