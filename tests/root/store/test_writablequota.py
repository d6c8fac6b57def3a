"""Project quotas on a real ext4; a kernel without them shows that the refusal is clear."""

import errno
import os
import shutil
import subprocess

import pytest

from orlop.kernel import projectquota
from orlop.store import writablequota

MIB = 1 << 20


@pytest.fixture
def quota_root(tmp_path):
    """An ext4 of its own, mounted with prjquota."""
    image, top = tmp_path / "image", tmp_path / "top"
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4")
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-O", "project,quota", image], check=True)
    top.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop,prjquota", image, top], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this kernel has no project quotas")
    yield top
    subprocess.run(["umount", top], check=True)


def snapshot(top, name="s"):
    paths = [top / name / part for part in ("upper", "work")]
    for path in paths:
        path.mkdir(parents=True)
    return [str(path) for path in paths]


def test_a_limit_counts_both_directories_and_can_be_changed(quota_root):
    upper, work = snapshot(quota_root)

    writablequota.limit("key", upper, work, 5 * MIB)
    writablequota.limit("key", upper, work, 9 * MIB)

    with open(f"{upper}/file", "wb") as file:
        file.write(bytes(MIB))
        os.fsync(file.fileno())
    os.rename(f"{upper}/file", f"{work}/file")  # one project: as overlay does at a copy-up
    fd = os.open(upper, os.O_RDONLY)
    used, limit = projectquota.read_usage(fd, projectquota.get_project(fd))
    os.close(fd)
    assert used >= MIB
    assert limit == 9 * MIB


def test_more_than_the_limit_is_refused(quota_root):
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith("CapEff")]
    if int(line.split()[1], 16) >> 24 & 1:
        pytest.skip("we have CAP_SYS_RESOURCE, which no quota holds back")
    upper, work = snapshot(quota_root)
    writablequota.limit("key", upper, work, 2 * MIB)

    with open(f"{upper}/file", "wb", buffering=0) as file, pytest.raises(OSError, match="quota") as caught:
        file.writelines([bytes(MIB)] * 8)

    assert caught.value.errno == errno.EDQUOT


def test_two_snapshots_have_projects_of_their_own_and_release_forgets(quota_root):
    first, second = snapshot(quota_root, "a"), snapshot(quota_root, "b")
    writablequota.limit("a", *first, 5 * MIB)
    writablequota.limit("b", *second, 5 * MIB)

    fds = [os.open(paths[0], os.O_RDONLY) for paths in (first, second)]
    projects = [projectquota.get_project(fd) for fd in fds]
    writablequota.release(first[1])
    limits = [projectquota.read_usage(fd, project)[1] for fd, project in zip(fds, projects, strict=True)]
    for fd in fds:
        os.close(fd)

    assert projects[0] != projects[1]
    assert limits == [0, 5 * MIB]


def test_a_file_system_without_quotas_is_refused_with_a_hint(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, check=False)
    assert mounted.returncode == 0
    try:
        upper, work = snapshot(tmp_path)

        with pytest.raises(writablequota.QuotaUnavailable) as caught:
            writablequota.limit("key", upper, work, MIB)
        writablequota.release(work)
    finally:
        subprocess.run(["umount", tmp_path], check=True)

    assert "prjquota" in caught.value.message
    assert caught.value.hint
