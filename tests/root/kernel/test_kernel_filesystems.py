import contextlib
import errno
import os
import shutil
import subprocess

import pytest

from orlop.kernel import mount
from orlop.kernel.filesystems import (
    FileBackedErofsUnsupported,
    LayerStyle,
    erofs_fd,
    erofs_mount,
    mount_table,
    overlay_fd,
)

pytestmark = pytest.mark.root


@pytest.fixture
def mounted():
    """Attach detached mounts and take them away again, last first."""
    with contextlib.ExitStack() as stack:

        def attach(fd, target):
            target.mkdir(exist_ok=True)
            mount.attach(fd, str(target))
            os.close(fd)
            stack.callback(mount.umount2, str(target), mount.MNT_DETACH)
            return target

        yield attach


def make_lowers(tmp_path, names):
    lowers = []
    for name in names:
        directory = tmp_path / name
        directory.mkdir(parents=True)
        (directory / f"of-{len(lowers)}").touch()
        (directory / "same").write_text(str(len(lowers)))
        lowers.append(str(directory))
    return lowers


@pytest.mark.parametrize("style", list(LayerStyle))
def test_overlay_takes_paths_with_any_characters(tmp_path, mounted, style):
    names = ["a:b", "c,d", "e\\f", "g h\n", "ü\udcff"]
    lowers = make_lowers(tmp_path, names)
    for name in ("up:per,x", "wo\\rk"):
        (tmp_path / name).mkdir()

    fd = overlay_fd(lowers, str(tmp_path / "up:per,x"), str(tmp_path / "wo\\rk"), style=style)
    root = mounted(fd, tmp_path / "root")

    assert (root / "same").read_text() == "0"
    assert sorted(p.name for p in root.iterdir()) == [f"of-{i}" for i in range(5)] + ["same"]
    (root / "new").write_text("x")
    assert (tmp_path / "up:per,x" / "new").exists()


@pytest.mark.parametrize("style", [LayerStyle.FD, LayerStyle.STRING])
def test_overlay_of_two_hundred_layers_in_long_paths(tmp_path, mounted, style):
    base = tmp_path / ("x" * 200) / ("y" * 200)
    lowers = make_lowers(base, [f"l{i}" for i in range(200)])

    root = mounted(overlay_fd(lowers, style=style), tmp_path / "root")

    assert len(list(root.iterdir())) == 201
    assert (root / "same").read_text() == "0"


def test_overlay_without_upper_is_read_only(tmp_path, mounted):
    lowers = make_lowers(tmp_path, ["a", "b"])

    root = mounted(overlay_fd(lowers), tmp_path / "root")

    with pytest.raises(OSError) as caught:
        (root / "new").write_text("x")
    assert caught.value.errno == errno.EROFS


def test_a_view_of_one_layer_works(tmp_path, mounted):
    lowers = make_lowers(tmp_path, ["a"])

    root = mounted(overlay_fd(lowers), tmp_path / "root")

    assert (root / "same").read_text() == "0"


def test_overlay_error_names_the_upper_directory(tmp_path):
    lowers = make_lowers(tmp_path, ["a"])
    (tmp_path / "u").mkdir()

    with pytest.raises(OSError) as caught:
        overlay_fd(lowers, str(tmp_path / "u"), str(tmp_path / "u"))

    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(tmp_path / "u"))


def test_unknown_overlay_option_is_named(tmp_path):
    lowers = make_lowers(tmp_path, ["a"])

    with pytest.raises(OSError, match="Unknown parameter 'nonsense'"):
        overlay_fd(lowers, options={"nonsense": None})


@pytest.fixture
def image(tmp_path):
    if not shutil.which("mkfs.erofs"):
        pytest.skip("mkfs.erofs is not installed")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("hello")
    os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    os.chmod(tree / "null", 0o666)
    os.mknod(tree / "gone", 0o20000, os.makedev(0, 0))
    shutil.copy("/bin/true", tree / "true")
    path = tmp_path / "image"
    subprocess.run(["mkfs.erofs", path, tree], check=True, capture_output=True)
    return path


def test_erofs_is_mounted_from_a_file_without_a_loop_device(tmp_path, image):
    target = tmp_path / "t"
    target.mkdir()

    try:
        erofs_mount(str(image), str(target))
    except FileBackedErofsUnsupported as error:
        pytest.skip(f"kernel: {error}")
    try:
        entry = next(e for e in mount_table() if e.target == os.fsencode(target))
        assert (target / "file").read_text() == "hello"
        assert entry.kind == "erofs"
        assert entry.source == os.fsencode(image)
        assert {"ro", "nosuid", "nodev"} <= set(entry.options)
    finally:
        mount.umount2(str(target))


def test_devices_whiteouts_and_programs_of_a_layer_work_through_overlay(tmp_path, image, mounted):
    lower = mounted(erofs_fd(str(image)), tmp_path / "lower")
    below = tmp_path / "below"
    below.mkdir()
    (below / "gone").write_text("hidden by the layer above")

    root = mounted(overlay_fd([str(lower), str(below)]), tmp_path / "root")

    assert sorted(p.name for p in root.iterdir()) == ["file", "null", "true"]
    with open(root / "null", "wb") as null:
        null.write(b"x")
    assert subprocess.run([root / "true"], check=False).returncode == 0


def test_erofs_from_a_path_beyond_the_kernels_string_limit(tmp_path, image, mounted):
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    shutil.copy(image, deep / "image")

    target = mounted(erofs_fd(str(deep / "image")), tmp_path / "t")

    assert (target / "file").read_text() == "hello"


def test_a_file_that_is_no_image_is_refused_with_its_name(tmp_path):
    path = tmp_path / "junk"
    path.write_bytes(b"x" * 8192)

    with pytest.raises(OSError) as caught:
        erofs_fd(str(path))

    assert caught.value.filename == str(path)
    assert caught.value.errno == errno.EINVAL


def test_mount_table_shows_octal_escaped_targets(tmp_path, mounted):
    fd = mount.new_filesystem("tmpfs", {"size": "64k", "mode": "0711"}, mount.MOUNT_ATTR_NOEXEC)
    target = mounted(fd, tmp_path / "with space\\and\ttab")

    entry = next(e for e in mount_table() if e.target == os.fsencode(target))

    assert entry.kind == "tmpfs"
    assert "noexec" in entry.options
    assert "size=64k" in entry.super_options
    assert target.stat().st_mode & 0o777 == 0o711


def test_setattr_makes_a_detached_bind_read_only(tmp_path, mounted):
    source = tmp_path / "s"
    source.mkdir()

    fd = mount.detach(str(source))
    mount.mount_setattr(fd, set_attributes=mount.MOUNT_ATTR_RDONLY, propagation="private")
    target = mounted(fd, tmp_path / "t")

    with pytest.raises(OSError) as caught:
        (target / "f").write_text("")
    assert caught.value.errno == errno.EROFS


def test_attach_to_an_fd(tmp_path):
    target = tmp_path / "t"
    target.mkdir()
    place = os.open(target, os.O_PATH)
    fd = mount.new_filesystem("tmpfs", {"size": "64k"})

    mount.attach(fd, place)

    try:
        assert os.stat(target).st_dev == os.fstat(fd).st_dev
    finally:
        os.close(place)
        os.close(fd)
        mount.umount2(str(target))
