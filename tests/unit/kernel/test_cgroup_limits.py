import pytest

from orlop.kernel.cgroup_limits import Limits, io_weight_of, v1_writes, v2_writes, weight_of_shares


def files(writes):
    return {write.file: write.value for write in writes}


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (2, 1), (512, 59), (1024, 100), (2048, 174), (262144, 10000), (1 << 30, 10000)],
)
def test_shares_become_weights_as_in_runc(shares, weight):
    assert weight_of_shares(shares) == weight


@pytest.mark.parametrize(("blkio", "weight"), [(10, 1), (500, 4950), (1000, 10000)])
def test_blkio_weight_becomes_io_weight(blkio, weight):
    assert io_weight_of(blkio) == weight


def test_no_limits_write_nothing():
    assert v1_writes(Limits()) == v2_writes(Limits()) == []


def test_memory_alone_limits_swap_to_as_much_again():
    limits = Limits(memory_limit_bytes=100)

    assert files(v1_writes(limits)) == {"memory.limit_in_bytes": "100", "memory.memsw.limit_in_bytes": "200"}
    assert files(v2_writes(limits)) == {"memory.max": "100", "memory.swap.max": "100"}


@pytest.mark.parametrize(("swap", "v1", "v2"), [(-1, "-1", "max"), (100, "100", "0"), (150, "150", "50")])
def test_memory_and_swap(swap, v1, v2):
    limits = Limits(memory_limit_bytes=100, memory_swap_bytes=swap)

    assert files(v1_writes(limits))["memory.memsw.limit_in_bytes"] == v1
    assert files(v2_writes(limits))["memory.swap.max"] == v2


def test_nano_cpus_are_a_quota_of_the_default_period():
    limits = Limits(nano_cpus=1_500_000_000)

    assert files(v1_writes(limits)) == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}
    assert files(v2_writes(limits)) == {"cpu.max": "150000 100000"}


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [(-1, 0, "max 100000"), (5000, 10000, "5000 10000"), (0, 10000, "max 10000")],
)
def test_quota_and_period_on_v2(quota, period, expected):
    assert files(v2_writes(Limits(cpu_quota_us=quota, cpu_period_us=period))) == {"cpu.max": expected}


@pytest.mark.parametrize(("limit", "value"), [(-1, "max"), (7, "7")])
def test_pids(limit, value):
    limits = Limits(pids_limit=limit)

    assert files(v1_writes(limits)) == files(v2_writes(limits)) == {"pids.max": value}


def test_the_rest():
    limits = Limits(
        memory_reservation_bytes=9, cpu_shares=1024, cpuset_cpus="0-1", cpuset_mems="0", blkio_weight=500
    )

    assert files(v1_writes(limits)) == {
        "memory.soft_limit_in_bytes": "9",
        "cpu.shares": "1024",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "blkio.weight": "500",
    }
    assert files(v2_writes(limits)) == {
        "memory.low": "9",
        "cpu.weight": "100",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "io.bfq.weight": "500",
    }
