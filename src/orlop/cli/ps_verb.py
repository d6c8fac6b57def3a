"""`orlop ps`: list containers. Imports as little as it can; people run it all day."""

from __future__ import annotations

from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.listing import filters_query, format_rows
from orlop.cli.units import human_ago, human_size, short_id

COMMAND = Command(
    "ps [OPTIONS]",
    "List containers",
    (
        Flag("all", "a", "bool", text="Show all containers (default shows just running)"),
        Flag("filter", "f", "list", text="Filter output based on conditions provided"),
        Flag("format", text="Format output using a Go template, 'table TEMPLATE' or 'json'"),
        Flag("last", "n", "int", default=-1, text="Show n last created containers (includes all states)"),
        Flag("latest", "l", "bool", text="Show the latest created container (includes all states)"),
        Flag("no-trunc", kind="bool", text="Don't truncate output"),
        Flag("quiet", "q", "bool", text="Only display container IDs"),
        Flag("size", "s", "bool", text="Display total file sizes"),
    ),
    max_args=0,
)
_COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
}
_DEFAULT = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_COMMAND_WIDTH = 20


def run(context: Context, parsed: Parsed) -> int:
    """List and print."""
    limit = 1 if parsed["latest"] else parsed["last"]
    containers = context.client.call(
        "GET",
        "/containers/json",
        {
            "all": parsed["all"] or None,
            "limit": limit if limit > 0 else None,
            "size": parsed["size"] or "Size" in parsed["format"] or None,
            "filters": filters_query(parsed["filter"]),
        },
    )
    if parsed["quiet"] and not parsed["format"]:
        for item in containers:
            context.print(item["Id"] if parsed["no-trunc"] else short_id(item["Id"]))
        return 0
    import time

    now = time.time()  # noqa: TID251 - ages on a terminal
    rows = [row(item, now, is_cut=not parsed["no-trunc"]) for item in containers]
    default = (*_DEFAULT, "Size") if parsed["size"] else _DEFAULT
    context.print(format_rows(parsed["format"], rows, _COLUMNS, default), end="")
    return 0


def row(item: dict[str, Any], now: float, *, is_cut: bool) -> dict[str, Any]:
    """The fields that `--format` may name."""
    import time

    command = item["Command"]
    if is_cut and len(command) > _COMMAND_WIDTH:
        command = command[: _COMMAND_WIDTH - 1] + "…"
    names = [name.lstrip("/") for name in item["Names"]]
    labels = item.get("Labels") or {}
    return {
        "ID": short_id(item["Id"]) if is_cut else item["Id"],
        "Image": item["Image"],
        "Command": f'"{command}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(item["Created"])),
        "RunningFor": human_ago(now - item["Created"]),
        "Status": item["Status"],
        "State": item["State"],
        "Ports": ", ".join(map(_port, item.get("Ports") or [])),
        "Names": ",".join(names),
        "Labels": ",".join(f"{name}={value}" for name, value in labels.items()),
        "LocalVolumes": str(sum(1 for mount in item.get("Mounts") or [] if mount.get("Driver") == "local")),
        "Mounts": ",".join(mount.get("Name") or mount["Source"] for mount in item.get("Mounts") or []),
        "Networks": ",".join((item.get("NetworkSettings") or {}).get("Networks") or {}),
        "Platform": None,
        "Size": _size(item),
    }


def _port(port: dict[str, Any]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    return f"{port.get('IP', '')}:{port['PublicPort']}->{inside}" if port.get("PublicPort") else inside


def _size(item: dict[str, Any]) -> str:
    text = human_size(item.get("SizeRw") or 0, 3)
    return f"{text} (virtual {human_size(item['SizeRootFs'], 3)})" if item.get("SizeRootFs") else text
