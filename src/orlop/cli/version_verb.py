"""`orlop version`."""

from __future__ import annotations

import json
import platform

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


def run(context: Context, parsed: Parsed) -> int:
    """Print both sides; a silent engine is exit code 1 after our own half."""
    client = {
        "Version": VERSION,
        "ApiVersion": API_VERSION,
        "Python": platform.python_version(),
        "Os": "linux",
        "Arch": platform.machine(),
    }
    failure: OrlopError | None = None
    server = None
    try:
        server = context.client.call("GET", "/version")
    except OrlopError as error:
        failure = error
    both = {"Client": client, "Server": server}
    if parsed["format"]:
        from orlop.cli.gotemplate import Template

        context.print(
            json.dumps(both) if parsed["format"] == "json" else Template(parsed["format"]).render(both)
        )
    else:
        for side, values in both.items():
            if values:
                context.print(f"{side}:")
                for name in (
                    "Version",
                    "ApiVersion",
                    "MinAPIVersion",
                    "Python",
                    "GitCommit",
                    "Os",
                    "Arch",
                    "KernelVersion",
                ):
                    if values.get(name):
                        context.print(f" {name + ':':<16}{values[name]}")
    if failure is not None:
        raise failure
    return 0
