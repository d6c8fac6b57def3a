"""`orlop system df` and `orlop system prune`."""

from __future__ import annotations

import sys
from typing import Any

from orlop.cli.context import Context, is_terminal
from orlop.cli.flags import Command, Flag, Parsed, UsageError
from orlop.cli.listing import filters_query
from orlop.cli.table import render
from orlop.cli.units import human_size

COMMAND = Command(
    "system [OPTIONS] df|prune|info|events",
    "Disk usage and clean-up",
    (
        Flag("all", "a", "bool", text="prune: remove all unused images, not just dangling ones"),
        Flag("filter", "f", "list", text="prune: provide filter values (e.g. label=<key>=<value>)"),
        Flag("force", kind="bool", text="prune: do not prompt for confirmation"),
        Flag("format", text="info, events: format output"),
    ),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Dispatch on the word after `system`."""
    if parsed.args[0] == "df":
        return _df(context)
    if parsed.args[0] == "prune":
        return _prune(context, parsed)
    raise UsageError(f"'system {parsed.args[0]}' is not an orlop command", hint="df or prune")


def _df(context: Context) -> int:
    usage = context.client.call("GET", "/system/df")
    images, containers = usage.get("Images") or [], usage.get("Containers") or []
    volumes, cache = usage.get("Volumes") or [], usage.get("BuildCache") or []
    layers = usage.get("LayersSize") or 0
    unused = sum(
        max(image["Size"] - max(image.get("SharedSize", 0), 0), 0)
        for image in images
        if not image["Containers"]
    )
    running = [item for item in containers if item["State"] == "running"]
    idle_size = sum(item.get("SizeRw") or 0 for item in containers if item["State"] != "running")
    volume_sizes = [(volume.get("UsageData") or {}) for volume in volumes]
    rows = [
        (
            "Images",
            len(images),
            sum(1 for image in images if image["Containers"]),
            layers,
            min(unused, layers),
        ),
        (
            "Containers",
            len(containers),
            len(running),
            sum(item.get("SizeRw") or 0 for item in containers),
            idle_size,
        ),
        (
            "Local Volumes",
            len(volumes),
            sum(1 for data in volume_sizes if data.get("RefCount", 0) > 0),
            sum(max(data.get("Size", 0), 0) for data in volume_sizes),
            sum(max(data.get("Size", 0), 0) for data in volume_sizes if not data.get("RefCount")),
        ),
        (
            "Build Cache",
            len(cache),
            sum(1 for item in cache if item["InUse"]),
            sum(item["Size"] for item in cache),
            sum(item["Size"] for item in cache if not item["InUse"] and not item.get("Shared")),
        ),
    ]
    headings = ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE")
    context.print(render(headings, [_usage_row(*row) for row in rows]), end="")
    return 0


def _usage_row(name: str, total: int, active: int, size: int, free: int) -> tuple[str, ...]:
    share = f" ({100 * free // size}%)" if size else ""
    return name, str(total), str(active), human_size(size), human_size(free) + share


def _prune(context: Context, parsed: Parsed) -> int:
    if not parsed["force"] and not _confirmed(context):
        return 0
    words = parsed["filter"]
    image_words = [*words, f"dangling={'false' if parsed['all'] else 'true'}"]
    freed = 0
    for title, path, query, key in (
        ("Deleted Containers", "/containers/prune", {"filters": filters_query(words)}, "ContainersDeleted"),
        ("Deleted Images", "/images/prune", {"filters": filters_query(image_words)}, "ImagesDeleted"),
        ("Deleted build cache objects", "/build/prune", {"all": parsed["all"] or None}, "CachesDeleted"),
    ):
        answer: dict[str, Any] = context.client.call("POST", path, query) or {}
        freed += answer.get("SpaceReclaimed") or 0
        if answer.get(key):
            context.print(f"{title}:")
            for item in answer[key]:
                context.print(
                    item if isinstance(item, str) else str(item.get("Deleted") or item.get("Untagged"))
                )
            context.print("")
    context.print(f"Total reclaimed space: {human_size(freed)}")
    return 0


def _confirmed(context: Context) -> bool:
    context.print("WARNING! This will remove all stopped containers, unused images and build cache.")
    if not is_terminal(sys.stdin):
        context.warn("orlop: not a terminal: give --force to go on")
        return False
    context.print("Are you sure you want to continue? [y/N] ", end="")
    context.out.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
