"""From the flags of `run` and `create` to the body of POST /containers/create.

Source: Docker Engine API v1.51, ContainerCreate; docker CLI reference for the flags' grammar.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.cli.device_flags import device_limits, device_requests, is_cdi_name
from orlop.cli.flags import Parsed
from orlop.cli.mount_flags import parse_mount, parse_publish
from orlop.cli.units import parse_duration_ns, parse_size

__all__ = ["create_body", "health_check", "nano_cpus", "pairs", "restart_policy"]

ReadFile = Callable[[str], str]
_NANO = 1_000_000_000


def pairs(values: list[str]) -> dict[str, str]:
    """`a=b` words as a mapping; a word without `=` has an empty value."""
    return {name: value for name, _, value in (word.partition("=") for word in values)}


def create_body(
    parsed: Parsed, environ: Mapping[str, str], read_file: ReadFile, *, is_detached: bool
) -> dict[str, Any]:
    """The JSON body.

    Args:
        parsed: flags; its arguments are the image and the command.
        environ: for `-e NAME` without a value.
        read_file: gives the text of --env-file, --label-file and seccomp profiles.
        is_detached: nothing will be attached (create, run -d).

    Raises:
        InvalidInput: a value does not follow its flag's grammar.
    """
    body = _process(parsed, environ, read_file, is_detached=is_detached)
    exposed, bindings = parse_publish(parsed["publish"], parsed["expose"])
    if exposed:
        body["ExposedPorts"] = {port: {} for port in exposed}
    body["HostConfig"] = _host(parsed, read_file) | _resources(parsed) | {"PortBindings": bindings}
    anonymous: dict[str, Any] = {volume: {} for volume in parsed["volume"] if ":" not in volume}
    if anonymous:
        body["Volumes"] = anonymous
    extras = {"HealthOnFailure": parsed["health-on-failure"], "ApiSocket": parsed["api-socket"]}
    wanted = {key: value for key, value in extras.items() if value}
    return body | _networking(parsed) | ({"Orlop": wanted} if wanted else {})


def _process(
    parsed: Parsed, environ: Mapping[str, str], read_file: ReadFile, *, is_detached: bool
) -> dict[str, Any]:
    wanted = {word.lower() for word in parsed["attach"]}
    if wanted - {"stdin", "stdout", "stderr"}:
        raise InvalidInput("valid streams are STDIN, STDOUT and STDERR")
    is_default = not wanted and not is_detached
    body: dict[str, Any] = {
        "Image": parsed.args[0],
        "Cmd": list(parsed.args[1:]) or None,
        "Hostname": parsed["hostname"],
        "Domainname": parsed["domainname"],
        "User": parsed["user"],
        "WorkingDir": parsed["workdir"],
        "Tty": parsed["tty"],
        "OpenStdin": parsed["interactive"],
        "StdinOnce": parsed["interactive"] and not is_detached,
        "AttachStdin": "stdin" in wanted or (is_default and parsed["interactive"]),
        "AttachStdout": "stdout" in wanted or is_default,
        "AttachStderr": "stderr" in wanted or is_default,
        "Env": _environment(parsed, environ, read_file),
        "Labels": _labels(parsed, read_file),
    }
    if parsed["stop-signal"]:
        body["StopSignal"] = parsed["stop-signal"]
    if parsed.has("stop-timeout"):
        body["StopTimeout"] = parsed["stop-timeout"]
    if parsed.has("entrypoint"):
        body["Entrypoint"] = [parsed["entrypoint"]] if parsed["entrypoint"] else [""]
    health = health_check(parsed)
    return body | ({"Healthcheck": health} if health else {})


def _environment(parsed: Parsed, environ: Mapping[str, str], read_file: ReadFile) -> list[str]:
    words: list[str] = []
    for path in parsed["env-file"]:
        words += _lines(read_file(path))
    result = []
    for word in [*words, *parsed["env"]]:
        name, equals, _ = word.partition("=")
        if not name:
            raise InvalidInput(f"invalid environment variable: {word}")
        if equals:
            result.append(word)
        elif name in environ:
            result.append(f"{name}={environ[name]}")
        elif word in parsed["env"]:
            result.append(name)  # the engine unsets it
    return result


def _lines(text: str) -> list[str]:
    """The `NAME=VALUE` and `NAME` lines of a file; values are taken as they are.

    Raises:
        InvalidInput: with docker's texts.
    """
    found = []
    for line in text.removeprefix("\ufeff").split("\n"):
        word = line.removesuffix("\r").lstrip()
        if not word or word.startswith("#"):
            continue
        name, equals, _ = word.partition("=")
        if not name:
            raise InvalidInput(f"no variable name on line '{word[:100]}'")
        if any(character.isspace() for character in (name if equals else name.rstrip())):
            raise InvalidInput(f"variable '{name[:100]}' contains whitespaces")
        found.append(word if equals else name.rstrip())
    return found


def _labels(parsed: Parsed, read_file: ReadFile) -> dict[str, str]:
    words: list[str] = []
    for path in parsed["label-file"]:
        words += [line for line in _lines(read_file(path)) if "=" in line]  # as docker
    return pairs([*words, *parsed["label"]])


def health_check(parsed: Parsed) -> dict[str, Any]:
    """What the health flags ask for."""
    if parsed["no-healthcheck"]:
        return {"Test": ["NONE"]}
    health: dict[str, Any] = {}
    if parsed["health-cmd"]:
        health["Test"] = ["CMD-SHELL", parsed["health-cmd"]]
    names = {
        "health-interval": "Interval",
        "health-timeout": "Timeout",
        "health-start-period": "StartPeriod",
        "health-start-interval": "StartInterval",
    }
    for flag, key in names.items():
        if parsed[flag]:
            health[key] = parse_duration_ns(parsed[flag])
    if parsed["health-retries"]:
        health["Retries"] = parsed["health-retries"]
    return health


def _host(parsed: Parsed, read_file: ReadFile) -> dict[str, Any]:
    networks = [*parsed["network"], *parsed["net"]]
    host: dict[str, Any] = {
        "NetworkMode": networks[0].split(",")[0].removeprefix("name=") if networks else "default",
        "Binds": [volume for volume in parsed["volume"] if ":" in volume],
        "Mounts": [parse_mount(text) for text in parsed["mount"]],
        "Tmpfs": {path: options for path, _, options in (word.partition(":") for word in parsed["tmpfs"])},
        "VolumesFrom": parsed["volumes-from"],
        "VolumeDriver": parsed["volume-driver"],
        "AutoRemove": parsed["rm"],
        "Privileged": parsed["privileged"],
        "ReadonlyRootfs": parsed["read-only"],
        "PublishAllPorts": parsed["publish-all"],
        "CapAdd": parsed["cap-add"],
        "CapDrop": parsed["cap-drop"],
        "GroupAdd": parsed["group-add"],
        "SecurityOpt": [_security(option, read_file) for option in parsed["security-opt"]],
        "ExtraHosts": parsed["add-host"],
        "Dns": parsed["dns"],
        "DnsOptions": parsed["dns-option"],
        "DnsSearch": parsed["dns-search"],
        "Links": parsed["link"],
        "LogConfig": {"Type": parsed["log-driver"], "Config": pairs(parsed["log-opt"])},
        "RestartPolicy": restart_policy(parsed["restart"]),
        "StorageOpt": pairs(parsed["storage-opt"]),
        "Sysctls": pairs(parsed["sysctl"]),
        "Annotations": pairs(parsed["annotation"]),
        "IpcMode": parsed["ipc"],
        "PidMode": parsed["pid"],
        "UTSMode": parsed["uts"],
        "UsernsMode": parsed["userns"],
        "CgroupnsMode": parsed["cgroupns"],
        "CgroupParent": parsed["cgroup-parent"],
        "Runtime": parsed["runtime"],
        "Isolation": parsed["isolation"],
        "ContainerIDFile": parsed["cidfile"],
    }
    if parsed.has("init"):
        host["Init"] = parsed["init"]
    return host


def _security(option: str, read_file: ReadFile) -> str:
    name, equals, value = (
        option.replace(":", "=", 1).partition("=") if "=" not in option else option.partition("=")
    )
    if name == "seccomp" and equals and value not in {"unconfined", "builtin"}:
        try:
            return "seccomp=" + json.dumps(json.loads(read_file(value)), separators=(",", ":"))
        except ValueError as error:
            raise InvalidInput(f"compressing JSON in seccomp profile ({value}) failed: {error}") from error
    return option


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:3` as an API RestartPolicy."""
    name, colon, count = text.partition(":")
    if colon and (name != "on-failure" or not count.isdecimal()):
        raise InvalidInput("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name or "no", "MaximumRetryCount": int(count or 0)}


def _resources(parsed: Parsed) -> dict[str, Any]:
    limits: dict[str, Any] = {
        "CpuShares": parsed["cpu-shares"],
        "CpuPeriod": parsed["cpu-period"],
        "CpuQuota": parsed["cpu-quota"],
        "CpuRealtimePeriod": parsed["cpu-rt-period"],
        "CpuRealtimeRuntime": parsed["cpu-rt-runtime"],
        "CpusetCpus": parsed["cpuset-cpus"],
        "CpusetMems": parsed["cpuset-mems"],
        "OomKillDisable": parsed["oom-kill-disable"],
        "OomScoreAdj": parsed["oom-score-adj"],
        "DeviceCgroupRules": parsed["device-cgroup-rule"],
        "Devices": [_device(text) for text in parsed["device"] if not is_cdi_name(text)],
        "Ulimits": [_ulimit(text) for text in parsed["ulimit"]],
    }
    sizes = {"memory": "Memory", "memory-reservation": "MemoryReservation", "shm-size": "ShmSize"}
    for flag, key in sizes.items():
        if parsed[flag]:
            limits[key] = parse_size(parsed[flag])
    if parsed["memory-swap"]:
        limits["MemorySwap"] = -1 if parsed["memory-swap"] == "-1" else parse_size(parsed["memory-swap"])
    if parsed.has("memory-swappiness"):
        limits["MemorySwappiness"] = parsed["memory-swappiness"]
    if parsed.has("pids-limit"):
        limits["PidsLimit"] = parsed["pids-limit"]
    if parsed["blkio-weight"]:
        limits["BlkioWeight"] = int(parsed["blkio-weight"])
    if parsed["cpus"]:
        limits["NanoCpus"] = nano_cpus(parsed["cpus"])
    requests = device_requests(parsed)
    return limits | device_limits(parsed) | ({"DeviceRequests": requests} if requests else {})


def nano_cpus(text: str) -> int:
    """`1.5` processors."""
    try:
        return round(float(text) * _NANO)
    except ValueError as error:
        raise InvalidInput(f'invalid argument "{text}" for "--cpus" flag: not a number') from error


def _device(text: str) -> dict[str, str]:
    host, *rest = text.split(":")
    inside, access = host, "rwm"
    if len(rest) == 1 and rest[0] and set(rest[0]) <= set("rwm"):
        access = rest[0]
    elif rest:
        inside = rest[0]
        access = rest[1] if len(rest) == 2 else access
    if len(rest) > 2 or not host:
        raise InvalidInput(f"invalid device specification: {text}")
    return {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access}


def _ulimit(text: str) -> dict[str, Any]:
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError as error:
        raise InvalidInput(f"invalid ulimit argument: {text}", hint="for example nofile=1024:2048") from error


def _networking(parsed: Parsed) -> dict[str, Any]:
    networks = [*parsed["network"], *parsed["net"]]
    if not networks:
        return {}
    name = networks[0].split(",")[0].removeprefix("name=")
    if name in {"none", "host", "default"} or name.startswith("container:"):
        return {}
    address = {"IPv4Address": parsed["ip"], "IPv6Address": parsed["ip6"]}
    endpoint: dict[str, Any] = {"Aliases": parsed["network-alias"], "MacAddress": parsed["mac-address"]}
    if any(address.values()):
        endpoint["IPAMConfig"] = address
    return {"NetworkingConfig": {"EndpointsConfig": {name: endpoint}}}
