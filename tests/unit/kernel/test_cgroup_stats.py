from orlop.kernel.cgroup_stats import IoEntry, MemoryStats, host_memory_bytes, v1_stats, v2_stats

V1 = {
    "cpu.stat": "nr_periods 10\nnr_throttled 3\nthrottled_time 4000\n",
    "cpuacct.stat": "user 2\nsystem 1\n",
    "cpuacct.usage": "32000000\n",
    "cpuacct.usage_percpu": "12000000 20000000 \n",
    "memory.usage_in_bytes": "1000\n",
    "memory.max_usage_in_bytes": "2000\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.failcnt": "5\n",
    "memory.stat": "cache 1\ntotal_inactive_file 300\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "pids.current": "3\n",
    "pids.max": "max\n",
    "blkio.throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n",
}
V2 = {
    "cpu.stat": "usage_usec 32\nuser_usec 20\nsystem_usec 12\nnr_periods 1\nnr_throttled 1\nthrottled_usec 7\n",
    "memory.current": "1000\n",
    "memory.peak": "1500\n",
    "memory.max": "4096\n",
    "memory.stat": "anon 5\ninactive_file 2000\n",
    "memory.events": "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n",
    "pids.current": "2\n",
    "pids.max": "100\n",
    "io.stat": "254:0 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0\n253:1\n",
}


def reader(files):
    return lambda _controller, file: files.get(file, "")


def test_v1_reading():
    stats = v1_stats(reader(V1))

    assert (stats.cpu.total_ns, stats.cpu.user_ns, stats.cpu.system_ns) == (
        32_000_000,
        20_000_000,
        10_000_000,
    )
    assert stats.cpu.percpu_ns == (12_000_000, 20_000_000)
    assert (stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled_ns) == (10, 3, 4000)
    assert stats.memory.working_set_bytes == 700
    assert stats.memory.limit_bytes == host_memory_bytes()
    assert (stats.pids.current, stats.pids.limit) == (3, 0)
    assert stats.io_bytes == (IoEntry(8, 0, "Read", 4096), IoEntry(8, 0, "Write", 0))
    assert stats.oom_kill_count == 2


def test_v2_reading():
    stats = v2_stats(reader(V2))

    assert (stats.cpu.total_ns, stats.cpu.user_ns, stats.cpu.throttled_ns) == (32_000, 20_000, 7_000)
    assert (stats.memory.usage_bytes, stats.memory.max_usage_bytes, stats.memory.limit_bytes) == (
        1000,
        1500,
        4096,
    )
    assert stats.memory.working_set_bytes == 1000  # cache larger than usage: nothing to take off
    assert IoEntry(254, 0, "Write", 1024) in stats.io_bytes
    assert IoEntry(254, 0, "Read", 1) in stats.io_count
    assert (stats.oom_kill_count, stats.memory.failure_count, stats.pids.limit) == (1, 4, 100)


def test_a_host_without_controllers_reads_zeros():
    for read in (v1_stats, v2_stats):
        stats = read(reader({}))
        assert stats.cpu.total_ns == stats.pids.current == stats.oom_kill_count == 0
        assert stats.memory == MemoryStats(limit_bytes=host_memory_bytes())
