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
from orlop.runtime import defaults, readback
from orlop.runtime.contract import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_START_FAILED
from orlop.runtime.plan import plan_process, warm_up
from orlop.runtime.spec import ContainerSpec, DeviceSpec, ExecSpec, ResourceSpec

__all__ = [
    "apply_limits",
    "cgroup_of",
    "create",
    "destroy",
    "exec_exit_code",
    "exec_failure_text",
    "limit",
    "start_failure_text",
    "verify",
    "verify_exec",
    "warm_up",
]

DIFFERS = "the confinement of the process differs from what was asked for"
_DEFAULT_PARENT = "orlop"
# The words in front of runc's own are those of dockerd and containerd: clients match on their end.
_START_PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: error during container init: "
)
_RUNTIME_PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
)
_RUNTIME_EXEC_PREFIX = "OCI runtime exec failed: "
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


def verify(pid: int, spec: ContainerSpec, cgroup: Cgroup) -> str:
    """Read back the confinement of the running first process: "" or what is wrong (I21)."""
    plan = plan_process(spec.process, is_privileged=spec.is_privileged)
    found = readback.container_difference(pid, spec, plan, cgroup)
    return f"{DIFFERS}: {found}; it was killed" if found else ""


def verify_exec(pid: int, spec: ExecSpec) -> str:
    """The same for a further process; its namespaces are those that it joined."""
    found = readback.process_difference(pid, plan_process(spec.process, is_privileged=spec.is_privileged))
    return f"{DIFFERS}: {found}; it was killed" if found else ""


def start_failure_text(failure: dict[str, Any]) -> str:
    """A failed start in Docker's words; a user that does not exist is told without them."""
    message = str(failure.get("message", "unknown"))
    if failure.get("step") == "user":
        return message
    if failure.get("step") == "log":
        return f"failed to create task for container: {message}"
    prefix = _RUNTIME_PREFIX if failure.get("step") == "runtime" else _START_PREFIX
    return f"{prefix}{message}: unknown{_explained(message)}"


def exec_failure_text(failure: dict[str, Any]) -> str:
    """A failed exec in Docker's words."""
    message = str(failure.get("message", "unknown"))
    if failure.get("step") == "user":
        return message
    prefix = _RUNTIME_EXEC_PREFIX if failure.get("step") == "runtime" else _EXEC_PREFIX
    return f"{prefix}{message}: unknown{_explained(message)}"


def exec_exit_code(failure: dict[str, Any]) -> int:
    """The exit code of an exec that did not start, as dockerd finds it: mostly by the text."""
    code = int(failure.get("exit_code", EXIT_START_FAILED))
    if failure.get("step") == "user":
        return EXIT_NOT_EXECUTABLE
    if code == EXIT_START_FAILED and "no such file or directory" in str(failure.get("message")):
        return EXIT_NOT_FOUND
    return code


def _explained(message: str) -> str:
    # docker CLI before 24 finds its exit code 126 by this text
    return ": permission denied" if "is a directory" in message else ""


def _rules(spec: ContainerSpec) -> list[DeviceRule]:
    return [
        *map(devicefilter.parse_rule, defaults.DEVICE_RULES),
        *(_rule_of(device) for device in spec.devices),
        *(devicefilter.parse_rule(rule) for rule in spec.device_rules),
    ]


def _rule_of(device: DeviceSpec) -> DeviceRule:
    return DeviceRule(device.kind, device.major, device.minor, device.access)
