"""Generated trees through every stage without a mount; generated garbage through the readers."""

import io
import tarfile

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orlop.wire.erofsread import ErofsReader
from orlop.wire.erofswrite import TAR_OFFSET, build_erofs
from orlop.wire.layertree import LayerTree
from orlop.wire.tar import TarFeed, scan
from orlop.wire.tarheader import EntryKind, TarEntry, TarError
from orlop.wire.tarwrite import END, encode_header, padding

LIMIT = settings(max_examples=60, deadline=None)

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"dir", b"x" * 255, b"\xff\xfe", b"new\nline", "\u00e9".encode()]),
    st.binary(min_size=1, max_size=40).filter(
        lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..") and not n.startswith(b".wh.")
    ),
)
TIMES = st.integers(-(10**10) * 10**9, 10**11 * 10**9)
IDS = st.one_of(st.integers(0, 70_000), st.integers(0, (1 << 32) - 2))
XATTRS = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b" * 20, b"security.capability", b"trusted.x"]),
    st.binary(max_size=700),
    max_size=3,
)
META = st.fixed_dictionaries(
    {"mode": st.integers(0, 0o7777), "uid": IDS, "gid": IDS, "mtime_ns": TIMES, "xattrs": XATTRS}
)
LEAVES = st.one_of(
    st.tuples(st.just(EntryKind.FILE), META, st.binary(max_size=2000)),
    st.tuples(
        st.just(EntryKind.SYMLINK),
        META.map(lambda meta: meta | {"mode": 0o777}),
        st.binary(min_size=1, max_size=1000).filter(lambda t: b"\0" not in t),
    ),
    st.tuples(st.just(EntryKind.CHAR), META, st.tuples(st.integers(1, 4095), st.integers(0, (1 << 20) - 1))),
    st.tuples(st.just(EntryKind.FIFO), META, st.none()),
)
TREES = st.recursive(LEAVES, lambda below: st.tuples(st.just(EntryKind.DIRECTORY), META, st.dictionaries(NAMES, below, max_size=6)), max_leaves=25)  # fmt: skip
ROOTS = st.dictionaries(NAMES, TREES, max_size=8)


def flatten(children, prefix=b""):
    """(path, kind, metadata, content) in order, parents first."""
    for name, (kind, meta, content) in children.items():
        yield prefix + name, kind, meta, content
        if kind is EntryKind.DIRECTORY:
            yield from flatten(content, prefix + name + b"/")


def entry_of(path, kind, meta, content):
    entry = TarEntry(path, kind, **meta)
    if kind is EntryKind.FILE:
        entry.size = len(content)
    elif kind is EntryKind.SYMLINK:
        entry.link = content
    elif kind is EntryKind.CHAR:
        entry.major, entry.minor = content
    return entry


def archive_of(tree):
    parts = []
    for path, kind, meta, content in flatten(tree):
        parts.append(encode_header(entry_of(path, kind, meta, content)))
        if kind is EntryKind.FILE:
            parts += [content, padding(len(content))]
    return b"".join(parts) + END


def layer_of(data):
    tree = LayerTree()
    for entry in scan(data):
        tree.add(entry)
    image = build_erofs(tree.finish(), len(data), bytes(16))
    file = bytearray(image.file_size)
    file[1024 : 1024 + len(image.superblock)] = image.superblock
    file[TAR_OFFSET : TAR_OFFSET + len(data)] = data
    file[image.metadata_offset : image.metadata_offset + len(image.metadata)] = image.metadata
    return ErofsReader(bytes(file))


def seen(reader):
    found = {}
    for path, inode in reader.walk():
        content = None
        if inode.kind in (EntryKind.FILE, EntryKind.SYMLINK):
            content = reader.read(inode)
        elif inode.kind is EntryKind.CHAR:
            content = inode.device
        found[path] = (inode.kind, inode.mode, inode.uid, inode.gid, inode.mtime_ns, inode.xattrs, content)
    del found[b""]
    return found


@LIMIT
@given(ROOTS)
def test_a_tree_written_and_indexed_is_the_same_tree(tree):
    wanted = {
        path: (kind, *[meta[key] for key in ("mode", "uid", "gid", "mtime_ns", "xattrs")], None if kind is EntryKind.DIRECTORY else content)
        for path, kind, meta, content in flatten(tree)
    }  # fmt: skip

    assert seen(layer_of(archive_of(tree))) == wanted


@LIMIT
@given(ROOTS)
def test_the_standard_library_reads_what_we_write(tree):
    data = archive_of(tree)

    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
        members = [
            (m.name.encode("utf-8", "surrogateescape"), m.mode, m.uid, m.gid, m.isdir()) for m in archive
        ]

    assert members == [
        (path, meta["mode"], meta["uid"], meta["gid"], kind is EntryKind.DIRECTORY)
        for path, kind, meta, _ in flatten(tree)
    ]


@LIMIT
@given(ROOTS, st.integers(1, 3000))
def test_a_stream_gives_what_memory_gives(tree, step):
    data = archive_of(tree)
    feed = TarFeed()
    entries, contents = [], []

    for at in range(0, len(data), step):
        for event in feed.feed(data[at : at + step]):
            if isinstance(event, TarEntry):
                entries.append(event)
                contents.append(b"")
            else:
                contents[-1] += event
    feed.close()

    assert entries == list(scan(data))
    assert contents == [data[e.data_offset : e.data_offset + e.stored_size] for e in entries]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["file", "dir", "link", "hard", "whiteout", "opaque"]),
        st.lists(st.sampled_from([b"a", b"b", b"l", b"..", b"."]), min_size=1, max_size=4).map(b"/".join),
        st.lists(st.sampled_from([b"a", b"b", b"l", b"..", b""]), min_size=1, max_size=4).map(b"/".join),
    ),
    max_size=20,
)


def operation(verb, path, target):
    if verb == "file":
        return TarEntry(path, EntryKind.FILE)
    if verb == "dir":
        return TarEntry(path, EntryKind.DIRECTORY, 0o755)
    if verb == "link":
        return TarEntry(path, EntryKind.SYMLINK, link=target)
    if verb == "hard":
        return TarEntry(path, EntryKind.HARDLINK, link=target)
    parent, slash, name = path.rpartition(b"/")
    return TarEntry(
        parent + slash + (b".wh." + name if verb == "whiteout" else b".wh..wh..opq"), EntryKind.FILE
    )


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
def test_any_sequence_of_entries_is_a_tree_or_refused(operations):
    tree = LayerTree()
    for verb, path, target in operations:
        try:
            tree.add(operation(verb, path, target))
        except TarError:
            continue

    image = build_erofs(tree.finish(), 0, bytes(16))
    file = bytearray(image.file_size)
    file[1024 : 1024 + len(image.superblock)] = image.superblock
    file[image.metadata_offset :] = image.metadata
    found = list(ErofsReader(bytes(file)).walk())

    names = {}
    for path, inode in found:
        names.setdefault(inode.nid, []).append(path)
        assert not {b"", b".", b".."} & set(path.split(b"/")[:-1] if path else [])
    for path, inode in found:
        if inode.kind is not EntryKind.DIRECTORY:
            assert inode.nlink == len(names[inode.nid])
        else:
            assert names[inode.nid] == [path]
    assert len(names) == image.inode_count


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=3000),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    st.booleans(),
)
@example(b"", [], True)
def test_garbage_is_refused_as_a_tar_and_never_crashes(noise, flips, fix_checksums):
    base = TarEntry(b"n" * 120, EntryKind.FILE, size=700, mtime_ns=5, xattrs={b"user.a": b"b"})
    data = bytearray(
        encode_header(base) + bytes(1024) + encode_header(TarEntry(b"d", EntryKind.DIRECTORY)) + noise
    )
    for at, value in flips:
        data[at % len(data)] = value
    if fix_checksums:
        for at in range(0, len(data) - 511, 512):
            block = data[at : at + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    outcomes = []
    for read in (lambda: list(scan(bytes(data))), lambda: fed(bytes(data))):
        try:
            outcomes.append(read())
        except TarError:
            outcomes.append("refused")

    assert outcomes[0] == outcomes[1]


def fed(data):
    feed = TarFeed()
    entries = [event for event in feed.feed(data) if isinstance(event, TarEntry)]
    feed.close()
    return entries
