"""Generated trees: our mount against GNU tar's files, and an overlay's upper against what it makes."""

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orlop.base.ids import SnapshotKey, new_token
from orlop.kernel.filesystems import overlay_fd
from orlop.wire.tarheader import EntryKind, TarEntry
from orlop.wire.tarwrite import END, encode_header, padding

pytestmark = pytest.mark.root

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"x" * 255, b"\xff\xfe", b"new\nline", b"long" * 30]),
    st.binary(min_size=1, max_size=20).filter(
        lambda n: not {b"/"[0], 0} & set(n) and n not in (b".", b"..") and not n.startswith(b".wh.")
    ),
)
META = st.fixed_dictionaries(
    {
        "mode": st.integers(0, 0o7777),
        "uid": st.integers(0, (1 << 32) - 2),
        "gid": st.integers(0, 1000),
        "mtime_ns": st.integers(-(2**30) * 10**9, 2**33 * 10**9),
        "xattrs": st.dictionaries(
            st.sampled_from([b"trusted.a", b"trusted.b"]), st.binary(max_size=300), max_size=2
        ),
    }
)
LEAVES = st.one_of(
    st.tuples(st.just(EntryKind.FILE), META, st.binary(max_size=3000)),
    st.tuples(st.just(EntryKind.FILE), META, st.integers(0, 200_000).map(bytes)),
    st.tuples(
        st.just(EntryKind.SYMLINK), META, st.sampled_from([b"a", b"/x", b"t" * 447, b"t" * 449, b"t" * 2000])
    ),
    st.tuples(st.just(EntryKind.CHAR), META, st.tuples(st.integers(1, 511), st.integers(0, 100_000))),
    st.tuples(st.just(EntryKind.FIFO), META, st.none()),
)
TREES = st.recursive(LEAVES, lambda below: st.tuples(st.just(EntryKind.DIRECTORY), META, st.dictionaries(NAMES, below, max_size=8)), max_leaves=30)  # fmt: skip
ROOTS = st.dictionaries(NAMES, TREES, min_size=1, max_size=8)


def members(children, prefix=b""):
    for name, (kind, meta, content) in children.items():
        entry = TarEntry(prefix + name, kind, **meta)
        data = b""
        if kind is EntryKind.FILE:
            data, entry.size = content, len(content)
        elif kind is EntryKind.SYMLINK:
            entry.link = content
        elif kind is EntryKind.CHAR:
            entry.major, entry.minor = content
        yield entry, data
        if kind is EntryKind.DIRECTORY:
            yield from members(content, prefix + name + b"/")
        elif len(name) % 2:  # a second name for some
            other = name[:200] + b"-hard"
            if other not in children:
                yield TarEntry(prefix + other, EntryKind.HARDLINK, link=prefix + name, **meta), b""


def archive_of(tree):
    return b"".join(encode_header(e) + d + padding(len(d)) for e, d in members(tree)) + END


def facts(root):
    """Everything lstat, readlink, listxattr and read can tell; hard links as groups of names."""
    found, groups = {}, {}
    root = os.fsencode(root)
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            }
            key = os.path.relpath(path, root)
            links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
            found[key] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_rdev,
                links,
                status.st_mtime_ns,
                content,
                xattrs,
            )
            if links > 1:
                groups.setdefault((status.st_dev, status.st_ino), set()).add(key)
    return found, sorted(map(sorted, groups.values()))


@FEW
@given(tree=ROOTS)
@pytest.mark.parametrize("way", ["file", "unpacked"])
def test_a_mounted_layer_is_what_gnu_tar_unpacks(make_store, way, tree):
    store = make_store(way)
    data = archive_of(tree)
    unpacked = tempfile.mkdtemp()

    async def scenario():
        info = await store.add(data)
        try:
            return facts(await store.layers.mount(info.diff_id))
        finally:
            await store.layers.delete(info.diff_id)

    try:
        subprocess.run(
            ["tar", "-C", unpacked, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-"],
            input=data,
            check=True,
            capture_output=True,
        )
        assert asyncio.run(scenario()) == facts(unpacked)
    finally:
        shutil.rmtree(unpacked)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "mkdir", "unlink", "rmtree", "rename", "symlink", "link", "chmod"]),
        st.integers(0, 1000),
        st.sampled_from(["n1", "n2", "n3", "n4"]),
    ),
    max_size=25,
)


def act(root, verb, number, name):
    """Do something to one of the paths that exist; what the kernel refuses is left undone."""
    paths = sorted(os.path.join(f, n) for f, d, files in os.walk(root) for n in (*d, *files)) or [
        f"{root}/{name}"
    ]
    path = paths[number % len(paths)]
    fresh = os.path.join(
        path if os.path.isdir(path) and not os.path.islink(path) else os.path.dirname(path), name
    )
    with contextlib.suppress(OSError):
        if verb == "write":
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK)
            os.write(fd, b"w" * number)
            os.close(fd)
        elif verb == "mkdir":
            os.mkdir(fresh)
        elif verb == "unlink":
            os.unlink(path)
        elif verb == "rmtree" and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif verb == "rename":
            os.rename(path, fresh)
        elif verb == "symlink":
            os.symlink(path, fresh)
        elif verb == "link":
            os.link(path, fresh, follow_symlinks=False)
        elif verb == "chmod" and not os.path.islink(path):
            os.chmod(path, number & 0o777)


def merged(root):
    found, groups = facts(root)
    cut = {key: (*fact[:5], fact[5] // 10**9, *fact[6:]) for key, fact in found.items()}
    return cut, groups


@FEW
@given(tree=ROOTS, first=ACTIONS, second=ACTIONS)
def test_the_diff_of_an_upper_directory_gives_its_tree_again(make_store, tree, first, second):
    store = make_store()

    async def scenario():
        lease = await store.leases.create("test")
        stack = [(await store.add(archive_of(tree), lease)).diff_id]
        for actions in (first, second):
            key = SnapshotKey(new_token())
            workspace = await store.snapshots.prepare(key, stack)
            fd = overlay_fd(workspace.lowers, workspace.upper, workspace.work)
            before = merged(f"/proc/self/fd/{fd}")[0]
            for action in actions:
                act(f"/proc/self/fd/{fd}", *action)
            wanted = merged(f"/proc/self/fd/{fd}")
            os.close(fd)
            changes = {change.path[1:] for change in await store.snapshots.changes(key)}
            stack.append((await store.snapshots.commit(key, lease)).diff_id)
            await store.snapshots.discard(key)
            view = await store.snapshots.view(stack)
            fd = overlay_fd(view.lowers)
            assert merged(f"/proc/self/fd/{fd}") == wanted
            os.close(fd)
            differing = {
                os.fsdecode(p) for p in before.keys() | wanted[0].keys() if before.get(p) != wanted[0].get(p)
            }
            assert {path for path in differing if not below_deleted(path, changes)} <= changes

    asyncio.run(scenario())


def below_deleted(path, changes):
    """Docker names a removed directory, not everything that was in it."""
    return any(parent in changes for parent in parents(path))


def parents(path):
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
