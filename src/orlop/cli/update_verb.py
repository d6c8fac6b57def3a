"""`orlop update`: docker's limits and restart policy, and what else of a container can be changed.

`update_body` is pure. Docker's `--restart` is the policy, so what restarts a container is called `--apply`.
"""

from __future__ import annotations

from typing import Any

from orlop.base.errors import InvalidInput
from orlop.cli.context import Context
from orlop.cli.create_body import health_check, nano_cpus, pairs, restart_policy
from orlop.cli.create_flags import CREATE_FLAGS, HEALTH_ON_FAILURE
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.mount_flags import parse_mount, parse_publish
from orlop.cli.units import parse_size
from orlop.client.client import path_of

__all__ = ["COMMAND", "run", "update_body"]

_SHARED = (
    *("blkio-weight", "cpu-period", "cpu-quota", "cpu-shares", "cpus", "cpuset-cpus", "cpuset-mems"),
    *("memory", "memory-reservation", "memory-swap", "pids-limit", "restart"),
    *("health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period"),
    *("health-timeout", "no-healthcheck"),
)
_LISTS = {
    "env-add": "Set an environment variable (NAME=VALUE)",
    "env-rm": "Remove an environment variable by its name",
    "label-add": "Set a label (NAME=VALUE)",
    "label-rm": "Remove a label by its name",
    "volume-add": "Mount a volume or a directory, as --volume of run",
    "mount-add": "Attach a filesystem mount, as --mount of run",
    "tmpfs-add": "Mount a tmpfs directory, as --tmpfs of run",
    "mount-rm": "Take away what is mounted at a path of the container; volumes are kept",
    "publish-add": "Publish a container's port to the host, as --publish of run",
    "publish-rm": "Publish a container's port no more (80 or 80/tcp)",
}

COMMAND = Command(
    "update [OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    (
        *(flag for flag in CREATE_FLAGS if flag.name in _SHARED),
        HEALTH_ON_FAILURE,
        Flag("cpu-rt-period", kind="int", text="Limit the CPU real-time period in microseconds"),
        Flag("cpu-rt-runtime", kind="int", text="Limit the CPU real-time runtime in microseconds"),
        *(Flag(name, kind="list", text=text) for name, text in _LISTS.items()),
        Flag("apply", kind="bool", text="Restart running containers now, so that all changes take effect"),
        Flag("time", "t", "int", default=-1, text="Seconds to wait before killing a container for --apply"),
    ),
    min_args=1,
)
_NUMBERS = {
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "pids-limit": "PidsLimit",
}
_SIZES = {"memory": "Memory", "memory-reservation": "MemoryReservation", "memory-swap": "MemorySwap"}


def run(context: Context, parsed: Parsed) -> int:
    """Update each and print its name; the engine's warnings go to standard error."""
    body = update_body(parsed)
    if not body:
        raise InvalidInput("you must provide one or more flags when using this command")

    def update(name: str) -> None:
        answer = context.client.call("POST", path_of("containers", name, "update"), body=body) or {}
        for warning in answer.get("Warnings") or []:
            context.warn(f"WARNING: {warning}")
        context.print(name)

    return context.each(parsed.args, update)


def update_body(parsed: Parsed) -> dict[str, Any]:
    """The JSON body: only what was given.

    Raises:
        InvalidInput: a value does not follow its flag's grammar.
    """
    body: dict[str, Any] = {key: parsed[flag] for flag, key in _NUMBERS.items() if parsed.has(flag)}
    for flag, key in _SIZES.items():
        if parsed.has(flag):
            body[key] = -1 if parsed[flag] == "-1" else parse_size(parsed[flag])
    if parsed.has("blkio-weight"):
        if not parsed["blkio-weight"].isdecimal():
            raise InvalidInput(f'invalid argument "{parsed["blkio-weight"]}" for "--blkio-weight" flag')
        body["BlkioWeight"] = int(parsed["blkio-weight"])
    if parsed.has("cpus"):
        body["NanoCpus"] = nano_cpus(parsed["cpus"])
    if parsed.has("restart"):
        body["RestartPolicy"] = restart_policy(parsed["restart"])
    amendment = _amendment(parsed)
    return body | ({"Orlop": amendment} if amendment else {})


def _amendment(parsed: Parsed) -> dict[str, Any]:
    _, bindings = parse_publish(parsed["publish-add"], [])
    add = {
        "Env": parsed["env-add"],
        "Labels": pairs(parsed["label-add"]),
        "Binds": parsed["volume-add"],
        "Mounts": [parse_mount(text) for text in parsed["mount-add"]],
        "Tmpfs": {
            path: options for path, _, options in (text.partition(":") for text in parsed["tmpfs-add"])
        },
        "PortBindings": bindings,
    }
    remove = {
        "Env": parsed["env-rm"],
        "Labels": parsed["label-rm"],
        "Mounts": parsed["mount-rm"],
        "Ports": parsed["publish-rm"],
    }
    amendment = {
        "Add": {key: value for key, value in add.items() if value},
        "Remove": {key: value for key, value in remove.items() if value},
        "Healthcheck": health_check(parsed),
        "HealthOnFailure": parsed["health-on-failure"],
    }
    found = {key: value for key, value in amendment.items() if value}
    if parsed["apply"]:
        found["Restart"] = True
        found |= {"Timeout": parsed["time"]} if parsed.has("time") else {}
    return found
