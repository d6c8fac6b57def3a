import os
import stat

import pytest

from orlop.store.treecopy import TreeTooDeep, copy_tree


@pytest.fixture
def trees(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    return source, target


def copy(source, target):
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    try:
        return copy_tree(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def test_files_links_modes_and_times_arrive(trees):
    source, target = trees
    (source / "dir").mkdir(mode=0o751)
    (source / "dir" / "file").write_text("content")
    os.chmod(source / "dir" / "file", 0o640)
    os.utime(source / "dir" / "file", ns=(5, 7_000_000_001))
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")

    assert copy(source, target) == 4

    copied = (target / "dir" / "file").stat()
    assert (target / "dir" / "file").read_text() == "content"
    assert (stat.S_IMODE(copied.st_mode), copied.st_mtime_ns) == (0o640, 7_000_000_001)
    assert os.readlink(target / "link") == "/etc/passwd"
    assert stat.S_ISFIFO((target / "pipe").lstat().st_mode)


def test_names_of_one_file_stay_names_of_one_file(trees):
    source, target = trees
    (source / "a").write_text("x")
    (source / "sub").mkdir()
    os.link(source / "a", source / "sub" / "b")
    os.link(source / "a", source / "c")

    copy(source, target)

    inodes = {(target / name).stat().st_ino for name in ("a", "sub/b", "c")}
    assert len(inodes) == 1
    assert (target / "a").stat().st_nlink == 3


def test_holes_stay_holes(trees):
    source, target = trees
    with open(source / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(16 << 20)

    copy(source, target)

    status = (target / "sparse").stat()
    assert status.st_size == 16 << 20
    assert status.st_blocks * 512 < 1 << 20
    with open(target / "sparse", "rb") as file:
        file.seek(8 << 20)
        assert file.read(7) == b"middle\0"


def test_attributes_arrive(trees):
    source, target = trees
    (source / "f").write_text("")
    try:
        os.setxattr(source / "f", "user.note", b"kept")
    except OSError:
        pytest.skip("no attributes here")

    copy(source, target)

    assert os.getxattr(target / "f", "user.note") == b"kept"


def test_a_tree_without_end_is_refused(trees):
    source, target = trees
    top = os.open(source, os.O_RDONLY)
    fds = [top]
    for _ in range(420):
        os.mkdir("d", dir_fd=fds[-1])
        fds.append(os.open("d", os.O_RDONLY, dir_fd=fds[-1]))
    for fd in fds:
        os.close(fd)

    with pytest.raises(TreeTooDeep):
        copy(source, target)
