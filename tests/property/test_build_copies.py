"""COPY of any tree gives that tree; any bytes as a context give a tree or a named error."""

import io
import os
import tarfile
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.base.errors import OrlopError
from orlop.build import graph as g
from orlop.build.cachekey import Selection
from orlop.build.contenthash import ContentHasher
from orlop.build.contexttree import ContextTree
from orlop.build.fileops import apply_file_op
from orlop.build.layerdraft import empty_tree
from orlop.build.layerwrite import write_layer
from orlop.build.patterns import BadPattern, compile_match
from orlop.build.trees import resolve, walk
from orlop.build.unpacking import ArchiveUnpacker
from orlop.wire.tar import scan

NAMES = st.sampled_from(["a", "b", "c", "a.b", "\u00e4", "x y", "*", "-"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(
    PATHS, st.tuples(st.binary(max_size=700), st.sampled_from([0o644, 0o4755, 0o600])), max_size=12
)
LINKS = st.dictionaries(PATHS, st.sampled_from(["a", "/a/b", "../..", "/", ".", "b/../a"]), max_size=8)


def tree_of(files, links=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
        for name, target in dict(links).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def opened(data):
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.flush()
    return file


def is_tree(paths):
    return not any(other.startswith(f"{path}/") for path in paths for other in paths)


@settings(max_examples=120, deadline=None)
@given(FILES.filter(is_tree))
def test_copying_a_tree_gives_the_tree(files):
    data = tree_of(files)
    copy = g.CopyAction("/", "/to/", copies_contents=True, creates_path=True)
    with opened(data) as source, tempfile.TemporaryFile() as scratch, tempfile.TemporaryFile() as out:
        tree = ContextTree.read(source.fileno(), scan(data))
        operation = g.FileOp((g.FileAction(copy, g.SCRATCH, 0, 0),))
        draft = apply_file_op(operation, [tree], empty_tree(), ArchiveUnpacker(scratch.fileno()))
        write_layer(draft, out.fileno(), 0)
        layer = os.pread(out.fileno(), 1 << 24, 0)

    found = {}
    names = []
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for entry in archive:
            names.append(entry.name)
            if entry.isreg():
                found[entry.name.removeprefix("to/")] = (archive.extractfile(entry).read(), entry.mode)
    assert found == files
    assert len(names) == len(set(names))
    assert names == sorted(names, key=lambda name: name.encode().split(b"/"))


@settings(max_examples=120, deadline=None)
@given(FILES, LINKS, PATHS)
def test_paths_never_leave_a_tree_of_links(files, links, path):
    data = tree_of(files, links)
    with opened(data) as source:
        try:
            tree = ContextTree.read(source.fileno(), scan(data))
            found = resolve(tree, path.encode())
        except OrlopError:
            return
        assert b".." not in found.split(b"/")
        assert all(b".." not in one.split(b"/") for one, _ in walk(tree, b""))


@settings(max_examples=80, deadline=None)
@given(FILES.filter(is_tree), st.sampled_from(["content", "mode", "name"]))
def test_any_change_of_files_changes_the_digest(files, what):
    if not files:
        return
    name, (content, mode) = min(files.items())
    changed = dict(files)
    if what == "content":
        changed[name] = (content + b"x", mode)
    elif what == "mode":
        changed[name] = (content, mode ^ 0o001)
    else:
        changed[f"{name}~"] = changed.pop(name)

    digests = []
    for version in (files, changed):
        data = tree_of(version)
        with opened(data) as source:
            tree = ContextTree.read(source.fileno(), scan(data))
            digests.append(ContentHasher(tree).digest(Selection("/")))

    assert digests[0] != digests[1]


@settings(max_examples=150, deadline=None)
@given(st.text("ab*?[]^-\\/", max_size=12), st.text("ab/", max_size=12))
def test_any_pattern_matches_or_is_refused(pattern, path):
    try:
        assert compile_match(pattern)(path) in (True, False)
    except BadPattern:
        return


@settings(max_examples=100, deadline=None)
@given(st.text("ab*?", max_size=10), st.text("ab/", max_size=12))
def test_a_pattern_agrees_with_a_plain_matcher(pattern, path):
    def plain(rest, text):
        if not rest:
            return not text
        if rest[0] == "*":
            return plain(rest[1:], text) or bool(text and text[0] != "/" and plain(rest, text[1:]))
        return (
            bool(text)
            and (rest[0] == text[0] or (rest[0] == "?" and text[0] != "/"))
            and plain(rest[1:], text[1:])
        )

    assert compile_match(pattern)(path) is plain(pattern, path)
