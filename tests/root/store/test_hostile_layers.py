"""The hostile corpus through the whole store: refused or contained, nothing outside, nothing left behind."""

import asyncio
import os
import stat
import struct

import pytest

from orlop.kernel.filesystems import mount_table, overlay_fd
from orlop.wire.tarheader import EntryKind, TarEntry, TarError
from orlop.wire.tarwrite import END, encode_header, padding

pytestmark = pytest.mark.root


def tar(*members):
    """Entries, or (path, content) for files."""
    parts = []
    for member in members:
        data = b""
        if isinstance(member, tuple):
            path, data = member
            entry = TarEntry(path, EntryKind.FILE, size=len(data))
        else:
            entry = member
        parts += [encode_header(entry), data, padding(len(data))]
    return b"".join(parts) + END


def link(path, target):
    return TarEntry(path, EntryKind.SYMLINK, link=target)


def hard(path, target):
    return TarEntry(path, EntryKind.HARDLINK, link=target)


def with_size(size_field):
    block = bytearray(encode_header(TarEntry(b"f", EntryKind.FILE)))
    block[124:136] = size_field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return tar((b"first", b"x"))[:-1024] + bytes(block) + END


CANARY = b"%CANARY%"  # replaced by the path of the canary directory
CONTAINED = {
    "absolute path": [(CANARY + b"/x", b"evil")],
    "write through absolute link": [link(b"l", CANARY), (b"l/x", b"evil")],
    "write through climbing link": [link(b"l", b"../" * 40 + CANARY[1:]), (b"l/x", b"evil")],
    "write through link chain": [link(b"a", b"b"), link(b"b", CANARY), (b"a/x", b"evil")],
    "overwrite through last link": [link(b"l", CANARY + b"/file"), (b"l", b"evil")],
    "directory over link": [
        link(b"l", CANARY),
        TarEntry(b"l", EntryKind.DIRECTORY, 0o777),
        (b"l/x", b"evil"),
    ],
    "mode through link": [link(b"l", CANARY + b"/file"), TarEntry(b"l", EntryKind.FILE, 0o4777)],
    "whiteout through link": [link(b"l", CANARY), (b"l/.wh.file", b"")],
    "opaque through link": [link(b"l", CANARY), (b"l/.wh..wh..opq", b"")],
    "host device": [TarEntry(b"sda", EntryKind.BLOCK, 0o666, major=8, minor=0)],
    "overlay attributes": [
        TarEntry(b"d", EntryKind.DIRECTORY, 0o755, xattrs={b"trusted.overlay.redirect": CANARY})
    ],
    "names with odd bytes": [(b"\xff\n\x1b[31m\\", b"x"), ("\u202e".encode(), b"x")],
}
REFUSED = {
    "climbing path": tar((b"a/../../x", b"evil")),
    "hard link out": tar(hard(b"h", b"../../../etc/passwd")),
    "hard link to host file": tar(hard(b"h", b"/etc/passwd"), (b"h", b"evil")),
    "hard link through link": tar(link(b"l", b"/etc"), hard(b"h", b"l/passwd")),
    "root replaced by link": tar(link(b"./", b"/etc")),
    "whiteout of the root": tar((b".wh..", b"")),
    "negative size": with_size(b"\xff" * 12),
    "huge size": with_size(b"\x80" + struct.pack(">11B", *[0x7F] * 11)),
    "second archive": tar((b"a", b"a")) + tar((b"b", b"b")),
    "no tar at all": b"\x1f\x8b" + bytes(range(256)) * 4,
    "deep": tar(*[TarEntry(b"/".join([b"d"] * 2000), EntryKind.DIRECTORY), link(b"l", b"/".join([b"d"] * 2000)), (b"l/" + b"e/" * 1000 + b"x", b"")]),
}  # fmt: skip


def snapshot_of(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        status = os.lstat(folder / name)
        found[name] = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_size, status.st_mtime_ns)
    return found


@pytest.fixture
def canary(tmp_path):
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "file").write_bytes(b"safe")
    return folder


@pytest.mark.parametrize("way", ["file", "unpacked"])
@pytest.mark.parametrize("name", CONTAINED)
def test_contained(make_store, canary, way, name):
    store = make_store(way)
    members = [rename(member, os.fsencode(canary)) for member in CONTAINED[name]]
    before = snapshot_of(canary)

    async def scenario():
        info = await store.add(tar(*members))
        view = await store.snapshots.view([info.diff_id])
        fd = overlay_fd(view.lowers)
        assert list(os.walk(f"/proc/self/fd/{fd}"))
        os.close(fd)
        await store.layers.delete(info.diff_id)

    asyncio.run(scenario())
    assert snapshot_of(canary) == before
    assert os.listdir(store.root / "layers") == os.listdir(store.root / "staging") == []


def rename(member, canary):
    if isinstance(member, tuple):
        return member[0].replace(CANARY, canary), member[1]
    xattrs = {key: value.replace(CANARY, canary) for key, value in member.xattrs.items()}
    return TarEntry(
        member.path.replace(CANARY, canary), member.kind, member.mode, member.uid, member.gid, link=member.link.replace(CANARY[1:], canary[1:]).replace(CANARY, canary), xattrs=xattrs, major=member.major, minor=member.minor
    )  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_without_a_trace(store, name):
    fds = len(os.listdir("/proc/self/fd"))

    async def scenario():
        with pytest.raises(TarError):
            await store.add(REFUSED[name])

    asyncio.run(scenario())
    assert os.listdir(store.root / "layers") == os.listdir(store.root / "staging") == []
    root = os.fsencode(store.root)  # others mount, too
    assert [entry for entry in mount_table() if root in entry.target + entry.source] == []
    assert len(os.listdir("/proc/self/fd")) <= fds + 4  # the store's own connections


def test_overlay_attributes_do_not_reach_the_mount(store):
    async def scenario():
        xattrs = {b"trusted.overlay.opaque": b"y", b"user.overlay.redirect": b"/etc", b"user.ok": b"1"}
        info = await store.add(tar(TarEntry(b"d", EntryKind.DIRECTORY, 0o755, xattrs=xattrs)))
        path = f"{await store.layers.mount(info.diff_id)}/d"
        assert {key: os.getxattr(path, key) for key in os.listxattr(path)} == {"user.ok": b"1"}

    asyncio.run(scenario())
