"""Resource limits of a HostConfig: refused when impossible, left out with a warning when the kernel has none.

Pure. The texts are dockerd's: its tests, and the clients' users, know them. What is left out is left
out of the stored configuration too, so that inspect never shows a limit that is not in force.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.engine.requests import HostConfig, Ulimit
from orlop.kernel.cgroup_apply import parse_list
from orlop.kernel.cgroup_support import Support

__all__ = ["MIB", "ULIMITS", "check_ulimits", "fit_resources", "fix_swap"]

MIB = 1 << 20
_MIN_MEMORY = 6 * MIB
_MAX_CPU_LIST = 8192
_LIST = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*\Z", re.ASCII)
_PARENT = re.compile(r"/?[A-Za-z0-9_.:@-]{1,255}(/[A-Za-z0-9_.:@-]{1,255})*/?\Z", re.ASCII)
_LACKS = "Your kernel does not support"
_UNMOUNTED = "or the cgroup is not mounted."
ULIMITS = (
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)

Fitted = tuple[HostConfig, list[str]]


def fit_resources(host: HostConfig, support: Support, processors: int) -> Fitted:
    """The configuration with the limits that can be had, and warnings; for create and for update.

    Raises:
        InvalidInput: a limit that no kernel takes.
    """
    warnings: list[str] = []
    for fit in (_fit_memory, _fit_reservation, _fit_oom, _fit_pids):
        host, more = fit(host, support)
        warnings += more
    _check_cpus(host, processors, support)
    for fit in (_fit_cpu, _fit_cpuset, _fit_blkio, _fit_devices):
        host, more = fit(host, support)
        warnings += more
    _check_realtime(host, support)
    _check_parent(host.cgroup_parent)
    check_ulimits(host.ulimits or ())
    return host, warnings


def fix_swap(memory: int, swap: int) -> int:
    """Memory and swap together; Docker gives as much swap as memory."""
    return memory * 2 if memory > 0 and swap == 0 else swap


def _fit_memory(host: HostConfig, support: Support) -> Fitted:
    warnings = []
    if host.memory != 0 and host.memory < _MIN_MEMORY:
        raise InvalidInput("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and not support.memory_limit:
        warnings.append(f"{_LACKS} memory limit capabilities {_UNMOUNTED} Limitation discarded.")
        host = replace(host, memory=0, memory_swap=-1)
    if host.memory > 0 and host.memory_swap != -1 and not support.swap_limit:
        warnings.append(f"{_LACKS} swap limit capabilities {_UNMOUNTED} Memory limited without swap.")
        host = replace(host, memory_swap=-1)
    memory, swap = host.memory, host.memory_swap
    if memory > 0 and 0 < swap < memory:
        raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidInput("You should always set the Memory limit when using Memoryswap limit, see usage")
    swappiness = None if host.memory_swappiness == -1 else host.memory_swappiness
    if swappiness is not None and not support.memory_swappiness:
        warnings.append(f"{_LACKS} memory swappiness capabilities {_UNMOUNTED} Memory swappiness discarded.")
        swappiness = None
    if swappiness is not None and not 0 <= swappiness <= 100:
        raise InvalidInput(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    return replace(host, memory_swappiness=swappiness), warnings


def _fit_reservation(host: HostConfig, support: Support) -> Fitted:
    warnings = []
    if host.memory_reservation > 0 and not support.memory_reservation:
        warnings.append(f"{_LACKS} memory soft limit capabilities {_UNMOUNTED} Limitation discarded.")
        host = replace(host, memory_reservation=0)
    if host.memory_reservation != 0 and host.memory_reservation < _MIN_MEMORY:
        raise InvalidInput("Minimum memory reservation allowed is 6MB")
    if host.memory > 0 and host.memory_reservation > host.memory:
        raise InvalidInput("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.kernel_memory or host.kernel_memory_tcp:
        # gone from the kernel, and from the API since 1.42: a limit that is accepted there does nothing
        warnings.append(f"{_LACKS} kernel memory limit capabilities {_UNMOUNTED} Limitation discarded.")
        host = replace(host, kernel_memory=0, kernel_memory_tcp=0)
    return host, warnings


def _fit_oom(host: HostConfig, support: Support) -> Fitted:
    if not support.oom_kill_disable:
        said = [f"{_LACKS} OomKillDisable. OomKillDisable discarded."] if host.oom_kill_disable else []
        return replace(host, oom_kill_disable=None), said
    if host.oom_kill_disable and host.memory == 0:
        text = (
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the "
            "system running out of resources."
        )
        return host, [text]
    return host, []


def _fit_pids(host: HostConfig, support: Support) -> Fitted:
    if host.pids_limit is None or support.pids_limit:
        return host, []
    said = [f"{_LACKS} PIDs limit capabilities {_UNMOUNTED} PIDs limit discarded."]
    return replace(host, pids_limit=None), said if host.pids_limit > 0 else []


def _check_cpus(host: HostConfig, processors: int, support: Support) -> None:
    if host.nano_cpus > 0:
        if host.cpu_period > 0:
            raise InvalidInput("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if host.cpu_quota > 0:
            raise InvalidInput("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
        if not support.cpu_quota:
            raise InvalidInput(
                "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is "
                "not mounted"
            )
    if host.nano_cpus and not 0 < host.nano_cpus <= processors * 1_000_000_000:
        raise InvalidInput(
            f"range of CPUs is from 0.01 to {processors}.00, as there are only {processors} CPUs available"
        )


def _fit_cpu(host: HostConfig, support: Support) -> Fitted:
    warnings = []
    if host.cpu_shares < 0:
        raise InvalidInput(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_shares > 0 and not support.cpu_shares:
        warnings.append(f"{_LACKS} CPU shares {_UNMOUNTED} Shares discarded.")
        host = replace(host, cpu_shares=0)
    if (host.cpu_period or host.cpu_quota) and not support.cpu_quota:
        warnings.append(f"{_LACKS} CPU CFS scheduler. CPU period/quota discarded.")
        host = replace(host, cpu_period=0, cpu_quota=0)
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidInput(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1000:
        raise InvalidInput("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_percent > 0:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        host = replace(host, cpu_percent=0)
    return host, warnings


def _fit_cpuset(host: HostConfig, support: Support) -> Fitted:
    if (host.cpuset_cpus or host.cpuset_mems) and not support.cpuset:
        said = f"{_LACKS} cpuset {_UNMOUNTED} Cpuset discarded."
        return replace(host, cpuset_cpus="", cpuset_mems=""), [said]
    for value, there, word, noun in (
        (host.cpuset_cpus, support.cpus, "cpus", "CPUs"),
        (host.cpuset_mems, support.mems, "mems", "memory nodes"),
    ):
        if value and not _numbers(value, word) <= (_numbers(there, word) if there else _numbers(value, word)):
            raise InvalidInput(
                f"Requested {noun} are not available - requested {value[:100]}, available: {there}"
            )
    return host, []


def _numbers(text: str, word: str) -> frozenset[int]:
    prefix = f"Invalid value {text[:100]} for cpuset {word}: "
    if not _LIST.match(text):
        raise InvalidInput(f"{prefix}invalid format: {text[:100]}")
    if any(int(number) > _MAX_CPU_LIST for number in re.findall(r"[0-9]+", text)):
        raise InvalidInput(f"{prefix}value of out range, maximum is {_MAX_CPU_LIST}")
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if dash and int(first) > int(last):
            raise InvalidInput(f"{prefix}invalid format: {part}")
    return parse_list(text)


def _fit_blkio(host: HostConfig, support: Support) -> Fitted:
    warnings = []
    if host.blkio_weight > 0 and not support.blkio_weight:
        warnings.append(f"{_LACKS} Block I/O weight {_UNMOUNTED} Weight discarded.")
        host = replace(host, blkio_weight=0)
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidInput("Range of blkio weight is from 10 to 1000")
    if host.io_maximum_bandwidth or host.io_maximum_iops:
        raise InvalidInput(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps"
        )
    return host, warnings


def _fit_devices(host: HostConfig, support: Support) -> Fitted:
    warnings = []
    lost: dict[str, Any] = {}
    for name, has, what, noun in (
        ("blkio_weight_device", support.blkio_weight_device, "Block I/O weight_device", "Weight-device"),
        (
            "blkio_device_read_bps",
            support.blkio_read_bps,
            "BPS Block I/O read limit",
            "Block I/O BPS read limit",
        ),
        (
            "blkio_device_write_bps",
            support.blkio_write_bps,
            "BPS Block I/O write limit",
            "Block I/O BPS write limit",
        ),
        (
            "blkio_device_read_iops",
            support.blkio_read_iops,
            "IOPS Block read limit",
            "Block I/O IOPS read limit",
        ),
        (
            "blkio_device_write_iops",
            support.blkio_write_iops,
            "IOPS Block write limit",
            "Block I/O IOPS write limit",
        ),
    ):
        if getattr(host, name) and not has:
            warnings.append(f"{_LACKS} {what} {_UNMOUNTED} {noun} discarded.")
            lost[name] = ()
    host = replace(host, **lost)
    for weight in host.blkio_weight_device or ():
        if not 10 <= weight.weight <= 1000:
            raise InvalidInput(f"invalid weight for device: {weight.path[:100]}:{weight.weight}")
    _check_rates(host)
    return host, warnings


def _check_rates(host: HostConfig) -> None:
    for throttles in (
        host.blkio_device_read_bps,
        host.blkio_device_write_bps,
        host.blkio_device_read_iops,
        host.blkio_device_write_iops,
    ):
        for item in throttles or ():
            if not 0 <= item.rate < 1 << 64:
                raise InvalidInput(f"invalid rate for device: {item.path[:100]}:{item.rate}")


def _check_realtime(host: HostConfig, support: Support) -> None:
    period, runtime = host.cpu_realtime_period, host.cpu_realtime_runtime
    if (period or runtime) and not support.cpu_realtime:
        raise InvalidInput("Your kernel does not support CPU real-time scheduler")
    if period < 0 or runtime < 0:
        raise InvalidInput("cpu real-time period and runtime cannot be negative")
    if period and runtime > period:
        raise InvalidInput("cpu real-time runtime cannot be higher than cpu real-time period")


def _check_parent(parent: str) -> None:
    words = parent.strip("/").split("/")
    if parent and (
        not _PARENT.match(parent) or any(word in (".", "..") or word.startswith("cgroup.") for word in words)
    ):
        raise InvalidInput(
            f"invalid cgroup parent {parent[:100]!r}", hint="name a path below the root of the hierarchy"
        )


def check_ulimits(ulimits: Iterable[Ulimit]) -> None:
    """Refuse limits that setrlimit(2) cannot have; -1 is unlimited."""
    for item in ulimits:
        name = item.name.lower().removeprefix("rlimit_")
        if name not in ULIMITS:
            raise InvalidInput(f"invalid ulimit type: {item.name[:60]}")
        if item.soft < -1 or item.hard < -1:
            raise InvalidInput(f"invalid ulimit value: {name}={item.soft}:{item.hard}")
        if item.hard != -1 and (item.soft == -1 or item.soft > item.hard):
            raise InvalidInput(
                f"ulimit soft limit must be less than or equal to hard limit: {item.soft} > {item.hard}"
            )
