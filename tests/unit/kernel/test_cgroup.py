import pytest

from orlop.kernel.cgroup import Cgroup, Host, Mode, host_of
from orlop.kernel.filesystems import parse_mountinfo

V1 = b"""30 20 0:25 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
31 20 0:26 / /cg/memory rw - cgroup cgroup rw,memory
32 20 0:27 / /cg/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
UNIFIED = b"33 20 0:28 / /cg/unified rw - cgroup2 cgroup2 rw\n"
LATER_COPY = (
    b"34 20 0:28 / /elsewhere rw - cgroup2 cgroup2 rw\n35 20 0:26 / /elsewhere/m rw - cgroup x rw,memory\n"
)


def host(text, controllers=""):
    return host_of(list(parse_mountinfo(text)), lambda _path: controllers)


@pytest.mark.parametrize(
    ("text", "controllers", "mode", "version"),
    [
        (V1, "", Mode.V1, 1),
        (V1 + UNIFIED, "hugetlb", Mode.HYBRID, 1),
        (UNIFIED, "cpu memory pids", Mode.V2, 2),
        (b"", "", Mode.NONE, 1),
    ],
)
def test_the_shape_of_a_host(text, controllers, mode, version):
    found = host(text, controllers)

    assert (found.mode, found.version) == (mode, version)


def test_comounted_controllers_share_a_directory_and_the_first_mount_counts():
    found = host(V1 + UNIFIED + LATER_COPY)

    assert found.v1 == {"cpu": "/cg/cpu,cpuacct", "cpuacct": "/cg/cpu,cpuacct", "memory": "/cg/memory"}
    assert found.hierarchies() == ["/cg/unified", "/cg/cpu,cpuacct", "/cg/memory"]


@pytest.mark.parametrize(
    "path", ["", "/", "..", "a/../b", "a//b", "a/./b", "a b", "a\n", "cgroup.kill/x", "ü", "x" * 256]
)
def test_paths_that_could_leave_are_refused(path):
    with pytest.raises(ValueError, match="invalid cgroup path"):
        Cgroup(path, Host({}, "/nowhere", frozenset()))


def test_a_cgroup_is_the_same_path_in_every_hierarchy():
    cgroup = Cgroup("/orlop/abc/", host(V1 + UNIFIED))

    assert cgroup.path == "orlop/abc"
    assert cgroup.directory("memory") == "/cg/memory/orlop/abc"
    assert cgroup.directory("unified") == "/cg/unified/orlop/abc"
    with pytest.raises(FileNotFoundError):
        cgroup.directory("pids")


def test_v2_has_one_directory_for_all_controllers():
    assert Cgroup("x", host(UNIFIED, "memory")).directory("memory") == "/cg/unified/x"
