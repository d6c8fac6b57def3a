import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orlop.kernel import cgroup, loop, mount
from orlop.kernel.filesystems import LayerStyle, erofs_mount
from orlop.kernel.probe import abilities, has_file_backed_erofs, kernel_version

pytestmark = pytest.mark.root


def test_what_this_host_can_do_agrees_with_what_the_other_tests_do():
    found = abilities()

    assert found is abilities()
    assert found.missing() == []
    assert found.cgroup_mode is cgroup.detect().mode
    if found.kernel >= (6, 13):
        assert found.overlay_layers is LayerStyle.FD
    if found.kernel >= (5, 7) and found.cgroup_mode is not cgroup.Mode.V1:
        assert found.clone_into_cgroup


def test_file_backed_erofs_depends_on_the_file_system(tmp_path):
    if abilities().kernel >= (6, 12) and "erofs" in Path("/proc/filesystems").read_text():
        assert has_file_backed_erofs(str(tmp_path))
    assert not has_file_backed_erofs("/dev/shm")
    assert not has_file_backed_erofs("/proc")


def test_kernel_versions():
    assert kernel_version("6.18.44-x") == (6, 18)
    assert kernel_version("strange") == (0, 0)


def test_a_layer_by_way_of_a_loop_device(tmp_path):
    if not shutil.which("mkfs.erofs"):
        pytest.skip("mkfs.erofs is not installed")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x" * 9000)
    image = tmp_path / "image"
    subprocess.run(["mkfs.erofs", image, tmp_path / "tree"], check=True, capture_output=True)
    target = tmp_path / "t"
    target.mkdir()

    try:
        with loop.attached(str(image)) as device:
            erofs_mount(device, str(target))
    except OSError as error:
        if error.errno in (2, 6):
            pytest.skip(f"no loop devices: {error}")
        raise

    try:
        assert (target / "file").read_text() == "x" * 9000
        backing = Path(f"/sys/block/{os.path.basename(device)}/loop/backing_file")
        assert backing.read_text().strip() == str(image)
    finally:
        mount.umount2(str(target))
    assert not backing.exists()  # it detached itself
