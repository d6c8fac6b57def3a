"""`linux.resources` as writes to control files, and as rules of the device filter. Pure.

Spec: OCI runtime-spec 1.2, config-linux.md, "Control groups". On the unified hierarchy the values
become those of v2 as runc converts them; `unified` is written last and as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from orlop.bundle.config_linux import CgroupDeviceRule, Resources
from orlop.bundle.refusal import Unsupported
from orlop.kernel.cgroup_limits import Write, io_weight_of, weight_of_shares
from orlop.kernel.devicefilter import ALLOW_ALL, DeviceRule, parse_rule
from orlop.runtime import defaults

__all__ = ["device_rules", "resource_writes"]

_DEFAULT_PERIOD_US = 100_000
_V1_IO = {
    "weightDevice": "blkio.weight_device",
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}
_V2_IO = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


def resource_writes(resources: Resources, *, is_v2: bool) -> list[Write]:
    """What to write where, in an order that suits a fresh cgroup."""
    writes = _v2(resources) if is_v2 else _v1(resources)
    if resources.unified and not is_v2:
        raise Unsupported(
            "resources.unified needs the unified cgroup hierarchy, which this host does not use"
        )
    writes += [
        Write(name.split(".")[0], name, value, f"unified {name}") for name, value in resources.unified.items()
    ]
    return writes


def _v1(limits: Resources) -> list[Write]:
    swap = limits.memory_swap
    oom = 1 if limits.disable_oom_killer else None
    writes = _given(
        ("memory", "memory.limit_in_bytes", limits.memory_limit or None),
        ("memory", "memory.memsw.limit_in_bytes", swap or None),
        ("memory", "memory.soft_limit_in_bytes", limits.memory_reservation or None),
        ("memory", "memory.swappiness", limits.memory_swappiness),
        ("memory", "memory.oom_control", oom),
        ("cpu", "cpu.idle", limits.cpu_idle),
        ("cpu", "cpu.shares", None if limits.cpu_idle == 1 else limits.cpu_shares or None),
        ("cpu", "cpu.cfs_period_us", limits.cpu_period or None),
        ("cpu", "cpu.cfs_burst_us", limits.cpu_burst or None),
        ("cpu", "cpu.cfs_quota_us", limits.cpu_quota or None),
        ("cpu", "cpu.rt_period_us", limits.cpu_realtime_period or None),
        ("cpu", "cpu.rt_runtime_us", limits.cpu_realtime_runtime or None),
        ("cpuset", "cpuset.cpus", limits.cpus or None),
        ("cpuset", "cpuset.mems", limits.mems or None),
        ("pids", "pids.max", _pids(limits)),
        ("blkio", "blkio.leaf_weight", limits.block_io_leaf_weight or None),
        ("net_cls", "net_cls.classid", limits.network_class_id or None),
    )
    if limits.block_io_weight:
        text = str(limits.block_io_weight)
        instead = ("blkio.bfq.weight", text)
        writes.append(Write("blkio", "blkio.weight", text, "blkio weight", instead))
    writes += [
        Write("blkio", _V1_IO[key], f"{item.major}:{item.minor} {item.value}", key)
        for key, items in limits.block_io_limits.items()
        for item in items
    ]
    writes += [
        Write("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit), f"huge pages of {size}")
        for size, limit in limits.huge_pages.items()
    ]
    writes += [
        Write("net_prio", "net_prio.ifpriomap", f"{name} {value}", "network priority")
        for name, value in limits.network_priorities.items()
    ]
    return writes + _rdma(limits)


def _v2(limits: Resources) -> list[Write]:
    quota, period = limits.cpu_quota or 0, limits.cpu_period or 0
    cpu_max = f"{quota if quota > 0 else 'max'} {period or _DEFAULT_PERIOD_US}" if quota or period else None
    shares = limits.cpu_shares
    weight = limits.block_io_weight
    writes = _given(
        ("memory", "memory.swap.max", _v2_swap(limits)),
        ("memory", "memory.max", _or_max(limits.memory_limit)),
        ("memory", "memory.low", _or_max(limits.memory_reservation)),
        ("cpu", "cpu.idle", limits.cpu_idle),
        ("cpu", "cpu.weight", weight_of_shares(shares) if shares and limits.cpu_idle != 1 else None),
        ("cpu", "cpu.max", cpu_max),
        ("cpu", "cpu.max.burst", limits.cpu_burst or None),
        ("cpuset", "cpuset.cpus", limits.cpus or None),
        ("cpuset", "cpuset.mems", limits.mems or None),
        ("pids", "pids.max", _pids(limits)),
    )
    if weight:
        text = str(weight)
        instead = ("io.weight", f"default {io_weight_of(weight)}")
        writes.append(Write("io", "io.bfq.weight", text, "io weight", instead))
    for key, items in limits.block_io_limits.items():
        for item in items:
            place = f"{item.major}:{item.minor}"
            if key in _V2_IO:
                writes.append(Write("io", "io.max", f"{place} {_V2_IO[key]}={item.value or 'max'}", key))
            else:
                writes.append(Write("io", "io.bfq.weight", f"{place} {item.value}", key))
    for size, limit in limits.huge_pages.items():
        writes.append(Write("hugetlb", f"hugetlb.{size}.max", str(limit), f"huge pages of {size}"))
    return writes + _rdma(limits)


def _rdma(limits: Resources) -> list[Write]:
    writes = []
    for name, (handles, objects) in limits.rdma.items():
        words = [f"hca_handle={'max' if handles is None else handles}"]
        words.append(f"hca_object={'max' if objects is None else objects}")
        writes.append(Write("rdma", "rdma.max", f"{name} {' '.join(words)}", "rdma"))
    return writes


def _v2_swap(limits: Resources) -> str | None:
    """v1 counts memory and swap together, v2 swap alone."""
    swap, memory = limits.memory_swap, limits.memory_limit
    if swap is None or swap == 0:
        return None
    if swap < 0:
        return "max"
    if not memory or memory < 0 or swap < memory:
        raise Unsupported("memory.swap needs a memory.limit below it: it counts memory plus swap")
    return str(swap - memory)


def _pids(limits: Resources) -> str | None:
    value = limits.pids_limit
    if value is None or value == 0:
        return None
    return _or_max(value)


def _or_max(value: int | None) -> str | None:
    if not value:
        return None
    return "max" if value < 0 else str(value)


def _given(*rows: tuple[str, str, int | str | None]) -> list[Write]:
    return [
        Write(controller, file, str(value), file) for controller, file, value in rows if value is not None
    ]


def device_rules(rules: Sequence[CgroupDeviceRule]) -> tuple[DeviceRule, ...]:
    """The rules in their order as a list of what is allowed, with what every container needs.

    Raises:
        Unsupported: a rule takes away a part of what an earlier, wider one allows.
    """
    allowed: list[DeviceRule] = []
    for rule in rules:
        if rule.is_allowed:
            allowed.append(DeviceRule(rule.kind, rule.major, rule.minor, rule.access))
        else:
            allowed = _without(allowed, rule)
    if any(rule.kind == "a" and rule.major is None and rule.minor is None for rule in allowed):
        return ALLOW_ALL
    own = [parse_rule(text) for text in defaults.DEVICE_RULES]
    return (*own, *(item for rule in allowed for item in _by_kind(rule)))


def _by_kind(rule: DeviceRule) -> list[DeviceRule]:
    """Any kind, but with numbers: the v1 controller would take the numbers for nothing."""
    if rule.kind != "a":
        return [rule]
    return [DeviceRule(kind, rule.major, rule.minor, rule.access) for kind in "cb"]


def _without(allowed: list[DeviceRule], denied: CgroupDeviceRule) -> list[DeviceRule]:
    kept = []
    for rule in allowed:
        overlaps = (
            (denied.kind in ("a", rule.kind) or rule.kind == "a")
            and (None in (denied.major, rule.major) or denied.major == rule.major)
            and (None in (denied.minor, rule.minor) or denied.minor == rule.minor)
        )
        if not overlaps:
            kept.append(rule)
            continue
        covers = (
            denied.kind in ("a", rule.kind)
            and denied.major in (None, rule.major)
            and denied.minor in (None, rule.minor)
        )
        rest = "".join(letter for letter in rule.access if letter not in denied.access)
        if not covers and rest != rule.access:
            raise Unsupported(f"a device rule denies a part of {rule}, which an earlier one allows")
        if rest:
            kept.append(DeviceRule(rule.kind, rule.major, rule.minor, rest))
    return kept
