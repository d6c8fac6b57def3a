"""Processes that try to leave their limits, and callers that put containers where they do not belong."""

import os
from pathlib import Path

import pytest

from support.hostile import pid_of

pytestmark = pytest.mark.system
ESCAPES = r"""
for f in /sys/fs/cgroup /sys/fs/cgroup/*; do
  for name in cgroup.procs tasks release_agent notify_on_release pids.max memory.limit_in_bytes memory.max \
      cgroup.subtree_control devices.allow cpuset.cpus cgroup.kill cgroup.freeze; do
    [ -e $f/$name ] || continue
    for value in 1 0 max a '+pids' /x "$$"; do (echo "$value" > $f/$name) 2>/dev/null && echo "wrote $f/$name $value"; done
  done
  mkdir $f/child 2>/dev/null && echo "made $f/child"
done
find /sys/fs/cgroup -name release_agent
mkdir /c; for kind in "-t cgroup -o memory" "-t cgroup -o rdma" "-t cgroup -o devices" "-t cgroup2"; do
  mount $kind none /c 2>/dev/null && echo "mounted $kind"; done
mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted
unshare -C true 2>/dev/null && echo unshared; unshare -Ur true 2>/dev/null && echo unshared-user
unshare -UrmC sh -c 'mount -t cgroup -o rdma none /c && echo mounted-in-new' 2>/dev/null
cat /proc/1/cgroup | grep -v ':/$'
echo end
"""


def cgroups(pid):
    """hierarchy -> cgroup of a process, as the host sees it."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":")[1]: line.split(":", 2)[2] for line in lines}


def members(door, container):
    """Host pids of everything that runs in the container."""
    rows = door.ask("GET", f"/containers/{container}/top", ps_args="-o pid").value()["Processes"]
    return [int(row[0]) for row in rows]


@pytest.mark.parametrize(
    "flags", [{}, {"CapAdd": ["DAC_OVERRIDE", "SYS_PTRACE"]}, {"SecurityOpt": ["userns=auto"]}]
)
def test_no_way_out_of_a_cgroup(door, started, flags):
    """CVE-2022-0492, CVE-2023-25809: release_agent, a cgroup file system of its own, writing its own limits."""
    name = started(host={"PidsLimit": 50, **flags})
    pid = pid_of(door, name)
    before = cgroups(pid)

    done = door.execute(name, "sh", "-c", ESCAPES)

    assert done.output.split() == ["end"]
    assert cgroups(pid) == before
    assert {name in path for path in before.values()} == {True} or any(
        name in path for path in before.values()
    )


def test_a_container_that_may_divide_its_cgroup_stays_below_it(door, started):
    """CVE-2023-6476, CVE-2022-0492: with writable cgroups it divides its own, and reaches no other."""
    name = started(host={"PidsLimit": 50, "SecurityOpt": ["writable-cgroups=true"]})
    pid = pid_of(door, name)
    own = cgroups(pid)

    done = door.execute(
        name, "sh", "-c",
        "for f in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $f/../up $f/../../up; echo 1 > $f/../cgroup.procs; done;"
        "find /sys/fs/cgroup -name release_agent; find /sys/fs/cgroup -maxdepth 2 -name 'orlop*'",
    )  # fmt: skip

    assert "release_agent" not in done.output
    for process in members(door, name):
        inside = cgroups(process)
        for hierarchy, path in own.items():
            assert inside[hierarchy] == path or inside[hierarchy].startswith(f"{path}/")


def test_every_process_is_limited_before_its_first_instruction(door, started):
    """CVE-2016-8867 and its kind, A13: the first thing that a program reads is that it is in its place."""
    done = door.run("busybox", "cat", "/proc/self/cgroup", host={"CgroupnsMode": "host", "PidsLimit": 20})
    paths = {line.split(":", 2)[2] for line in done.output.split()}
    name = started(host={"CgroupnsMode": "host", "PidsLimit": 20})
    execed = door.execute(name, "cat", "/proc/self/cgroup")

    assert all("orlop" in path for path in paths if path != "/")
    assert any("orlop" in path for path in paths)
    assert sum(name in line for line in execed.output.split()) >= 1
    assert {line.split(":", 2)[2] for line in execed.output.split()} == set(
        cgroups(pid_of(door, name)).values()
    )


def test_a_burst_of_forks_at_the_start_and_in_an_exec(door, started):
    """CVE-2023-6476, CVE-2025-47291: no moment without the limit of processes."""
    bomb = ("sh", "-c", "for i in $(seq 80); do sleep 20 & done; echo started")
    name = started("busybox", "sh", "-c", "while :; do sleep 20 & wait; done", host={"PidsLimit": 20})
    told = [door.execute(name, *bomb).output for _ in range(3)]

    assert all("fork" in text or "Resource" in text for text in told), told
    assert len(members(door, name)) <= 20


@pytest.mark.parametrize(
    "parent",
    [
        "../../../../escape",
        "/../escape",
        "a/../../../b",
        "/sys/fs/cgroup/x",
        "x\ny",
        "a\0b",
        "x" * 5000,
        "+1",
        "..",
        "/",
    ],
)
def test_a_parent_of_cgroups_that_is_no_name(door, tmp_path, parent):
    """CVE-2022-0811, CVE-2024-3154: what the caller says about cgroups makes no directory anywhere else."""
    tops = {path: set(os.listdir(path)) for path in ("/", "/sys", "/sys/fs", "/sys/fs/cgroup")}

    done = door.run("busybox", "true", host={"CgroupParent": parent})

    assert done.code == 0 or done.status in (400, 409, 500)
    assert {path: set(os.listdir(path)) for path in tops} == tops


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel.core_pattern": "|/bin/sh"},
        {"kernel.shmmax": "1+kernel.core_pattern=|/x"},
        {"kernel/core_pattern": "x"},
        {"net.ipv4.../../kernel/core_pattern": "x"},
        {"net.ipv4.ip_forward+kernel.core_pattern": "x"},
        {"net/../kernel/core_pattern": "x"},
        {"net.ipv4.ip_forward\n": "1"},
        {"net.ipv4.ip_forward": "1\n2"},
        {"net.ipv4.ip_forward": "1\0"},
        {"net.": "1"},
        {"": "1"},
        {"fs.mqueue.../../../kernel/sysrq": "1"},
        {"kernel.hostname": "x"},
        {"vm.overcommit_memory": "1"},
    ],
    ids=str,
)
def test_settings_of_the_kernel(door, settings):
    """CVE-2022-0811, GHSA-w2j5, CVE-2024-3154: names and values that set something else, or for the host."""
    watched = [
        Path("/proc/sys/kernel/core_pattern"),
        Path("/proc/sys/kernel/hostname"),
        Path("/proc/sys/vm/overcommit_memory"),
    ]
    before = [path.read_bytes() for path in watched]

    done = door.run("busybox", "cat", "/proc/sys/kernel/core_pattern", host={"Sysctls": settings})

    assert [path.read_bytes() for path in watched] == before
    assert done.status in (400, 409, 500) or done.output.encode().replace(b"\r", b"") == before[0]
