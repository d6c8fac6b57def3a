"""Rows about the logs of containers; bench/rows.py says what a row is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from harness import Engine
from rows import MILLI, NotComparable, Row

MEGA = 1_000_000
_LINES = "yes {text} | head -c {size}"
_TEXT = "x" * 99
_GIB = 1 << 30
_COPY_BYTES = 1000 * MEGA


def _start(engine: Engine, script: str, **options: str) -> str:
    """A started container whose log keeps more than a GiB."""
    log = {"Type": "json-file", "Config": {"max-size": "2g", "max-file": "2", **options}}
    body = {
        "Image": "bench",
        "Cmd": ["sh", "-c", script],
        "HostConfig": {"NetworkMode": "none", "LogConfig": log},
    }
    name = str(engine.call("POST", "/containers/create", body)["Id"])
    engine.call("POST", f"/containers/{name}/start")
    return name


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def copy_rate(engine: Engine) -> float:
    """MB of 100-byte lines that a CPU-second of the supervisor brings into the log."""
    if engine.name != "orlop":
        raise NotComparable("one process for all")
    size = _COPY_BYTES
    lines = _LINES.format(text=_TEXT, size=size)
    name = _start(engine, f"while ! test -e /go; do sleep 0.1; done; {lines}; sleep 600")
    supervisor = _parent(int(engine.call("GET", f"/containers/{name}/json")["State"]["Pid"]))
    before = _cpu_s(supervisor)
    engine.docker("exec", name, "sh", "-c", ": > /go")
    directory = engine.call("GET", f"/containers/{name}/json")["LogPath"]
    while sum(entry.stat().st_size for entry in os.scandir(directory)) < size:
        time.sleep(0.05)
    spent = _cpu_s(supervisor) - before
    engine.call("DELETE", f"/containers/{name}?force=1")
    return size / MEGA / spent


class _Gibibyte:
    """A container per engine whose log is 1 GiB of lines; made by the first row that needs it."""

    made: dict[str, str] = {}  # noqa: RUF012 - one for the run

    @classmethod
    def of(cls, engine: Engine) -> str:
        if engine.name not in cls.made:
            name = _start(engine, _LINES.format(text=_TEXT, size=_GIB) + "; echo last")
            engine.call("POST", f"/containers/{name}/wait")
            cls.made[engine.name] = name
        return cls.made[engine.name]


def _fastest(work: Callable[[], object], times: int) -> float:
    spans = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spans.append(time.perf_counter() - began)
    return min(spans)


def tail_of_gibibyte(engine: Engine) -> float:
    """`docker logs --tail 10`, client included."""
    name = _Gibibyte.of(engine)
    return _fastest(lambda: engine.docker("logs", "--tail", "10", name), 5) / MILLI


def since_in_gibibyte(engine: Engine) -> float:
    """The last lines by time, over the API."""
    name = _Gibibyte.of(engine)
    at = engine.docker("logs", "-t", "--tail", "1", name).stdout.decode().split()[0]
    return _fastest(lambda: engine.docker("logs", "--since", at, name), 5) / MILLI


def read_rate(engine: Engine) -> float:
    """`docker logs` of 100 MB of lines into nothing, MB a second."""
    name = _start(engine, _LINES.format(text=_TEXT, size=100 * MEGA))
    engine.call("POST", f"/containers/{name}/wait")
    return 100 / _fastest(lambda: engine.docker("logs", name), 2)


LOG_ROWS = (
    Row("log copying, 100-byte lines, per CPU-second", "MB", 500, copy_rate, is_more_better=True),
    Row("docker logs --tail 10 of 1 GiB", "ms", 50, tail_of_gibibyte),
    Row("docker logs --since the last line of 1 GiB", "ms", 50, since_in_gibibyte),
    Row("docker logs of 100 MB of lines", "MB/s", None, read_rate, is_more_better=True),
)
