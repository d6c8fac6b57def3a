from orlop.cli.stats_verb import row

STATS = {
    "id": "a" * 64,
    "name": "/web",
    "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
    "memory_stats": {"usage": 3 << 20, "limit": 8 << 20, "stats": {"inactive_file": 1 << 20}},
    "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}, "eth1": {"rx_bytes": 1, "tx_bytes": 0}},
    "blkio_stats": {
        "io_service_bytes_recursive": [{"op": "read", "value": 4096}, {"op": "Write", "value": 8192}]
    },
    "pids_stats": {"current": 4},
}


def test_the_figures_are_docker_s():
    assert row(STATS, "web", is_cut=True) == {
        "Container": "web",
        "ID": "a" * 12,
        "Name": "web",
        "CPUPerc": "40.00%",
        "MemUsage": "2MiB / 8MiB",
        "MemPerc": "25.00%",
        "NetIO": "1kB / 2kB",
        "BlockIO": "4.1kB / 8.19kB",
        "PIDs": "4",
    }


def test_a_container_that_does_not_run_uses_nothing():
    stopped = row({"id": "b" * 64, "name": "/x", "memory_stats": {}}, "x", is_cut=False)

    assert (stopped["CPUPerc"], stopped["MemPerc"], stopped["PIDs"]) == ("0.00%", "0.00%", "0")
