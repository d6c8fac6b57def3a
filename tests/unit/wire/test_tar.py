"""Reading archives: dialects against GNU tar and tarfile, hostile bytes against the policy."""

import io
import os
import struct
import subprocess
import tarfile

import pytest

from orlop.wire.tar import EntryKind, TarEntry, TarError, TarFeed, scan
from orlop.wire.tarheader import MAX_PATH_BYTES, parse_number
from orlop.wire.tarwrite import END, encode_header, padding


def archive(*members, end=END):
    parts = []
    for member in members:
        entry, data = member if isinstance(member, tuple) else (member, b"")
        parts += [encode_header(entry), data, padding(len(data))]
    return b"".join(parts) + end


def file(path, data=b"", **fields):
    return TarEntry(path, EntryKind.FILE, size=len(data), **fields), data


def raw_header(name=b"f", size=b"00000000000", code=b"0", magic=b"ustar\x0000", **fields):
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:124] = b"0000644\x000000000\x000000000\x00"
    block[124 : 124 + len(size)] = size
    block[136:148] = b"00000000000\0"
    block[156:157] = code
    block[257 : 257 + len(magic)] = magic
    for at, value in fields.pop("at", {}).items():
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records, code=b"x"):
    body = b"".join(records)
    return raw_header(b"x", b"%011o" % len(body), code) + body + padding(len(body))


def record(key, value):
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def fed(data, step=700):
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
    return entries, contents


def test_round_trip_keeps_every_field():
    wanted = TarEntry(
        b"a" * 200 + b"/\xff\xfe",
        EntryKind.FILE,
        0o6755,
        5_000_000,
        4_000_000_000,
        3,
        -1_500_000_001,
        xattrs={b"user.x": b"a\0\n=b", b"security.capability": bytes(range(20))},
    )

    (got,) = scan(archive((wanted, b"abc")))

    assert (got.path, got.mode, got.uid, got.gid, got.size, got.mtime_ns, got.xattrs) == (
        wanted.path,
        wanted.mode,
        wanted.uid,
        wanted.gid,
        3,
        wanted.mtime_ns,
        wanted.xattrs,
    )


@pytest.mark.parametrize("length", [99, 100, 101, 155, 156, 200, 255, 256, 257, 1000])
def test_names_of_every_length_survive_and_tarfile_agrees(length):
    path = (b"d" * 60 + b"/") * (length // 61) + b"n" * (length % 61 or 1)
    data = archive(file(path, b"x"), TarEntry(b"l", EntryKind.SYMLINK, link=path))

    ours = [(entry.path, entry.link) for entry in scan(data)]

    assert ours == [(path, b""), (b"l", path)]
    with tarfile.open(fileobj=io.BytesIO(data)) as theirs:
        assert [member.name for member in theirs] == [path.decode(), "l"]


@pytest.mark.parametrize("style", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_dialect_of_gnu_tar(style, tmp_path):
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    name = "n" * (60 if style in ("v7", "ustar") else 180)
    (root / "dir" / name).write_bytes(b"z" * 1000)
    os.symlink("target", root / "dir" / "link")
    os.link(root / "dir" / name, root / "hard")
    os.utime(root / "dir" / name, ns=(0, 1_600_000_000_123_456_789))
    command = ["tar", "-C", str(root), "--sort=name", f"--format={style}", "-cf", "-", "."]
    data = subprocess.run(command, check=True, capture_output=True).stdout

    entries = {entry.path: entry for entry in scan(data)}

    assert set(entries) == {b"./", b"./dir/", b"./dir/link", b"./dir/" + name.encode(), b"./hard"}
    stored = entries[b"./dir/" + name.encode()]
    assert data[stored.data_offset :][: stored.size] == b"z" * 1000
    assert stored.mtime_ns == 1_600_000_000_123_456_789 // (1 if style == "posix" else 10**9) * (
        1 if style == "posix" else 10**9
    )
    assert entries[b"./dir/"].kind is EntryKind.DIRECTORY
    assert entries[b"./hard"].kind is EntryKind.HARDLINK
    assert [entry.path for entry in fed(data)[0]] == [entry.path for entry in scan(data)]


@pytest.mark.parametrize("version", ["old", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("pieces", [1, 3, 30, 200])
def test_sparse_files_of_every_format(version, pieces, tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as target:
        for index in range(pieces):
            target.seek(index * 65536)
            target.write(bytes([65 + index % 26]) * 4096)
        target.truncate(pieces * 65536 + 12345)
    style = ["--format=gnu"] if version == "old" else ["--format=posix", f"--sparse-version={version}"]
    data = subprocess.run(
        ["tar", "-C", str(tmp_path), "-S", *style, "-cf", "-", "sparse"], check=True, capture_output=True
    ).stdout

    (entry,) = scan(data)

    content = bytearray(entry.size)
    at = entry.data_offset
    for start, length in entry.sparse:
        content[start : start + length] = data[at : at + length]
        at += length
    assert bytes(content) == path.read_bytes()
    assert entry.path == b"sparse"
    (other,), (stored,) = fed(data)
    assert other == entry
    assert stored == data[entry.data_offset : entry.data_offset + entry.stored_size]


def test_base_256_numbers():
    assert parse_number(b"\x80" + bytes(6) + b"\x07") == 7
    assert parse_number(b"\xff" * 12) == -1
    assert parse_number(b"\x80\0\0\1\0\0\0\0\0\0\0\0") == 1 << 64


def test_signed_checksum_of_old_tars_is_accepted():
    block = bytearray(raw_header(b"\xe9t\xe9"))
    block[148:156] = b" " * 8
    signed = sum(struct.unpack("512b", block))
    block[148:156] = b"%06o\0 " % signed

    (entry,) = scan(bytes(block) + END)

    assert entry.path == b"\xe9t\xe9"


def test_pax_overrides_and_empty_values_restore():
    data = pax([record(b"path", b"p"), record(b"mtime", b"-1.5"), record(b"uid", b"4294967294")])
    data += raw_header(b"f") + pax([record(b"path", b"")]) + raw_header(b"g") + END

    first, second = scan(data)

    assert (first.path, first.mtime_ns, first.uid) == (b"p", -1_500_000_000, 4294967294)
    assert second.path == b"g"


def test_global_pax_gives_owner_and_time_until_replaced():
    data = pax([record(b"uid", b"7"), record(b"mtime", b"5"), record(b"comment", b"c")], b"g") + raw_header()
    data += pax([record(b"uid", b"")], b"g") + raw_header(b"h") + END

    first, second = scan(data)

    assert (first.uid, first.mtime_ns, second.uid, second.mtime_ns) == (7, 5 * 10**9, 0, 5 * 10**9)


def test_archive_without_end_marker_is_read():
    assert [entry.path for entry in scan(archive(file(b"a", b"b"), end=b""))] == [b"a"]


HOSTILE = {
    "negative size": raw_header(size=b"\xff" * 12),
    "negative size after a member": raw_header() + raw_header(size=b"\xff" * 12),
    "huge size": raw_header(size=b"\x80" + b"\x7f" * 11),
    "size beyond the end": raw_header(size=b"77777777777"),
    "octal with sign": raw_header(size=b"-0000000001"),
    "octal with underscore": raw_header(size=b"0000_000001"),
    "octal with prefix": raw_header(size=b"0o000000001"),
    "eight in octal": raw_header(size=b"00000000008"),
    "bad checksum": raw_header()[:-1] + b"\x01",
    "no name": raw_header(b""),
    "owner minus one": raw_header(at={108: b"\xff" * 8}),
    "owner 2^32-1": raw_header(at={108: b"\x80\0\0\0\xff\xff\xff\xff"}),
    "device too large": raw_header(code=b"3", at={329: b"7777777\0"}),
    "unknown type": raw_header(code=b"Z"),
    "multi-volume": raw_header(code=b"M"),
    "pax length zero": pax([b"0 path=x\n"]) + raw_header(),
    "pax length too long": pax([b"99 path=x\n"]) + raw_header(),
    "pax length not a number": pax([b"+9 path=x\n"]) + raw_header(),
    "pax without newline": pax([b"9 path=xy"]) + raw_header(),
    "pax without equals": pax([b"7 path\n"]) + raw_header(),
    "pax NUL in path": pax([record(b"path", b"a\0b")]) + raw_header(),
    "pax NUL in key": pax([record(b"pa\0th", b"ab")]) + raw_header(),
    "pax path too long": pax([record(b"path", b"a/" * 2049)]) + raw_header(),
    "pax size negative": pax([record(b"size", b"-1")]) + raw_header(),
    "pax size huge": pax([record(b"size", b"9" * 30)]) + raw_header(),
    "pax uid word": pax([record(b"uid", b"root")]) + raw_header(),
    "pax mtime NaN": pax([record(b"mtime", b"NaN")]) + raw_header(),
    "pax mtime exponent": pax([record(b"mtime", b"1e9")]) + raw_header(),
    "pax mtime huge": pax([record(b"mtime", b"9223372036854775808")]) + raw_header(),
    "pax too large": raw_header(b"x", b"77777777777", b"x"),
    "pax at the end": pax([record(b"path", b"x")]),
    "pax before the end marker": pax([record(b"path", b"x")]) + END,
    "pax truncated": raw_header(b"x", b"%011o" % 600, b"x") + bytes(512),
    "xattr without a name": pax([record(b"SCHILY.xattr.", b"x")]) + raw_header(),
    "xattr value too large": pax([record(b"SCHILY.xattr.user.a", b"x" * 65537)]) + raw_header(),
    "global path": pax([record(b"path", b"x")], b"g") + raw_header(),
    "global size": pax([record(b"size", b"1")], b"g") + raw_header(),
    "long name too long": raw_header(b"L", b"%011o" % (MAX_PATH_BYTES + 2), b"L") + bytes(5120),
    "sparse overlap": raw_header(
        size=b"%011o" % 2,
        code=b"S",
        magic=b"ustar  \0",
        at={386: (b"%011o\0" % 0 + b"%011o\0" % 1) * 2, 483: b"777\0"},
    )
    + bytes(512),
    "sparse beyond size": pax(
        [record(b"GNU.sparse.size", b"10"), record(b"GNU.sparse.map", b"9,2")],
    )
    + raw_header(size=b"00000000002")
    + bytes(512),
    "sparse sum": pax([record(b"GNU.sparse.size", b"10"), record(b"GNU.sparse.map", b"0,1")])
    + raw_header(size=b"00000000002")
    + bytes(512),
    "sparse without size": pax([record(b"GNU.sparse.map", b"0,1")])
    + raw_header(size=b"00000000001")
    + bytes(512),
    "sparse odd map": pax([record(b"GNU.sparse.size", b"9"), record(b"GNU.sparse.map", b"0,1,2")])
    + raw_header(),
    "sparse 1.0 endless map": pax(
        [
            record(b"GNU.sparse.major", b"1"),
            record(b"GNU.sparse.minor", b"0"),
            record(b"GNU.sparse.realsize", b"9"),
        ]
    )
    + raw_header(size=b"00000001000")
    + b"99\n" * 170
    + bytes(2),
    "truncated data": archive(file(b"a", b"x" * 600), end=b"")[:-1024],
    "half a block": raw_header() + b"\1" * 100,
    "garbage behind the end": raw_header() + END + b"garbage",
    "second archive behind the end": raw_header() + END + raw_header(),
    "data behind one zero block": raw_header() + bytes(512) + raw_header(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_refused(name):
    with pytest.raises(TarError):
        list(scan(HOSTILE[name]))
    with pytest.raises(TarError):
        fed(HOSTILE[name])


def test_error_names_the_entry_and_the_offset():
    data = raw_header(b"good") + raw_header(b"bad\n", size=b"x")

    with pytest.raises(TarError, match=r"offset 512 of \"bad\\n\""):
        list(scan(data))


def test_every_truncation_is_refused_or_ends_between_entries():
    data = (
        pax([record(b"path", b"x")]) + raw_header(size=b"00000001000") + bytes(512) + raw_header(b"h") + END
    )

    accepted = []
    for length in range(0, len(data), 256):
        try:
            accepted.append((length, len(list(scan(data[:length])))))
        except TarError:
            continue

    assert accepted == [(0, 0), (2048, 1), (2560, 2), (3072, 2), (3328, 2)]
