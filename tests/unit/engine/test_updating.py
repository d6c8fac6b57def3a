"""`docker update`: what is given replaces, what is not stays, and what contradicts is refused."""

import pytest

from orlop.engine.lifecycle import NotPossible
from orlop.engine.requests import BlkioThrottle, HostConfig, RestartPolicy, UpdateRequest
from orlop.engine.updating import updated

MIB = 1 << 20


@pytest.mark.parametrize(
    ("host", "request_", "text"),
    [
        (
            HostConfig(cpu_period=9),
            UpdateRequest(nano_cpus=1),
            "Nano CPUs cannot be updated as CPU Period has",
        ),
        (HostConfig(cpu_quota=9), UpdateRequest(nano_cpus=1), "Nano CPUs cannot be updated as CPU Quota has"),
        (
            HostConfig(nano_cpus=1),
            UpdateRequest(cpu_period=9),
            "CPU Period cannot be updated as NanoCPUs has",
        ),
        (HostConfig(nano_cpus=1), UpdateRequest(cpu_quota=9), "CPU Quota cannot be updated as NanoCPUs has"),
        (
            HostConfig(memory=8 * MIB, memory_swap=16 * MIB),
            UpdateRequest(memory=32 * MIB),
            "Memory limit should be smaller than already set memoryswap limit",
        ),
        (
            HostConfig(auto_remove=True),
            UpdateRequest(restart_policy=RestartPolicy("always")),
            "because AutoRemove is enabled",
        ),
    ],
)
def test_contradictions_are_refused(host, request_, text):
    with pytest.raises(NotPossible, match=text):
        updated(host, request_)


def test_zero_leaves_a_value_alone():
    host = HostConfig(memory=8 * MIB, cpu_shares=5, cpuset_cpus="1", pids_limit=7)

    assert updated(host, UpdateRequest()) == host


def test_memory_and_swap_grow_together():
    host = HostConfig(memory=8 * MIB, memory_swap=16 * MIB)

    assert updated(host, UpdateRequest(memory=32 * MIB, memory_swap=-1)).memory_swap == -1
    assert updated(host, UpdateRequest(memory=12 * MIB)).memory_swap == 16 * MIB


def test_a_first_memory_limit_brings_as_much_swap():
    assert updated(HostConfig(), UpdateRequest(memory=8 * MIB)).memory_swap == 16 * MIB


@pytest.mark.parametrize(("given", "kept"), [(5, 5), (0, -1), (-1, -1), (None, 7)])
def test_the_pids_limit_can_be_lifted(given, kept):
    assert updated(HostConfig(pids_limit=7), UpdateRequest(pids_limit=given)).pids_limit == kept


def test_rates_of_devices_are_replaced_by_device():
    host = HostConfig(blkio_device_read_bps=(BlkioThrottle("/dev/a", 1), BlkioThrottle("/dev/b", 2)))

    after = updated(host, UpdateRequest(blkio_device_read_bps=(BlkioThrottle("/dev/b", 3),)))

    assert after.blkio_device_read_bps == (BlkioThrottle("/dev/a", 1), BlkioThrottle("/dev/b", 3))
