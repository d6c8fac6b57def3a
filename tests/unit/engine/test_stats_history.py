"""The ring of readings: bounded, oldest first, with what was used between two of them."""

from orlop.engine.stats_history import CAPACITY, Ring
from orlop.runtime.contract import Stats

SECOND = 1_000_000_000


def reading(number, **facts):
    return Stats(read_at_ns=number * SECOND, cpu_total_ns=number * SECOND // 2, **facts)


def test_a_sample_has_what_docker_stats_shows():
    ring = Ring()
    ring.add(
        reading(
            60,
            memory_usage_bytes=100,
            memory_limit_bytes=500,
            memory_detail={"inactive_file": 40},
            pids_current=3,
            networks={"eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 1}},
            blkio=((8, 0, "Read", 7), (8, 0, "Write", 8), (8, 16, "read", 1)),
        )
    )

    (sample,) = ring.samples()

    assert sample.read == "1970-01-01T00:01:00Z"
    assert (sample.memory_bytes, sample.memory_limit_bytes, sample.pids) == (60, 500, 3)
    assert (sample.network_received_bytes, sample.network_sent_bytes) == (6, 6)
    assert (sample.block_read_bytes, sample.block_written_bytes) == (8, 8)


def test_processor_time_is_a_share_of_the_time_between_two_samples():
    ring = Ring()
    for number in (10, 20):
        ring.add(reading(number))
    ring.add(Stats(read_at_ns=30 * SECOND, cpu_total_ns=1))  # started anew

    assert [sample.cpu_percent for sample in ring.samples()] == [0.0, 50.0, 0.0]


def test_the_oldest_go_when_the_ring_is_full():
    ring = Ring(capacity=3)
    for number in range(1, 6):
        ring.add(reading(number, pids_current=number))

    assert [sample.pids for sample in ring.samples()] == [3, 4, 5]
    assert CAPACITY <= 1000
