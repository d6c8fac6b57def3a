"""Limits are written and read back; the fake hierarchy is a directory of plain files."""

import pytest

from orlop.kernel.cgroup import Cgroup, Host
from orlop.kernel.cgroup_apply import was_taken
from orlop.kernel.cgroup_limits import Limits, Write
from orlop.kernel.cgroup_support import support_of

V2_FILES = "cpu.max cpu.weight cpuset.cpus cpuset.mems io.max io.weight memory.low memory.max memory.swap.max pids.max"
MIB = 1 << 20


class Kernel:
    """A v2 cgroup as a directory; `bend` says what the kernel makes of a value."""

    def __init__(self, tmp_path, files=V2_FILES):
        self.directory = tmp_path / "orlop" / "c"
        self.directory.mkdir(parents=True)
        for name in files.split():
            (self.directory / name).touch()
        controllers = frozenset({"cpu", "cpuset", "io", "memory", "pids"})
        self.cgroup = Cgroup("orlop/c", Host({}, str(tmp_path), controllers))

    def read(self, name):
        return (self.directory / name).read_text()


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path)


def test_every_limit_reaches_its_file_of_version_2(kernel):
    limits = Limits(
        memory_limit_bytes=64 * MIB,
        memory_reservation_bytes=32 * MIB,
        memory_swap_bytes=96 * MIB,
        nano_cpus=1_500_000_000,
        cpu_shares=512,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        blkio_weight=500,
        pids_limit=9,
        blkio_read_bps=("8:0 1048576",),
    )

    assert kernel.cgroup.apply(limits) == []
    assert {name: kernel.read(name) for name in V2_FILES.split()} == {
        "cpu.max": "150000 100000",
        "cpu.weight": "59",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "io.max": "8:0 rbps=1048576",
        "io.weight": "4950",  # no BFQ here
        "memory.low": str(32 * MIB),
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "pids.max": "9",
    }


def test_bfq_takes_the_weight_as_it_is(tmp_path):
    kernel = Kernel(tmp_path, V2_FILES + " io.bfq.weight")

    kernel.cgroup.apply(Limits(blkio_weight=500))

    assert (kernel.read("io.bfq.weight"), kernel.read("io.weight")) == ("500", "")


def test_what_version_2_lacks_is_named(kernel):
    limits = Limits(oom_kill_disable=True, memory_swappiness=0, cpu_rt_runtime_us=5)

    assert kernel.cgroup.apply(limits) == ["OOM kill disable", "memory swappiness", "CPU real-time runtime"]


def test_a_value_that_the_kernel_bends_is_an_error(kernel, monkeypatch):
    monkeypatch.setattr(Cgroup, "_read", lambda *_: "max\n")

    with pytest.raises(OSError, match="pids limit of 9 was taken as 'max'"):
        kernel.cgroup.apply(Limits(pids_limit=9))


@pytest.mark.parametrize(
    ("file", "value", "text", "taken"),
    [
        ("memory.max", "70000001", "69996544", True),  # whole pages
        ("memory.max", "70000000", "max", False),
        ("memory.swap.max", "max", "max", True),
        ("memory.memsw.limit_in_bytes", "-1", "9223372036854771712", True),
        ("memory.limit_in_bytes", "70000000", "9223372036854771712", False),
        ("memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0", True),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0", False),
        ("cpuset.cpus", "0,1,2", "0-2", True),
        ("cpuset.cpus", "0", "0-2", False),
        ("io.max", "8:0 rbps=5", "8:0 rbps=5 wbps=max riops=max wiops=max", True),
        ("io.max", "8:0 rbps=5", "8:16 rbps=5 wbps=max riops=max wiops=max", False),
        ("io.max", "8:0 rbps=max", "", True),
        ("io.weight", "50", "default 50\n8:0 20", True),
        ("io.weight", "8:0 20", "default 50\n8:0 20", True),
        ("io.weight", "8:0 20", "default 20", False),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:0 5", True),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:0 6", False),
        ("blkio.throttle.read_bps_device", "8:0 0", "", True),
        ("cpu.max", "max 100000", "max 100000", True),
        ("pids.max", "9", "10", False),
    ],
)
def test_reading_back(file, value, text, taken):
    assert was_taken(Write("any", file, value, "limit"), f"{text}\n") is taken


def test_a_host_of_version_2_has_what_its_files_say():
    there = {"/s/memory.swap.max", "/s/io.max", "/s/cpu.max"}
    host = Host({}, "/cg", frozenset({"cpu", "io", "memory", "pids"}))

    found = support_of(host, there.__contains__, lambda _: "0-3\n", "/s")

    assert all((found.memory_limit, found.swap_limit, found.cpu_quota, found.blkio_read_bps))
    assert not any((found.blkio_weight, found.cpuset, found.oom_kill_disable, found.memory_swappiness))
    assert found.cpus == "0-3"


def test_a_host_of_version_1_has_what_its_files_say():
    there = {"/m/memory.memsw.limit_in_bytes", "/m/memory.oom_control", "/b/blkio.bfq.weight"}
    host = Host({"memory": "/m", "blkio": "/b", "pids": "/p"}, None, frozenset())

    found = support_of(host, there.__contains__, lambda _: "")

    assert all((found.memory_limit, found.swap_limit, found.oom_kill_disable, found.blkio_weight))
    assert found.pids_limit
    assert not any((found.cpu_shares, found.blkio_read_bps))
