"""Metadata written is metadata read: layout, hard links, attributes, large directories, sparse files."""

import pytest

from orlop.wire.erofs import ErofsError, decode_device, decode_xattrs, encode_device, encode_xattrs
from orlop.wire.erofsread import ErofsReader
from orlop.wire.erofswrite import TAR_OFFSET, build_erofs
from orlop.wire.layertree import LayerTree
from orlop.wire.tar import scan
from orlop.wire.tarheader import EntryKind, TarEntry, TarError
from orlop.wire.tarwrite import END, encode_header, padding


def layer_of(*members):
    data = b"".join(encode_header(e) + c + padding(len(c)) for e, c in members) + END
    tree = LayerTree()
    for entry in scan(data):
        tree.add(entry)
    image = build_erofs(tree.finish(), len(data), bytes(range(16)))
    file = bytearray(image.file_size)
    file[1024 : 1024 + len(image.superblock)] = image.superblock
    file[TAR_OFFSET : TAR_OFFSET + len(data)] = data
    file[image.metadata_offset : image.metadata_offset + len(image.metadata)] = image.metadata
    return image, bytes(file)


def file(path, data=b"", **fields):
    return TarEntry(path, EntryKind.FILE, size=len(data), **fields), data


def other(path, kind, **fields):
    return TarEntry(path, kind, **fields), b""


def test_everything_comes_back():
    xattrs = {b"user.a": b"1" * 300, b"security.capability": b"\0\1", b"system.posix_acl_access": b"acl"}
    _, data = layer_of(
        file(b"dir/file", b"hello" * 300, mode=0o4755, uid=1 << 31, gid=7, mtime_ns=-5, xattrs=xattrs),
        other(
            b"dir/hard", EntryKind.HARDLINK, link=b"dir/file", mode=0o4755, uid=1 << 31, gid=7, mtime_ns=-5
        ),
        other(b"dir/link", EntryKind.SYMLINK, link=b"t" * 4095),
        other(b"short", EntryKind.SYMLINK, link=b"t"),
        other(b"null", EntryKind.CHAR, major=0xFFF, minor=0xFFFFF),
        other(b"pipe", EntryKind.FIFO),
    )

    reader = ErofsReader(data)
    found = dict(reader.walk())

    first = found[b"dir/file"]
    assert reader.read(first) == b"hello" * 300
    assert (first.mode, first.uid, first.gid, first.mtime_ns, first.nlink) == (0o4755, 1 << 31, 7, -5, 2)
    assert first.xattrs == xattrs
    assert found[b"dir/hard"] == first
    assert reader.read(found[b"dir/link"]) == b"t" * 4095
    assert reader.read(found[b"short"]) == b"t"
    assert found[b"null"].device == (0xFFF, 0xFFFFF)
    assert found[b"pipe"].kind is EntryKind.FIFO
    assert (found[b""].nlink, found[b"dir"].nlink) == (3, 2)


def test_file_data_is_the_tars_own():
    image, data = layer_of(file(b"a", b"x" * 513), file(b"b", b"y"))

    found = dict(ErofsReader(data).walk())

    assert found[b"a"].data_offset == TAR_OFFSET + 512
    assert image.copies == []
    assert image.content_bytes == 514


@pytest.mark.parametrize("count", [0, 1, 30, 31, 40, 5000])
@pytest.mark.parametrize("length", [1, 8, 200, 255])
def test_directories_of_any_size(count, length):
    names = sorted({(b"%d" % n).ljust(length, b"n")[:length] for n in range(count)})

    _, data = layer_of(other(b"d", EntryKind.DIRECTORY), *[file(b"d/" + name) for name in names])

    reader = ErofsReader(data)
    assert [name for name, _, _ in reader.list(dict(reader.walk())[b"d"])] == names


def test_sparse_file_gets_an_area_of_its_own():
    records = b"25 GNU.sparse.size=10000\n32 GNU.sparse.map=5,3,9000,1000\n"
    body = encode_header(TarEntry(b"x", EntryKind.FILE, size=len(records)))
    head = bytearray(body)
    head[156:157] = b"x"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    archive = bytes(head) + records + padding(len(records))
    archive += encode_header(TarEntry(b"s", EntryKind.FILE, size=1003)) + b"a" * 1003 + padding(1003) + END
    tree = LayerTree()
    for entry in scan(archive):
        tree.add(entry)

    image = build_erofs(tree.finish(), len(archive), bytes(16))

    (first, second) = image.copies
    assert (first.length, second.length) == (3, 1000)
    assert second.target - first.target == 8995
    assert second.source == first.source + 3
    assert image.file_size - (first.target - 5) == 10240


def test_sparse_file_beyond_the_address_space_is_refused():
    root = LayerTree()
    entry = TarEntry(b"s", EntryKind.FILE, size=1 << 42)
    entry.sparse = ()
    root.add(entry)

    with pytest.raises(TarError, match="2 TiB"):
        build_erofs(root.finish(), 1024, bytes(16))


def test_unknown_attribute_namespaces_are_left_out():
    assert encode_xattrs({b"system.nfs4_acl": b"x", b"odd": b"y", b"user.": b"z"}) == b""
    assert decode_xattrs(encode_xattrs({b"user.a": b""})) == {b"user.a": b""}


def test_too_many_attributes_are_refused():
    xattrs = {b"user.%d" % n: bytes(60_000) for n in range(5)}

    with pytest.raises(TarError, match="extended attributes"):
        layer_of(file(b"a", xattrs=xattrs))


def test_device_numbers():
    assert decode_device(encode_device(259, 0x12345)) == (259, 0x12345)


def test_flipped_metadata_is_an_error_or_another_tree_but_never_a_crash():
    image, data = layer_of(*[file(b"d/%d" % n, b"x", xattrs={b"user.a": b"b"}) for n in range(40)])
    for at in range(image.metadata_offset, len(data), 3):
        torn = bytearray(data)
        torn[at] ^= 0xFF
        try:
            list(ErofsReader(bytes(torn)).walk())
        except ErofsError:
            continue


def test_torn_superblock_is_an_error():
    with pytest.raises(ErofsError):
        ErofsReader(bytes(1100))
    with pytest.raises(ErofsError):
        ErofsReader(bytes(8192))
