"""What `docker info` warns of: limits that the kernel of this host cannot set. Pure; dockerd's texts."""

from __future__ import annotations

from orlop.kernel.cgroup_support import Support

__all__ = ["support_warnings"]


def support_warnings(support: Support) -> tuple[str, ...]:
    """One line per missing limit, in dockerd's order.

    What no kernel of that cgroup version has is no news and is not told: OomKillDisable on version 2,
    weights on version 1 (their scheduler is gone since Linux 5.0).
    """
    is_v2 = support.version == 2
    rows = (
        (support.memory_limit, "memory limit"),
        (support.swap_limit, "swap limit"),
        (support.kernel_memory_tcp or is_v2, "kernel memory TCP limit"),
        (support.oom_kill_disable or is_v2, "oom kill disable"),
        (support.cpu_quota, "cpu cfs quota"),
        (support.cpu_quota, "cpu cfs period"),
        (support.cpu_shares, "cpu shares"),
        (support.cpuset, "cpuset"),
        (support.pids_limit, "pids limit"),
        (support.blkio_weight or not is_v2, "io.weight"),
        (support.blkio_weight_device or not is_v2, "io.weight (per device)"),
        (support.blkio_read_bps, "io.max (rbps)" if is_v2 else "blkio throttle.read_bps_device"),
        (support.blkio_write_bps, "io.max (wbps)" if is_v2 else "blkio throttle.write_bps_device"),
        (support.blkio_read_iops, "io.max (riops)" if is_v2 else "blkio throttle.read_iops_device"),
        (support.blkio_write_iops, "io.max (wiops)" if is_v2 else "blkio throttle.write_iops_device"),
    )
    return tuple(f"WARNING: No {what} support" for has, what in rows if not has)
