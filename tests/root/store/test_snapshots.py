"""Snapshots under a real overlay: what is written is listed, measured, committed, thrown away."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest
from store_tars import tar_of

from orlop.base import failpoints
from orlop.base.ids import SnapshotKey
from orlop.kernel.filesystems import overlay_fd
from orlop.store.collect import Collector
from orlop.store.snapshots import ChangeKind, SnapshotExists, SnapshotNotFound
from orlop.wire.tar import scan
from orlop.wire.tarheader import TarError

pytestmark = pytest.mark.root

KEY = SnapshotKey("abc")
BASE = tar_of(
    ("etc/", b""),
    ("etc/passwd", b"root\n"),
    ("etc/hosts", b"127.0.0.1\n"),
    ("tmp/", b""),
    ("var/lib/db/", b""),
    ("var/lib/db/a", b"a"),
    ("var/lib/db/b", b"b"),
)


@contextlib.contextmanager
def overlay(workspace):
    """The merged tree, as a path."""
    fd = overlay_fd(workspace.lowers, workspace.upper, workspace.work)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def tree_of(root):
    """path -> everything that matters about it."""
    found = {}
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            }
            facts = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_rdev,
                status.st_mtime_ns // 10**9,
            )
            found[os.path.relpath(path, root)] = (*facts, content, xattrs)
    return found


def kinds(changes):
    return {change.path: change.kind.name[0] for change in changes}


def write(path, data=b"x"):
    with open(path, "wb") as file:
        file.write(data)


def rewrite(root):
    """A bit of everything that a container can do."""
    write(f"{root}/etc/hosts", b"changed")
    os.unlink(f"{root}/etc/passwd")
    for name in ("a", "b"):
        os.unlink(f"{root}/var/lib/db/{name}")
    os.rmdir(f"{root}/var/lib/db")
    os.mkdir(f"{root}/var/lib/db")
    write(f"{root}/var/lib/db/c", b"c" * 100_000)
    os.link(f"{root}/var/lib/db/c", f"{root}/hard")
    os.symlink("/etc/hosts", f"{root}/link")
    os.mkfifo(f"{root}/pipe", 0o640)
    os.mknod(f"{root}/null", 0o20666, os.makedev(1, 3))
    os.chmod(f"{root}/tmp", 0o1777)
    os.chown(f"{root}/link", 5, 6, follow_symlinks=False)
    os.setxattr(f"{root}/hard", "user.note", b"\0=\n")
    os.setxattr(
        f"{root}/hard", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
    )
    write(os.fsencode(root) + b"/\xff\n")
    os.mkdir(f"{root}/" + "d" * 200)
    write(f"{root}/" + "d" * 200 + "/" + "e" * 200)


def test_what_is_written_can_be_committed_and_gives_the_same_tree(store):
    async def scenario():
        lease = await store.leases.create("test")
        base = await store.add(BASE, lease)
        workspace = await store.snapshots.prepare(KEY, [base.diff_id])
        with overlay(workspace) as root:
            rewrite(root)
            wanted = tree_of(root)
        top = await store.snapshots.commit(KEY, lease)
        with overlay(await store.snapshots.view([base.diff_id, top.diff_id])) as root:
            assert tree_of(root) == wanted
            assert os.stat(f"{root}/hard").st_ino == os.stat(f"{root}/var/lib/db/c").st_ino
        assert (await store.snapshots.commit(KEY, lease)).diff_id == top.diff_id

    asyncio.run(scenario())


def test_changes_in_the_words_of_docker_diff(store):
    async def scenario():
        base = await store.add(BASE)
        workspace = await store.snapshots.prepare(KEY, [base.diff_id])
        assert await store.snapshots.changes(KEY) == []
        with overlay(workspace) as root:
            write(f"{root}/etc/hosts", b"changed")
            os.unlink(f"{root}/etc/passwd")
            os.mkdir(f"{root}/var/new")
            write(f"{root}/var/new/file")
            os.unlink(f"{root}/var/lib/db/a")
            os.unlink(f"{root}/var/lib/db/b")
            os.rmdir(f"{root}/var/lib/db")
            os.mkdir(f"{root}/var/lib/db")
            os.rmdir(f"{root}/tmp")
            write(os.fsencode(root) + b"/\xff")
        changes = await store.snapshots.changes(KEY)
        assert kinds(changes) == {
            "/etc": "M",
            "/etc/hosts": "M",
            "/etc/passwd": "D",
            "/tmp": "D",
            "/var": "M",
            "/var/new": "A",
            "/var/new/file": "A",
            "/var/lib": "M",
            "/var/lib/db": "M",
            "/var/lib/db/a": "D",
            "/var/lib/db/b": "D",
            "/\udcff": "A",
        }
        assert [change.path for change in changes[:-1]] == sorted(change.path for change in changes[:-1])
        assert changes[0].kind is ChangeKind.MODIFIED

    asyncio.run(scenario())


def test_keys_are_unique_and_free_again_after_discard(store):
    async def scenario():
        base = await store.add(BASE)
        workspace = await store.snapshots.prepare(KEY, [base.diff_id])
        with pytest.raises(SnapshotExists):
            await store.snapshots.prepare(KEY, [base.diff_id])
        write(f"{workspace.upper}/x")
        await store.snapshots.discard(KEY)
        await store.snapshots.discard(KEY)
        with pytest.raises(SnapshotNotFound):
            await store.snapshots.open(KEY)
        workspace = await store.snapshots.prepare(KEY, [base.diff_id])
        assert os.listdir(workspace.upper) == []
        for bad in ("../x", "", "A", "a/b", ".x"):
            with pytest.raises(SnapshotNotFound):
                await store.snapshots.discard(SnapshotKey(bad))

    asyncio.run(scenario())


def test_a_hostile_tree_is_thrown_away(store):
    async def scenario():
        workspace = await store.snapshots.prepare(KEY, [])
        deep = os.open(workspace.upper, os.O_RDONLY)
        for _ in range(5000):
            os.mkdir("d", dir_fd=deep)
            child = os.open("d", os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = child
        os.symlink("seven77", "link", dir_fd=deep)
        os.close(deep)
        os.symlink("/", f"{workspace.upper}/root")
        os.mkdir(f"{workspace.upper}/.orlop-0")
        write(f"{workspace.upper}/.orlop-1")
        assert await store.snapshots.usage(KEY) == len("/") + len("seven77") + len("x")
        with pytest.raises(TarError):
            await store.snapshots.commit(KEY, await store.leases.create("test"))
        await store.snapshots.discard(KEY)
        while len(store.snapshots._reaper):
            await asyncio.sleep(0.01)
        assert os.listdir(store.root / "trash") == os.listdir(store.root / "snapshots") == []
        assert os.listdir("/")

    asyncio.run(scenario())


def test_collection_takes_unheld_snapshots_then_their_layers(store):
    async def scenario():
        collector = Collector(store.db, store.leases, [store.layers, store.snapshots])
        lease = await store.leases.create("test")
        base = await store.add(BASE, lease)
        await store.snapshots.prepare(SnapshotKey("kept"), [base.diff_id])
        await store.snapshots.prepare(SnapshotKey("leased"), [base.diff_id], lease)
        await store.leases.release(lease)
        assert (await collector.run()).keys == {"snapshot": ("leased",)}
        assert await store.snapshots.all_keys() == ["kept"]
        await store.snapshots.discard(SnapshotKey("kept"))
        assert (await collector.run()).keys == {"layer": (base.diff_id,)}

    asyncio.run(scenario())


@pytest.mark.parametrize("step", ["prepare.before-row", "discard.after-row"])
def test_a_crash_leaves_only_what_the_start_sweeps(store, step):
    async def scenario():
        await store.snapshots.prepare(SnapshotKey("other"), [])
        failpoints.configure(f"snapshots.{step}=error")
        with contextlib.suppress(OSError):
            workspace = await store.snapshots.prepare(KEY, [])
            write(f"{workspace.upper}/x")
            await store.snapshots.discard(KEY)
        failpoints.configure("")
        store.reopen()
        await Collector(store.db, store.leases, [store.layers, store.snapshots]).recover()
        assert os.listdir(store.root / "snapshots") == ["other"]
        await store.snapshots.open(SnapshotKey("other"))

    asyncio.run(scenario())


def test_lost_directories_are_made_again(store):
    async def scenario():
        workspace = await store.snapshots.prepare(KEY, [])
        os.rmdir(workspace.upper)
        os.rmdir(workspace.work)
        os.rmdir(os.path.dirname(workspace.upper))
        assert await store.snapshots.open(KEY) == workspace
        assert os.path.isdir(workspace.upper)

    asyncio.run(scenario())


def test_times_are_cut_and_clamped(store):
    async def scenario():
        lease = await store.leases.create("test")
        workspace = await store.snapshots.prepare(KEY, [])
        write(f"{workspace.upper}/f")
        os.utime(f"{workspace.upper}/f", ns=(0, 1_700_000_000_999_999_999))
        for latest, wanted in ((None, 1_700_000_000), (1_600_000_000 * 10**9, 1_600_000_000)):
            info = await store.snapshots.commit(KEY, lease, latest)
            fd, offset, size = store.layers.open(info.diff_id)
            (entry,) = scan(os.pread(fd, size, offset))
            os.close(fd)
            assert entry.mtime_ns == wanted * 10**9

    asyncio.run(scenario())


def test_names_a_layer_cannot_carry_are_refused_and_sockets_left_out(store):
    async def scenario():
        lease = await store.leases.create("test")
        workspace = await store.snapshots.prepare(KEY, [])
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{workspace.upper}/socket")
        assert (await store.snapshots.commit(KEY, lease)).entry_count == 0
        write(f"{workspace.upper}/.wh.x")
        with pytest.raises(TarError, match=r"begin with \.wh\."):
            await store.snapshots.commit(KEY, lease)
        assert os.listdir(store.root / "staging") == []

    asyncio.run(scenario())


def test_the_root_directory_keeps_its_look(store):
    async def scenario():
        lease = await store.leases.create("test")
        base = await store.add(tar_of(("./", b""), ("a", b"a")), lease)
        workspace = await store.snapshots.prepare(KEY, [base.diff_id])
        os.chmod(workspace.upper, 0o711)
        top = await store.snapshots.commit(KEY, lease)
        above = await store.add(tar_of(("b", b"b")), lease)
        layers = [base.diff_id, top.diff_id, above.diff_id]
        workspace = await store.snapshots.prepare(SnapshotKey("next"), layers)
        with overlay(workspace) as root:
            assert os.stat(root).st_mode & 0o7777 == 0o711
            assert sorted(os.listdir(root)) == ["a", "b"]
        assert (await store.snapshots.commit(SnapshotKey("next"), lease)).entry_count == 0

    asyncio.run(scenario())


def test_an_opaque_root_hides_the_layers_below(store):
    async def scenario():
        base = await store.add(BASE)
        top = await store.add(tar_of((".wh..wh..opq", b""), ("only", b"x")))
        with overlay(await store.snapshots.view([base.diff_id, top.diff_id])) as root:
            assert os.listdir(root) == ["only"]

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["file", "loop", "unpacked"])
def test_whiteouts_and_opaque_directories_hide_lower_names(make_store, way):
    store = make_store(way)

    async def scenario():
        base = await store.add(BASE)
        top = await store.add(
            tar_of(
                ("etc/.wh.passwd", b""),
                ("var/lib/db/.wh..wh..opq", b""),
                ("var/lib/db/z", b""),
                (".wh.tmp", b""),
            )
        )
        with overlay(await store.snapshots.view([base.diff_id, top.diff_id])) as root:
            assert os.listdir(f"{root}/etc") == ["hosts"]
            assert os.listdir(f"{root}/var/lib/db") == ["z"]
            assert sorted(os.listdir(root)) == ["etc", "var"]

    asyncio.run(scenario())


PLAIN = tar_of(("etc/", b""), ("etc/passwd", b"root\n"))
STUBS = ("dev", "etc/hosts", "etc/hostname", "only/here")


def write_stubs(upper):
    for directory in ("dev", "etc", "only"):
        (upper / directory).mkdir(exist_ok=True)
    for name in ("etc/hosts", "etc/hostname", "only/here"):
        (upper / name).touch()


def changes_and_names(store, layers, prepare):
    """What `docker diff` shows and what a commit keeps, once `prepare` has written to the upper."""

    async def scenario():
        lease = await store.leases.create("test")
        await store.snapshots.prepare(KEY, [(await store.add(data)).diff_id for data in layers])
        prepare(Path((await store.snapshots.open(KEY)).upper))
        changes = await store.snapshots.changes(KEY, stubs=STUBS)
        layer = await store.snapshots.commit(KEY, lease, stubs=STUBS)
        fd, offset, size = store.layers.open(layer.diff_id)
        with os.fdopen(fd, "rb") as file:
            file.seek(offset)
            entries = [entry.path.decode() for entry in scan(file.read(size))]
        return kinds(changes), entries

    return asyncio.run(scenario())


@pytest.mark.parametrize("layers", [[], [PLAIN]])
def test_stubs_are_no_changes_while_they_are_empty(store, layers):
    assert changes_and_names(store, layers, write_stubs) == ({}, [])


def test_a_stub_that_was_written_to_is_a_change(store):
    def prepare(upper):
        write_stubs(upper)
        (upper / "etc/hostname").write_text("written")

    changes, names = changes_and_names(store, [], prepare)

    assert changes == {"/etc": "A", "/etc/hostname": "A"}
    assert names == ["etc/", "etc/hostname"]


def test_a_directory_with_stubs_that_was_changed_itself_is_a_change(store):
    def prepare(upper):
        write_stubs(upper)
        (upper / "etc").chmod(0o700)

    changes, names = changes_and_names(store, [PLAIN], prepare)

    assert changes == {"/etc": "M"}
    assert names == ["etc/"]


def test_what_the_layers_have_is_no_stub(store):
    """BASE has etc/hosts: an empty one above it was emptied by the user."""

    def prepare(upper):
        (upper / "etc").mkdir()
        (upper / "etc/hosts").touch()

    changes, names = changes_and_names(store, [BASE], prepare)

    assert changes == {"/etc": "M", "/etc/hosts": "M"}
    assert names == ["etc/", "etc/hosts"]
