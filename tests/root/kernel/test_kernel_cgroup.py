import contextlib
import os
import select
import signal
import threading
import time

import pytest

from orlop.kernel import cgroup as cgroups
from orlop.kernel.cgroup import Cgroup, Host, Mode
from orlop.kernel.cgroup_limits import Limits
from orlop.kernel.cgroup_oom import OomWatch
from orlop.kernel.clone import clone3
from orlop.kernel.devicefilter import ALLOW_ALL, DeviceRule, attach, restrict

pytestmark = pytest.mark.root


@pytest.fixture
def cgroup():
    host = cgroups.detect()
    if host.mode is Mode.NONE:
        pytest.skip("no cgroup hierarchy is mounted")
    yield from in_cgroup(host)


@pytest.fixture
def v2_cgroup():
    """The same on the unified hierarchy alone, as if there were no v1."""
    host = cgroups.detect()
    if host.unified is None:
        pytest.skip("no v2 hierarchy is mounted")
    yield from in_cgroup(Host({}, host.unified, host.v2_controllers))


def in_cgroup(host):
    group = Cgroup(f"orlop-test/{os.getpid()}-{time.monotonic_ns()}", host)
    group.create()
    yield group
    group.kill()
    group.destroy()
    for mount_point in host.hierarchies():
        with contextlib.suppress(OSError):
            os.rmdir(f"{mount_point}/orlop-test")


@contextlib.contextmanager
def member(cgroup, work, **options):
    """A child that joins the cgroup before it works; yields its pid and pidfd."""
    reader, writer = os.pipe()
    pid, pidfd = clone3(**options)
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        try:
            work()
        finally:
            os._exit(7)
    os.close(reader)
    cgroup.add(pid)
    os.close(writer)
    try:
        yield pid, pidfd
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def status_of(pidfd):
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    return result.si_code, result.si_status


def exit_of(cgroup, work):
    """The exit code of `work` run as a member: its result as a number, or an errno."""

    def wrapped():
        try:
            os._exit(work() or 0)
        except OSError as error:
            os._exit(error.errno)

    with member(cgroup, wrapped) as (_, pidfd):
        return status_of(pidfd)[1]


def test_create_and_destroy_may_be_repeated(cgroup):
    cgroup.create()
    assert cgroup.exists()

    cgroup.destroy()
    cgroup.destroy()

    assert not cgroup.exists()


def test_members_are_listed_and_killed_with_all_descendants(cgroup):
    def work():
        os.fork()
        os.fork()
        signal.pause()

    with member(cgroup, work) as (pid, pidfd):
        deadline = time.monotonic() + 5
        while len(cgroup.pids()) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert pid in cgroup.pids()
        assert len(cgroup.pids()) == 4

        cgroup.kill_nowait()

        assert status_of(pidfd) == (os.CLD_KILLED, signal.SIGKILL)
        assert cgroup.kill()


def test_destroy_takes_nested_cgroups_along(cgroup):
    for directory in cgroup._directories():
        os.mkdir(f"{directory}/nested")

    cgroup.destroy()

    assert not cgroup.exists()


def test_destroy_of_a_busy_cgroup_says_so(cgroup):
    with member(cgroup, signal.pause), pytest.raises(OSError):
        cgroup.destroy(timeout_s=0.05)


def test_clone_into_the_unified_hierarchy(cgroup):
    fd = cgroup.open_unified()
    if fd is None:
        pytest.skip("no v2 hierarchy")

    pid, pidfd = clone3(cgroup_fd=fd)
    if pid == 0:
        with open("/proc/self/cgroup") as file:
            os._exit(0 if f"0::/{cgroup.path}\n" in file.read() else 1)

    assert status_of(pidfd) == (os.CLD_EXITED, 0)
    os.close(fd)
    os.close(pidfd)


def test_joining_from_inside_reaches_every_hierarchy(cgroup):
    fd = cgroup.open_unified()

    pid, pidfd = clone3(cgroup_fd=fd)
    if pid == 0:
        try:
            cgroup.join(is_in_unified=fd is not None)
            with open("/proc/self/cgroup") as file:
                paths = {
                    line.rstrip("\n").split(":", 2)[1]: line.rstrip("\n").split(":", 2)[2] for line in file
                }
            here = f"/{cgroup.path}"
            ours = [paths.get(c) for c in cgroup.host.v1 if c in paths]
            os._exit(0 if set(ours) <= {here} and (fd is None or paths[""] == here) else 1)
        finally:
            os._exit(9)

    assert status_of(pidfd) == (os.CLD_EXITED, 0)
    os.close(pidfd)
    if fd is not None:
        os.close(fd)


def test_pids_limit_stops_a_fork(cgroup):
    assert cgroup.apply(Limits(pids_limit=1)) == []

    def work():
        try:
            os.fork()
        except BlockingIOError:
            return 42

    assert exit_of(cgroup, work) == 42


def test_memory_limit_kills_and_is_counted(cgroup):
    cgroup.apply(Limits(memory_limit_bytes=32 << 20))
    before = cgroup.oom_kill_count()

    with member(cgroup, lambda: bytearray(200 << 20)) as (_, pidfd):
        assert status_of(pidfd) == (os.CLD_KILLED, signal.SIGKILL)

    assert (before, cgroup.oom_kill_count()) == (0, 1)
    assert cgroup.stats().memory.limit_bytes == 32 << 20
    assert cgroup.stats().memory.max_usage_bytes > 16 << 20


def test_a_watch_wakes_when_memory_is_out(cgroup):
    cgroup.apply(Limits(memory_limit_bytes=32 << 20))

    with OomWatch(cgroup) as watch, member(cgroup, lambda: bytearray(200 << 20)) as (_, pidfd):
        status_of(pidfd)
        assert select.select([watch], [], [], 5)[0]
        assert watch.new_kills() == 1
        assert watch.new_kills() == 0
        assert not select.select([watch], [], [], 0)[0]


def test_memory_limits_can_be_raised_and_lowered(cgroup):
    for megabytes in (64, 512, 32):
        cgroup.apply(Limits(memory_limit_bytes=megabytes << 20, memory_swap_bytes=megabytes << 20))

        assert cgroup.stats().memory.limit_bytes == megabytes << 20


def test_cpu_quota_throttles(cgroup):
    cgroup.apply(Limits(nano_cpus=100_000_000, cpu_shares=512))

    def spin():
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass

    exit_of(cgroup, spin)

    cpu = cgroup.stats().cpu
    assert cpu.throttled_periods > 0
    assert 0 < cpu.total_ns < 300_000_000


def test_cpuset_binds_members(cgroup):
    if cgroup.apply(Limits(cpuset_cpus="0")):
        pytest.skip("no cpuset controller")

    assert exit_of(cgroup, lambda: 0 if os.sched_getaffinity(0) == {0} else 1) == 0


def test_a_bad_value_names_the_file(cgroup):
    with pytest.raises(OSError) as caught:
        cgroup.apply(Limits(cpuset_cpus="9999"))

    assert caught.value.filename.endswith("cpuset.cpus")


def test_freeze_and_thaw(cgroup):
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def tick():
        while True:
            os.write(writer, b"x")
            time.sleep(0.001)

    with member(cgroup, tick):
        assert select.select([reader], [], [], 5)[0]
        cgroup.freeze()
        assert cgroup.is_frozen()
        with contextlib.suppress(BlockingIOError):
            while os.read(reader, 65536):
                pass
        assert not select.select([reader], [], [], 0.05)[0]

        cgroup.thaw()

        assert select.select([reader], [], [], 5)[0]
    os.close(reader)
    os.close(writer)


def test_a_frozen_cgroup_can_be_killed(cgroup):
    with member(cgroup, signal.pause) as (_, pidfd):
        cgroup.freeze()
        cgroup.kill_nowait()
        reaper = threading.Thread(target=os.waitid, args=(os.P_PIDFD, pidfd, os.WEXITED))
        reaper.start()

        assert cgroup.kill()

        reaper.join()


def try_open(path, flags=os.O_RDONLY):
    def work():
        os.close(os.open(path, flags))

    return work


def test_device_rules_of_both_versions(cgroup, tmp_path):
    os.mknod(tmp_path / "disk", 0o60600, os.makedev(7, 0))
    rules = [DeviceRule("c", None, None, "m"), DeviceRule("c", 1, 3), DeviceRule("c", 1, 9, "r")]

    enforced = restrict(cgroup, rules)

    assert enforced
    if cgroup.host.mode is Mode.HYBRID:
        assert enforced == ["v1", "bpf"]
    assert exit_of(cgroup, try_open("/dev/null", os.O_RDWR)) == 0
    assert exit_of(cgroup, try_open("/dev/urandom")) == 0
    assert exit_of(cgroup, try_open("/dev/urandom", os.O_WRONLY)) == 1
    assert exit_of(cgroup, try_open("/dev/zero")) == 1
    assert exit_of(cgroup, try_open(tmp_path / "disk")) == 1
    assert exit_of(cgroup, lambda: os.mknod(tmp_path / "c", 0o20600, os.makedev(99, 1))) == 0
    assert exit_of(cgroup, lambda: os.mknod(tmp_path / "b", 0o60600, os.makedev(99, 1))) == 1


def test_the_bpf_program_alone_denies(cgroup):
    fd = cgroup.open_unified()
    if fd is None:
        pytest.skip("no v2 hierarchy")

    attach(fd, [DeviceRule("c", 1, 3)])
    os.close(fd)

    assert exit_of(cgroup, try_open("/dev/null")) == 0
    assert exit_of(cgroup, try_open("/dev/zero")) == 1


def test_privileged_rules_allow_everything(cgroup):
    restrict(cgroup, ALLOW_ALL)

    assert exit_of(cgroup, try_open("/dev/zero")) == 0


def test_v2_alone_kills_freezes_and_counts(v2_cgroup):
    def work():
        os.fork()
        while True:
            pass

    with member(v2_cgroup, work) as (pid, pidfd):
        deadline = time.monotonic() + 5
        while v2_cgroup.stats().cpu.total_ns < 10_000_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert pid in v2_cgroup.pids()
        v2_cgroup.freeze()
        assert v2_cgroup.is_frozen()
        used = v2_cgroup.stats().cpu.total_ns
        assert used >= 10_000_000
        time.sleep(0.02)
        assert v2_cgroup.stats().cpu.total_ns == used

        v2_cgroup.kill_nowait()

        assert status_of(pidfd) == (os.CLD_KILLED, signal.SIGKILL)
        assert v2_cgroup.kill()


def test_v2_says_which_limits_it_lacks(v2_cgroup):
    limits = Limits(memory_limit_bytes=1 << 30, oom_kill_disable=True, pids_limit=5)

    missing = v2_cgroup.apply(limits)

    lacking = {"memory", "pids"} - v2_cgroup.host.v2_controllers
    assert "OOM kill disable" in missing
    assert ("pids limit" in missing) == ("pids" in lacking)
    assert ("memory limit" in missing) == ("memory" in lacking)


def test_v2_device_rules(v2_cgroup):
    assert restrict(v2_cgroup, [DeviceRule("c", 1, 3)]) == ["bpf"]

    assert exit_of(v2_cgroup, try_open("/dev/null")) == 0
    assert exit_of(v2_cgroup, try_open("/dev/zero")) == 1
