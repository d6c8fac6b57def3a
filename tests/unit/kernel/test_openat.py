import errno
import os
import stat

import pytest

from orlop.kernel.openat import RootedDir


@pytest.fixture
def tree(tmp_path):
    """A root with links that try to leave it, beside a secret."""
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("inside")
    (root / "secret").write_text("inside")
    os.symlink("/etc", root / "abs")
    os.symlink("../../../../secret", root / "up")
    os.symlink(f"{tmp_path}/secret", root / "host")
    os.symlink("loop", root / "loop")
    os.symlink("/made/by/link", root / "dangling")
    os.symlink("/proc/self/fd/0", root / "magic")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def rooted(tree):
    before = set(os.listdir("/proc/self/fd"))
    with RootedDir.at(str(tree)) as rooted:
        yield rooted
    assert set(os.listdir("/proc/self/fd")) <= before


def read(rooted, path):
    with open(rooted.open_regular(path), closefd=True) as file:
        return file.read()


@pytest.mark.parametrize(
    "path", ["secret", "/secret", "../secret", "/../../secret", "up", "abs/../secret", b"etc/../up"]
)
def test_every_way_ends_inside(rooted, path):
    assert read(rooted, path) == "inside"


def test_absolute_links_work_from_the_root(rooted):
    assert read(rooted, "/abs/passwd") == "inside"


def test_a_link_to_a_host_path_finds_nothing(rooted):
    with pytest.raises(FileNotFoundError):
        rooted.open("host")


def test_link_loops_end(rooted):
    with pytest.raises(OSError) as caught:
        rooted.stat("loop")
    assert caught.value.errno == errno.ELOOP


def test_nul_in_a_path_is_refused(rooted):
    with pytest.raises(ValueError, match="NUL"):
        rooted.open("etc\0/passwd")


def test_open_regular_refuses_fifos_without_hanging(rooted):
    with pytest.raises(OSError) as caught:
        rooted.open_regular("fifo")
    assert caught.value.errno == errno.EINVAL


def test_stat_readlink_and_names(rooted):
    assert stat.S_ISLNK(rooted.stat("abs", follow=False).st_mode)
    assert stat.S_ISDIR(rooted.stat("abs").st_mode)
    assert rooted.readlink("/abs") == b"/etc"
    assert rooted.names("abs") == [b"passwd"]
    with pytest.raises(OSError) as caught:
        rooted.readlink("etc")
    assert caught.value.errno == errno.EINVAL


def test_parent_gives_the_place_for_a_new_name(rooted, tree):
    fd, name = rooted.parent("/abs/../abs/new/")
    os.mkdir(name, dir_fd=fd)
    os.close(fd)

    assert (tree / "etc" / "new").is_dir()


@pytest.mark.parametrize("path", ["/", "", "..", "a/..", "."])
def test_parent_needs_a_last_component(rooted, path):
    with pytest.raises(OSError) as caught:
        rooted.parent(path)
    assert caught.value.errno == errno.EINVAL


def test_create_inside(rooted, tree):
    fd = rooted.open("/abs/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.close(fd)

    assert (tree / "etc" / "new").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("/a/b/c", "a/b/c"),
        ("abs/x", "etc/x"),
        ("../../../y", "y"),
        ("dangling/z", "made/by/link/z"),
        ("a/../b/./c", "b/c"),
        ("//", "."),
        ("abs/../q", "q"),
    ],
)
def test_mkdirs_follows_links_inside_the_root(rooted, tree, path, made):
    fd = rooted.mkdirs(path, 0o711)

    assert os.path.samestat(os.fstat(fd), os.stat(tree / made))
    os.close(fd)
    assert not (tree.parent / "y").exists()


def test_mkdirs_gives_the_mode_whatever_the_umask(rooted, tree):
    old = os.umask(0o077)
    try:
        os.close(rooted.mkdirs("/m/n", 0o2775))
    finally:
        os.umask(old)

    assert [(tree / p).stat().st_mode & 0o7777 for p in ("m", "m/n")] == [0o2775, 0o2775]


def test_mkdirs_leaves_existing_directories_alone(rooted, tree):
    os.chmod(tree / "etc", 0o700)

    os.close(rooted.mkdirs("/etc", 0o777))

    assert (tree / "etc").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("path", "number"), [("secret/x", errno.ENOTDIR), ("loop/x", errno.ELOOP), ("magic/x", errno.ENOTDIR)]
)
def test_mkdirs_says_why_not(rooted, tree, path, number):
    (tree / "proc" / "self" / "fd").mkdir(parents=True)
    (tree / "proc" / "self" / "fd" / "0").touch()

    with pytest.raises(OSError) as caught:
        rooted.mkdirs(path)

    assert (caught.value.errno, caught.value.filename) == (number, path)


def test_mkdirs_of_absurd_depth_is_refused(rooted):
    with pytest.raises(OSError) as caught:
        rooted.mkdirs("a/" * 2000)
    assert caught.value.errno == errno.ENAMETOOLONG


def test_magic_links_are_not_followed(tmp_path):
    with RootedDir.at("/proc") as proc, pytest.raises(OSError) as caught:
        proc.open("self/fd/0", os.O_PATH)
    assert caught.value.errno == errno.ELOOP


def test_close_may_be_repeated(tree):
    rooted = RootedDir.at(str(tree))
    rooted.close()
    rooted.close()


def test_a_link_flipped_by_an_attacker_never_leads_outside(tree):
    """A child swaps a directory and a link to the outside as fast as it can."""
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    (tree / "d").mkdir()
    (tree / "d" / "file").write_text("inside")
    os.symlink(outside, tree / "l")
    with RootedDir.at(str(tree)) as rooted:
        seen = {read(rooted, "d/file")}
    child = os.fork()
    if child == 0:
        try:
            while True:
                os.rename(tree / "d", tree / "keep")
                os.rename(tree / "l", tree / "d")
                os.rename(tree / "d", tree / "l")
                os.rename(tree / "keep", tree / "d")
        finally:
            os._exit(1)
    try:
        with RootedDir.at(str(tree)) as rooted:
            for _ in range(3000):
                for attempt in (lambda: read(rooted, "d/file"), lambda: os.close(rooted.mkdirs("d/new"))):
                    try:
                        seen.add(attempt())
                    except OSError as error:
                        seen.add(error.errno)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)

    assert "outside" not in seen
    assert "inside" in seen
    assert not (outside / "new").exists()
