"""`stats` and `top`: readings of a running container in Docker's shapes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from orlop.base.clock import Clock, format_rfc3339_nano
from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.lifecycle import NotPossible, Status
from orlop.engine.model import Container, State
from orlop.engine.views import TopResult
from orlop.runtime.contract import Process, Stats

__all__ = ["stats_document", "stats_once", "stats_stream", "top"]

_PERIOD_S = 1.0
_NANO = 1_000_000_000
_ZERO_TIME = "0001-01-01T00:00:00Z"
_TICKS = 100


async def stats_once(container: Container, *, one_shot: bool) -> dict[str, Any]:
    """One reading; with `one_shot` at once, else with a second one a second earlier to compare with."""
    task = container.task
    if task is None:
        return stats_document(container, None, None)
    previous = None
    try:
        if not one_shot:
            previous = await task.stats()
            await asyncio.sleep(_PERIOD_S)
        return stats_document(container, await task.stats(), previous)
    except OrlopError:
        if container.task is task:
            raise
        return stats_document(container, None, None)


async def stats_stream(container: Container) -> AsyncIterator[dict[str, Any]]:
    """A reading every second until the container is gone; a stopped one gives empty readings."""
    previous: Stats | None = None
    while container.status is not Status.REMOVING:
        task = container.task
        current = None
        if task is not None:
            try:
                current = await task.stats()
            except OrlopError:
                if container.task is task:
                    raise
        yield stats_document(container, current, previous)
        previous = current
        if await _is_removed_within(container, _PERIOD_S):
            return


async def _is_removed_within(container: Container, timeout_s: float) -> bool:
    """Wait, but not longer than until the removal: clients take the end of the stream for that."""
    removal: asyncio.Future[State] = asyncio.get_running_loop().create_future()
    container.removal_waiters.add(removal)
    try:
        async with asyncio.timeout(timeout_s):
            await removal
    except TimeoutError:
        return False
    finally:
        container.removal_waiters.discard(removal)
    return True


def stats_document(container: Container, current: Stats | None, previous: Stats | None) -> dict[str, Any]:
    """Docker's stats object; pure."""
    out: dict[str, Any] = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": format_rfc3339_nano(current.read_at_ns) if current else _ZERO_TIME,
        "preread": format_rfc3339_nano(previous.read_at_ns) if previous else _ZERO_TIME,
        "num_procs": 0,
        "pids_stats": {},
        "blkio_stats": _blkio(current),
        "storage_stats": {},
        "cpu_stats": _cpu(current),
        "precpu_stats": _cpu(previous),
        "memory_stats": {},
    }
    if current is None:
        return out
    out["pids_stats"] = {"current": current.pids_current}
    if current.pids_limit:
        out["pids_stats"]["limit"] = current.pids_limit
    out["memory_stats"] = {
        "usage": current.memory_usage_bytes,
        "max_usage": current.memory_max_bytes,
        "stats": dict(current.memory_detail),
        "failcnt": current.memory_fail_count,
        "limit": current.memory_limit_bytes,
    }
    if container.record.host.network_mode != "host":
        out["networks"] = {name: dict(values) for name, values in current.networks.items()}
    return out


def _cpu(stats: Stats | None) -> dict[str, Any]:
    if stats is None:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }
    each = {"percpu_usage": list(stats.cpu_each_ns)} if stats.cpu_each_ns else {}
    return {
        "cpu_usage": each
        | {
            "total_usage": stats.cpu_total_ns,
            "usage_in_kernelmode": stats.cpu_kernel_ns,
            "usage_in_usermode": stats.cpu_user_ns,
        },
        "system_cpu_usage": stats.cpu_system_ns,
        "online_cpus": stats.online_cpus,
        "throttling_data": {
            "periods": stats.periods,
            "throttled_periods": stats.throttled_periods,
            "throttled_time": stats.throttled_ns,
        },
    }


def _blkio(stats: Stats | None) -> dict[str, Any]:
    def rows(values: Sequence[tuple[int, int, str, int]]) -> list[dict[str, Any]] | None:
        return [
            {"major": major, "minor": minor, "op": operation.lower(), "value": value}
            for major, minor, operation, value in values
        ] or None

    return {
        "io_service_bytes_recursive": rows(stats.blkio) if stats else None,
        "io_serviced_recursive": rows(stats.blkio_ops) if stats else None,
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    }


async def top(container: Container, arguments: str, clock: Clock) -> TopResult:
    """The processes; `arguments` are those of ps(1), of which the column choices are understood.

    Raises:
        NotPossible: it does not run.
        InvalidInput: arguments that we do not understand.
    """
    task = container.task
    if task is None or container.status is Status.RESTARTING:
        raise NotPossible(f"container {container.id} is not running")
    columns = _columns(arguments)
    now_ns = clock.now_ns()
    rows = []
    for process in await task.top():
        values = _values(process, now_ns)
        rows.append(tuple(values[column.lower()] for column in columns))
    titles = tuple(_TITLES.get(column.lower(), column.upper()) for column in columns)
    return TopResult(titles, tuple(rows))


_FULL = ("user", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_AUX = ("user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command")
_TITLES = {"comm": "COMMAND"}
_KNOWN = {
    "ps_full": _FULL,
    "aux": _AUX,
}
_ALIASES = {
    "args": "command",
    "comm": "comm",
    "pcpu": "%cpu",
    "pmem": "%mem",
    "tt": "tty",
    "tname": "tty",
    "cputime": "time",
    "state": "stat",
    "s": "stat",
    "ucomm": "comm",
    "vsize": "vsz",
    "rssize": "rss",
    "euser": "user",
    "ruser": "user",
    "euid": "uid",
    "start_time": "stime",
}


def _columns(arguments: str) -> tuple[str, ...]:
    words = arguments.split()
    if not words or arguments.strip("-") in ("ef", "e f", "f", "fe"):
        return ("uid", *_FULL[1:])
    if arguments.strip("-") in ("aux", "auxww", "ux", "axu"):
        return _AUX
    chosen: list[str] = []
    text = " ".join(words)
    for piece in re.findall(r"(?:^|\s)-?[eA]*o\s*([\w%,=]+)", text):
        chosen += [column.partition("=")[0] for column in piece.split(",") if column]
    known = {"uid", *_FULL, *_AUX, "comm"}
    out = tuple(_ALIASES.get(column.lower(), column.lower()) for column in chosen)
    if not out or any(column not in known for column in out):
        raise InvalidInput(
            f"ps arguments {arguments[:60]!r} are not understood",
            hint="use -ef, aux, or -o with column names",
        )
    if "pid" not in out:
        raise InvalidInput("Couldn't find PID field in ps output")
    return out


def _values(process: Process, now_ns: int) -> dict[str, str]:
    import time

    started = time.localtime(process.started_at_ns // _NANO)
    is_today = now_ns - process.started_at_ns < 24 * 3600 * _NANO
    stime = time.strftime("%H:%M" if is_today else "%b%d", started)
    minutes, seconds = divmod(process.cpu_time_s, 60)
    user = _user_name(process.uid)
    return {
        "uid": user,
        "user": user,
        "pid": str(process.pid),
        "ppid": str(process.ppid),
        "c": str(process.cpu_percent),
        "%cpu": f"{process.cpu_percent}.0",
        "%mem": "0.0",
        "vsz": str(process.vsz_bytes // 1024),
        "rss": str(process.rss_bytes // 1024),
        "stime": stime,
        "start": stime,
        "tty": process.tty or "?",
        "stat": process.state or "S",
        "time": f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}",
        "cmd": process.args or f"[{process.comm}]",
        "command": process.args or f"[{process.comm}]",
        "comm": process.comm,
    }


def _user_name(uid: int) -> str:
    """The host's name of a uid, as `ps` on the host prints it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
