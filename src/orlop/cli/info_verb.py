"""`orlop info`."""

from __future__ import annotations

import json

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.units import human_size

COMMAND = Command(
    "info [OPTIONS]",
    "Display system-wide information",
    (Flag("format", "f", text="Format output using a Go template or 'json'"),),
    max_args=0,
)


def run(context: Context, parsed: Parsed) -> int:
    """Print what matters, or all of it as JSON."""
    info = context.client.call("GET", "/info")
    if parsed["format"] == "json":
        context.print(json.dumps(info, ensure_ascii=False))
        return 0
    if parsed["format"]:
        from orlop.cli.gotemplate import Template

        context.print(Template(parsed["format"]).render(info))
        return 0
    lines = [
        ("Containers", info["Containers"]),
        (" Running", info["ContainersRunning"]),
        (" Paused", info["ContainersPaused"]),
        (" Stopped", info["ContainersStopped"]),
        ("Images", info["Images"]),
        ("Server Version", info["ServerVersion"]),
        ("Storage Driver", info["Driver"]),
        *((f" {name}", value) for name, value in info.get("DriverStatus") or []),
        ("Logging Driver", info["LoggingDriver"]),
        ("Cgroup Driver", info["CgroupDriver"]),
        ("Cgroup Version", info["CgroupVersion"]),
        ("Default Runtime", info["DefaultRuntime"]),
        ("Security Options", ", ".join(info.get("SecurityOptions") or [])),
        ("Kernel Version", info["KernelVersion"]),
        ("Operating System", info["OperatingSystem"]),
        ("Architecture", info["Architecture"]),
        ("CPUs", info["NCPU"]),
        ("Total Memory", human_size(info["MemTotal"])),
        ("Name", info["Name"]),
        ("ID", info["ID"]),
        ("Root Dir", info["DockerRootDir"]),
    ]
    for name, value in lines:
        context.print(f"{name}: {value}")
    for warning in info.get("Warnings") or []:
        context.warn(str(warning))
    return 0
