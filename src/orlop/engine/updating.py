"""What `docker update` makes of a container's configuration; pure. Zero values mean "leave it"."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orlop.engine.lifecycle import NotPossible
from orlop.engine.requests import BlkioThrottle, BlkioWeight, HostConfig, UpdateRequest
from orlop.engine.resources import fix_swap
from orlop.engine.restart import check_policy

__all__ = ["updated"]

_PLAIN = (
    *("cpu_shares", "memory", "blkio_weight", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems"),
    *("memory_reservation", "memory_swap", "nano_cpus", "cpu_realtime_period", "cpu_realtime_runtime"),
)
_DEVICES = (
    *("blkio_weight_device", "blkio_device_read_bps", "blkio_device_write_bps"),
    *("blkio_device_read_iops", "blkio_device_write_iops"),
)


def updated(host: HostConfig, request: UpdateRequest) -> HostConfig:
    """The configuration with the values that were given.

    Raises:
        NotPossible: a value that goes ill with one already set, in dockerd's words.
    """
    _check_cpus(host, request)
    changes: dict[str, Any] = {name: getattr(request, name) for name in _PLAIN if getattr(request, name)}
    changes |= _memory(host, request)
    if request.pids_limit is not None:
        changes["pids_limit"] = request.pids_limit if request.pids_limit > 0 else -1
    for name in _DEVICES:
        wanted = getattr(request, name)
        if wanted:
            changes[name] = _merged(getattr(host, name) or (), wanted)
    if request.restart_policy.name:
        check_policy(request.restart_policy)
        if host.auto_remove and request.restart_policy.name != "no":
            raise NotPossible(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        changes["restart_policy"] = request.restart_policy
    return replace(host, **changes)


def _check_cpus(host: HostConfig, request: UpdateRequest) -> None:
    """`--cpus` is another way to say quota and period: whoever began with one stays with it."""
    for given, present, text in (
        (request.nano_cpus, host.cpu_period, "Nano CPUs cannot be updated as CPU Period"),
        (request.nano_cpus, host.cpu_quota, "Nano CPUs cannot be updated as CPU Quota"),
        (request.cpu_period, host.nano_cpus, "CPU Period cannot be updated as NanoCPUs"),
        (request.cpu_quota, host.nano_cpus, "CPU Quota cannot be updated as NanoCPUs"),
    ):
        if given > 0 and present > 0:
            raise NotPossible(f"Conflicting options: {text} has already been set")


def _memory(host: HostConfig, request: UpdateRequest) -> dict[str, Any]:
    if not request.memory or request.memory_swap:
        return {}
    if 0 < host.memory_swap < request.memory:
        raise NotPossible(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the "
            "same time"
        )
    # dockerd refuses a first limit without swap; we treat it as at create
    return {} if host.memory_swap else {"memory_swap": fix_swap(request.memory, 0)}


def _merged(
    present: tuple[BlkioWeight | BlkioThrottle, ...], wanted: tuple[BlkioWeight | BlkioThrottle, ...]
) -> tuple[BlkioWeight | BlkioThrottle, ...]:
    """By device; the others stay."""
    return tuple(({item.path: item for item in present} | {item.path: item for item in wanted}).values())
