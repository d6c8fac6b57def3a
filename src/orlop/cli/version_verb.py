"""`orlop version`."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

from orlop.base.errors import OrlopError
from orlop.base.version import VERSION
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.client.client import API_VERSION

COMMAND = Command(
    "version [OPTIONS]",
    "Show the Orlop version information",
    (Flag("format", "f", text="Format output using a Go template or 'json'"),),
    max_args=0,
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # Go's names


def run(context: Context, parsed: Parsed) -> int:
    """Print both sides; a silent engine is exit code 1 after our own half."""
    machine = platform.machine()
    client = {
        "Version": VERSION,
        "ApiVersion": API_VERSION,
        "GoVersion": f"python{platform.python_version()}",
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(machine, machine),
    }
    failure: OrlopError | None = None
    server = None
    try:
        server = context.client.call("GET", "/version")
    except OrlopError as error:
        failure = error
    if parsed["format"]:
        both = {"Client": client, "Server": server}
        from orlop.cli.gotemplate import Template

        context.print(
            json.dumps(both) if parsed["format"] == "json" else Template(parsed["format"]).render(both)
        )
    else:
        context.print("Client:")
        _print_side(context, client, 1)
        if server:
            context.print(f"\nServer: {server.get('Platform', {}).get('Name', '')}\n Engine:")
            _print_side(context, server, 2)
    if failure is not None:
        raise failure
    return 0


def _print_side(context: Context, values: Mapping[str, Any], indent: int) -> None:
    api = values["ApiVersion"]
    if values.get("MinAPIVersion"):
        api = f"{api} (minimum version {values['MinAPIVersion']})"
    lines = {
        "Version": values["Version"],
        "API version": api,
        "Written in": values["GoVersion"],
        "Git commit": values.get("GitCommit"),
        "OS/Arch": f"{values['Os']}/{values['Arch']}",
        "Kernel": values.get("KernelVersion"),
    }
    for name, value in lines.items():
        if value:
            context.print(f"{' ' * indent}{name + ':':<{20 - indent}}{value}")
