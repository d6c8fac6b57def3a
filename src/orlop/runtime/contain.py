"""What surrounds a container's processes: the cgroup, the device filter, the check after the start."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from orlop.base import log
from orlop.kernel import devicefilter
from orlop.kernel.cgroup import Cgroup, Host, Mode
from orlop.kernel.cgroup_limits import Limits
from orlop.kernel.devicefilter import DeviceRule
from orlop.runtime import defaults
from orlop.runtime.plan import plan_process, warm_up
from orlop.runtime.spec import ContainerSpec, DeviceSpec, ResourceSpec

__all__ = [
    "apply_limits",
    "cgroup_of",
    "create",
    "destroy",
    "exec_failure_text",
    "limit",
    "start_failure_text",
    "verify",
    "warm_up",
]

_DEFAULT_PARENT = "orlop"
# The words in front of runc's own are those of dockerd and containerd: clients match on their end.
_START_PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: error during container init: "
)
_EXEC_PREFIX = "OCI runtime exec failed: exec failed: unable to start container process: "


def cgroup_of(spec: ContainerSpec, host: Host) -> Cgroup:
    """The container's cgroup; its name carries the container's id."""
    parent = spec.cgroup_parent.strip("/") or _DEFAULT_PARENT
    return Cgroup(f"{parent}/{spec.id}", host)


def create(cgroup: Cgroup) -> int | None:
    """Make the cgroup; returns its directory in the unified hierarchy, if there is one, as an fd."""
    if cgroup.host.mode is Mode.NONE:
        return None
    cgroup.create()
    return cgroup.open_unified()


def limit(cgroup: Cgroup, spec: ContainerSpec) -> None:
    """Set limits and device filter, before any instruction of the user's runs in it (I20)."""
    if cgroup.host.mode is Mode.NONE:
        return
    apply_limits(cgroup, spec.resources)
    rules = devicefilter.ALLOW_ALL if spec.is_privileged else _rules(spec)
    devicefilter.restrict(cgroup, rules)


def apply_limits(cgroup: Cgroup, resources: ResourceSpec) -> None:
    """Set limits; what the host's kernel lacks is named in the supervisor's log."""
    missing = cgroup.apply(Limits(**dataclasses.asdict(resources)))
    if missing:
        log.warning("limits not supported by this kernel", cgroup=cgroup.path, limits=",".join(missing))


def destroy(cgroup: Cgroup) -> None:
    """Kill what is left and remove the cgroup; a stubborn rest is logged and left to the sweeper."""
    if cgroup.host.mode is Mode.NONE:
        return
    with contextlib.suppress(FileNotFoundError):
        if cgroup.pids():
            cgroup.kill()
    try:
        cgroup.destroy()
    except OSError as error:
        log.warning("cgroup not removed", cgroup=cgroup.path, error=error)


def verify(pid: int, spec: ContainerSpec) -> str:
    """Read back the confinement of the running first process: "" or what is wrong (I21)."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read().decode("ascii", "replace")
    except OSError:
        return ""  # ended already
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    plan = plan_process(spec.process, is_privileged=spec.is_privileged)
    expected = {
        "CapBnd": plan.capabilities,
        "CapInh": 0,
        "CapAmb": 0,
    }
    for name, value in expected.items():
        if name in status and int(status[name], 16) != value:
            return f"{name} is {status[name]}, not {value:016x}"
    if int(status.get("CapEff", "0"), 16) & ~plan.capabilities:
        return f"CapEff is {status['CapEff']}"
    if plan.filter is not None and status.get("Seccomp", "2") != "2":
        return "no seccomp filter is in force"
    if plan.no_new_privileges and status.get("NoNewPrivs", "1") != "1":
        return "no-new-privileges is off"
    return ""


def start_failure_text(failure: dict[str, Any]) -> str:
    """A failed start in Docker's words; a user that does not exist is told without them."""
    message = str(failure.get("message", "unknown"))
    return message if failure.get("step") == "user" else f"{_START_PREFIX}{message}: unknown"


def exec_failure_text(failure: dict[str, Any]) -> str:
    """A failed exec in Docker's words."""
    message = str(failure.get("message", "unknown"))
    return message if failure.get("step") == "user" else f"{_EXEC_PREFIX}{message}: unknown"


def _rules(spec: ContainerSpec) -> list[DeviceRule]:
    return [
        *map(devicefilter.parse_rule, defaults.DEVICE_RULES),
        *(_rule_of(device) for device in spec.devices),
        *(devicefilter.parse_rule(rule) for rule in spec.device_rules),
    ]


def _rule_of(device: DeviceSpec) -> DeviceRule:
    return DeviceRule(device.kind, device.major, device.minor, device.access)
