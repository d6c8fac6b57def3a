"""`orlop stats`: what containers use, once or again and again. The figures are computed as docker does."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from orlop.cli.context import Context, is_terminal
from orlop.cli.flags import Command, Flag, Parsed
from orlop.cli.listing import format_rows
from orlop.cli.units import human_size, short_id
from orlop.client.client import ApiError, path_of

__all__ = ["COMMAND", "row", "run"]

COMMAND = Command(
    "stats [OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    (
        Flag("all", "a", "bool", text="Show all containers (default shows just running)"),
        Flag("format", text="Format output using a Go template, 'table TEMPLATE' or 'json'"),
        Flag("history", kind="bool", text="Show the readings of the last hours instead (extension)"),
        Flag("no-stream", kind="bool", text="Disable streaming stats and only pull the first result"),
        Flag("no-trunc", kind="bool", text="Do not truncate output"),
    ),
)
_COLUMNS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_PAST_COLUMNS = {
    "Name": "NAME",
    "Time": "TIME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_DEFAULT = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_AT_ONCE = 16
_CLEAR = "\x1b[2J\x1b[H"
_Stats = Mapping[str, Any]


def run(context: Context, parsed: Parsed) -> int:
    """Print one table, or a new one whenever all containers have answered, until interrupted."""
    if parsed["history"]:
        return _history(context, parsed)
    clears = is_terminal(sys.stdout) and not parsed["format"]
    while True:
        rows = _rows(context, parsed)
        text = format_rows(parsed["format"], rows, _COLUMNS, _DEFAULT)
        context.print(_CLEAR + text if clears and not parsed["no-stream"] else text, end="")
        if parsed["no-stream"]:
            return 0
        context.out.flush()
        if not rows:
            import time

            time.sleep(1)


def _history(context: Context, parsed: Parsed) -> int:
    rows = []
    for name in parsed.args or _names(context, parsed):
        found = context.client.call("GET", path_of("containers", name, "stats", "history"))
        rows += [_past_row(found["Name"], item) for item in found["Samples"] or ()]
    context.print(format_rows(parsed["format"], rows, _PAST_COLUMNS, tuple(_PAST_COLUMNS)), end="")
    return 0


def _past_row(name: str, item: _Stats) -> dict[str, Any]:
    received, sent = item["NetworkReceivedBytes"], item["NetworkSentBytes"]
    return {
        "Name": name.lstrip("/"),
        "Time": item["Read"][:19] + "Z",
        "CPUPerc": f"{item['CpuPercent']:.2f}%",
        "MemUsage": f"{_binary(item['MemoryBytes'])} / {_binary(item['MemoryLimitBytes'])}",
        "NetIO": f"{human_size(received, 3)} / {human_size(sent, 3)}",
        "BlockIO": f"{human_size(item['BlockReadBytes'], 3)} / {human_size(item['BlockWrittenBytes'], 3)}",
        "PIDs": str(item["Pids"]),
    }


def _names(context: Context, parsed: Parsed) -> tuple[str, ...]:
    found = context.client.call("GET", "/containers/json", {"all": parsed["all"] or None})
    return tuple(item["Id"] for item in found)


def _rows(context: Context, parsed: Parsed) -> list[dict[str, Any]]:
    names = parsed.args or _names(context, parsed)
    from concurrent.futures import ThreadPoolExecutor

    def read(name: str) -> dict[str, Any] | None:
        try:
            stats = context.client.call("GET", path_of("containers", name, "stats"), {"stream": "false"})
        except ApiError as error:
            if error.status != 404 or parsed.args:
                raise
            return None  # it ended between the list and now
        return row(stats, name, is_cut=not parsed["no-trunc"])

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # every reading takes a second
        return [item for item in pool.map(read, names) if item is not None]


def row(stats: _Stats, name: str, *, is_cut: bool) -> dict[str, Any]:
    """The fields that `--format` may name."""
    memory = stats.get("memory_stats") or {}
    used, limit = _memory(memory), memory.get("limit") or 0
    received = sum(item.get("rx_bytes", 0) for item in (stats.get("networks") or {}).values())
    sent = sum(item.get("tx_bytes", 0) for item in (stats.get("networks") or {}).values())
    read, written = _blocks(stats)
    return {
        "Container": name,
        "ID": short_id(stats["id"]) if is_cut else stats["id"],
        "Name": stats["name"].lstrip("/"),
        "CPUPerc": f"{_cpu(stats):.2f}%",
        "MemUsage": f"{_binary(used)} / {_binary(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{human_size(received, 3)} / {human_size(sent, 3)}",
        "BlockIO": f"{human_size(read, 3)} / {human_size(written, 3)}",
        "PIDs": str((stats.get("pids_stats") or {}).get("current", 0)),
    }


def _memory(memory: _Stats) -> int:
    """Without the page cache that the kernel can take back."""
    usage = int(memory.get("usage") or 0)
    detail = memory.get("stats") or {}
    for key in ("total_inactive_file", "inactive_file"):
        if key in detail:
            return usage - detail[key] if detail[key] < usage else usage
    return usage


def _cpu(stats: _Stats) -> float:
    now, before = stats.get("cpu_stats") or {}, stats.get("precpu_stats") or {}
    own = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get(
        "total_usage", 0
    )
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if own <= 0 or system <= 0:
        return 0.0
    return float(own / system * (now.get("online_cpus") or 1) * 100)


def _blocks(stats: _Stats) -> tuple[int, int]:
    rows = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read, written = (
        sum(item["value"] for item in rows if item["op"].lower() == word) for word in ("read", "write")
    )
    return read, written


def _binary(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.4g}{unit}"
        value /= 1024
    raise AssertionError(value)
