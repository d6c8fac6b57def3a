"""Limits at create: dockerd's words for what is impossible, and for what the kernel lacks."""

from dataclasses import replace

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.requests import BlkioThrottle, BlkioWeight, HostConfig, Ulimit
from orlop.engine.resources import fit_resources
from orlop.engine.support_warnings import support_warnings
from orlop.kernel.cgroup_support import Support

MIB = 1 << 20
FULL = Support(cpus="0-3", mems="0")
ALL = (
    *("memory_limit", "memory_reservation", "swap_limit", "memory_swappiness", "oom_kill_disable"),
    *("kernel_memory_tcp", "cpu_shares", "cpu_quota", "cpu_realtime", "cpuset", "pids_limit"),
    *("blkio_weight", "blkio_weight_device", "blkio_read_bps", "blkio_write_bps"),
    *("blkio_read_iops", "blkio_write_iops"),
)
NOTHING = replace(Support(), **dict.fromkeys(ALL, False))
LIMITED = HostConfig(
    memory=64 * MIB,
    memory_reservation=32 * MIB,
    memory_swappiness=5,
    oom_kill_disable=True,
    cpu_shares=512,
    cpu_quota=50_000,
    cpuset_cpus="0-1",
    pids_limit=9,
    blkio_weight=300,
    blkio_weight_device=(BlkioWeight("/dev/x", 300),),
    blkio_device_read_bps=(BlkioThrottle("/dev/x", 1),),
    blkio_device_write_bps=(BlkioThrottle("/dev/x", 1),),
    blkio_device_read_iops=(BlkioThrottle("/dev/x", 1),),
    blkio_device_write_iops=(BlkioThrottle("/dev/x", 1),),
)


def fit(host, support=FULL):
    return fit_resources(host, support, processors=4)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"memory": 1}, "Minimum memory limit allowed is 6MB"),
        ({"memory": -1}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory": 8 * MIB, "memory_swap": 7 * MIB},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_swap": 8 * MIB},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            {"memory": 8 * MIB, "memory_reservation": 9 * MIB},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ({"memory_reservation": 1}, "Minimum memory reservation allowed is 6MB"),
        ({"memory_swappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"nano_cpus": -1}, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
        ({"nano_cpus": 4_000_000_001}, "range of CPUs is from 0.01 to 4.00"),
        (
            {"nano_cpus": 1, "cpu_period": 5},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        ({"nano_cpus": 1, "cpu_quota": 5}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        ({"cpu_period": 999}, "CPU cfs period can not be less than 1ms .i.e. 1000. or larger than 1s"),
        ({"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms"),
        ({"cpu_shares": -1}, "value must be a positive integer"),
        ({"cpuset_cpus": "0-9"}, "Requested CPUs are not available - requested 0-9, available: 0-3"),
        ({"cpuset_mems": "7"}, "Requested memory nodes are not available - requested 7, available: 0"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        ({"cpuset_cpus": "1-0"}, "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
        ({"cpuset_cpus": "0,,1"}, "invalid format: 0,,1"),
        ({"cpuset_cpus": "0-99999999"}, "value of out range, maximum is 8192"),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"blkio_weight_device": (BlkioWeight("/dev/x", 5),)}, "invalid weight for device: /dev/x:5"),
        ({"blkio_device_read_bps": (BlkioThrottle("/dev/x", -5),)}, "invalid rate for device: /dev/x:-5"),
        ({"io_maximum_iops": 1}, "linux does not support Maximum IO Bandwidth or Maximum IO IOps"),
        (
            {"cpu_realtime_runtime": 6, "cpu_realtime_period": 5},
            "runtime cannot be higher than cpu real-time",
        ),
        ({"cgroup_parent": "../../up"}, "invalid cgroup parent"),
        ({"cgroup_parent": "a/cgroup.procs"}, "invalid cgroup parent"),
        ({"ulimits": (Ulimit("bad", 1, 1),)}, "invalid ulimit type: bad"),
        (
            {"ulimits": (Ulimit("nofile", 1, 5),)},
            "ulimit soft limit must be less than or equal to hard limit: 5 > 1",
        ),
    ],
)
def test_impossible_limits_are_refused_with_dockerd_s_words(limits, text):
    with pytest.raises(InvalidInput, match=text):
        fit(HostConfig(**limits))


def test_what_the_kernel_has_is_kept_without_a_word():
    host, warnings = fit(LIMITED)

    assert (host, warnings) == (LIMITED, [])


def test_what_the_kernel_lacks_is_left_out_and_said():
    host, warnings = fit(LIMITED, NOTHING)

    assert (host.memory, host.memory_swap, host.memory_reservation) == (0, -1, 0)
    assert (host.memory_swappiness, host.oom_kill_disable, host.pids_limit) == (None, None, None)
    assert (host.cpu_shares, host.cpu_quota, host.cpuset_cpus, host.blkio_weight) == (0, 0, "", 0)
    assert host.blkio_weight_device == host.blkio_device_read_bps == host.blkio_device_write_iops == ()
    assert len(warnings) == 14
    assert all(text.startswith("Your kernel does not support ") for text in warnings)
    assert all("discarded." in text for text in warnings)


def test_cpus_without_a_quota_in_the_kernel_are_an_error():
    with pytest.raises(InvalidInput, match="NanoCPUs can not be set"):
        fit(HostConfig(nano_cpus=1), NOTHING)


def test_memory_without_swap_accounting_is_limited_alone():
    host, warnings = fit(HostConfig(memory=64 * MIB), replace(FULL, swap_limit=False))

    assert (host.memory, host.memory_swap) == (64 * MIB, -1)
    assert "swap limit capabilities" in warnings[0]
    assert warnings[0].endswith("Memory limited without swap.")


def test_an_oom_killer_off_without_a_limit_is_warned_of():
    assert "OOM killer is disabled" in fit(HostConfig(oom_kill_disable=True))[1][0]


def test_kernel_memory_is_never_in_force():
    host, warnings = fit(HostConfig(kernel_memory=50 * MIB))

    assert host.kernel_memory == 0
    assert "kernel memory limit" in warnings[0]


def test_a_host_with_everything_has_nothing_to_warn_of():
    assert support_warnings(Support()) == ()


def test_info_warns_of_each_missing_limit_in_the_words_of_the_version():
    on_v1 = support_warnings(replace(NOTHING, version=1))
    on_v2 = support_warnings(NOTHING)

    assert "WARNING: No blkio throttle.read_bps_device support" in on_v1
    assert "WARNING: No oom kill disable support" in on_v1
    assert not any("io.weight" in text for text in on_v1)
    assert "WARNING: No io.max (rbps) support" in on_v2
    assert "WARNING: No io.weight (per device) support" in on_v2
    assert not any("oom kill disable" in text for text in on_v2)
