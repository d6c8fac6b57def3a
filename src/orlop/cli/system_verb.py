"""`orlop system df`, `orlop system prune` and `orlop system dial-stdio`."""

from __future__ import annotations

from typing import Any

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed, UsageError
from orlop.cli.listing import filters_query
from orlop.cli.pruning import confirmed, print_deleted
from orlop.cli.table import render
from orlop.cli.units import human_size

COMMAND = Command(
    "system [OPTIONS] df|prune|fsck|dial-stdio",
    "Disk usage, clean-up, check of stored bytes; dial-stdio: standard input and output to the engine",
    (
        Flag("all", "a", "bool", text="prune: remove all unused images, not just dangling ones"),
        Flag("filter", kind="list", text="prune: provide filter values (e.g. label=<key>=<value>)"),
        Flag("verbose", "v", "bool", text="df: show every object"),
        Flag(
            "repair", kind="bool", text="fsck: fetch damaged layers and documents again from where they came"
        ),
        Flag("force", "f", "bool", text="prune: do not prompt for confirmation"),
    ),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Dispatch on the word after `system`."""
    if parsed.args[0] == "df":
        return _df_verbose(context) if parsed["verbose"] else _df(context)
    if parsed.args[0] == "prune":
        return _prune(context, parsed)
    if parsed.args[0] == "fsck":
        return _fsck(context, is_repairing=parsed["repair"])
    if parsed.args[0] == "dial-stdio":
        from orlop.cli import dial_stdio

        return dial_stdio.run(context)
    raise UsageError(
        f"'system {parsed.args[0]}' is not an orlop command", hint="df, prune, fsck or dial-stdio"
    )


def _df(context: Context) -> int:
    usage = context.client.call("GET", "/system/df")
    rows = (
        _images(usage.get("Images") or [], context.client.call("GET", "/orlop/images/disk")),
        _containers(usage.get("Containers") or []),
        _volumes(usage.get("Volumes") or []),
        _cache(usage.get("BuildCache") or []),
    )
    headings = ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE")
    context.print(render(headings, [_usage_row(*row) for row in rows]), end="")
    return 0


def _df_verbose(context: Context) -> int:
    from orlop.cli import usage_tables

    usage = context.client.call("GET", "/system/df")
    context.print(usage_tables.render_all(usage), end="")
    disk = context.client.call("GET", "/orlop/images/disk")
    context.print("\nImage layers:\n\n" + usage_tables.layers(disk["Layers"]), end="")
    return 0


def _fsck(context: Context, *, is_repairing: bool) -> int:
    """Exit code 0 if everything is whole or was healed, 1 if not."""
    code = 0
    for line in context.client.lines("POST", "/orlop/check", {"repair": is_repairing or None}, body=b""):
        if "error" in line:
            context.warn(f"orlop: {line['error']}")
            return 1
        if line["Status"] == "done":
            context.print(f"{line.get('Checked', 0)} layers and documents checked")
            continue
        code = code if line["Status"] == "healed" else 1
        users = ", ".join(line.get("Images") or ())
        context.print(f"{line['Status']}: {line['Kind']} {line['Digest']}: {line['Detail']}")
        if users:
            context.print(f"  used by {users}")
    return code


_Usage = tuple[str, int, int, int, int]  # type, how many, how many in use, bytes, bytes that could be freed


def _images(images: list[dict[str, Any]], disk: dict[str, Any]) -> _Usage:
    used = [image for image in images if image["Containers"] > 0]
    return "Images", len(images), len(used), disk["Size"], disk["Reclaimable"]


def _containers(containers: list[dict[str, Any]]) -> _Usage:
    sizes = [
        (item["State"] in {"running", "paused", "restarting"}, item.get("SizeRw") or 0) for item in containers
    ]
    idle = sum(size for is_active, size in sizes if not is_active)
    return "Containers", len(sizes), sum(active for active, _ in sizes), sum(size for _, size in sizes), idle


def _volumes(volumes: list[dict[str, Any]]) -> _Usage:
    data = [volume.get("UsageData") or {} for volume in volumes]
    sizes = [(item.get("RefCount", 0) > 0, max(item.get("Size", 0), 0)) for item in data]
    idle = sum(size for is_used, size in sizes if not is_used)
    return "Local Volumes", len(sizes), sum(used for used, _ in sizes), sum(size for _, size in sizes), idle


def _cache(records: list[dict[str, Any]]) -> _Usage:
    """What images share is counted with them."""
    own = [item for item in records if not item.get("Shared")]
    free = sum(item["Size"] for item in own if not item["InUse"])
    in_use = sum(1 for item in records if item["InUse"])
    return "Build Cache", len(records), in_use, sum(item["Size"] for item in own), free


def _usage_row(name: str, total: int, active: int, size: int, free: int) -> tuple[str, ...]:
    share = f" ({100 * free // size}%)" if size and name != "Build Cache" else ""
    return name, str(total), str(active), human_size(size), human_size(free) + share


def _prune(context: Context, parsed: Parsed) -> int:
    if not parsed["force"] and not confirmed(
        context, "all stopped containers, unused images and build cache"
    ):
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
        names = [
            item if isinstance(item, str) else str(item.get("Deleted") or item.get("Untagged"))
            for item in answer.get(key) or ()
        ]
        print_deleted(context, title, names)
    context.print(f"Total reclaimed space: {human_size(freed)}")
    return 0
