"""The rows of DESIGN.md section 7 that this version can run, one function a row.

A row takes an engine that has the image `bench` (busybox) and returns seconds or bytes, smaller is
better, unless its budget says otherwise. The same code measures Orlop and the peer.
"""

from __future__ import annotations

import concurrent.futures
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness import Engine, halt, pss_bytes, relaunch

MILLI = 1e-3
MEBI = 1 << 20


class NotComparable(Exception):
    """The peer does not do this."""


@dataclass(frozen=True)
class Row:
    """What is measured, in which unit, and what it may cost."""

    name: str
    unit: str  # "ms", "s", "MB", "1/s"
    budget: float | None
    measure: Callable[[Engine], float]
    is_more_better: bool = False


def _median(work: Callable[[], object], times: int) -> float:
    spans = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spans.append(time.perf_counter() - began)
    return statistics.median(spans)


def _create(engine: Engine, *command: str, **host: object) -> str:
    body = {"Image": "bench", "Cmd": list(command), "HostConfig": {"NetworkMode": "none", **host}}
    created = engine.call("POST", "/containers/create", body)
    return str(created["Id"])


def _life(engine: Engine) -> None:
    name = _create(engine, "true")
    engine.call("POST", f"/containers/{name}/start")
    engine.call("POST", f"/containers/{name}/wait")
    engine.call("DELETE", f"/containers/{name}")


def container_life(engine: Engine) -> float:
    """Create + start + wait + remove over the API, no network."""
    _life(engine)
    return _median(lambda: _life(engine), 25) / MILLI


def run_with_client(engine: Engine) -> float:
    """`docker run --rm --network none` end to end."""
    run = lambda: engine.docker("run", "--rm", "--network", "none", "bench", "true")
    run()
    return _median(run, 15) / MILLI


def exec_over_api(engine: Engine) -> float:
    """Exec create + start + output of `true` in a running container."""
    name = _create(engine, "sleep", "600")
    engine.call("POST", f"/containers/{name}/start")

    def once() -> None:
        made = engine.call("POST", f"/containers/{name}/exec", {"Cmd": ["true"], "AttachStdout": True})
        engine.call("POST", f"/exec/{made['Id']}/start", {"Detach": False})

    once()
    span = _median(once, 25) / MILLI
    engine.call("DELETE", f"/containers/{name}?force=1")
    return span


def starts_sequential(engine: Engine) -> float:
    """Container starts a second, one at a time (create and start)."""
    return _starts(engine, 1)


def starts_parallel(engine: Engine) -> float:
    """Container starts a second, eight at a time."""
    return _starts(engine, 8)


def _starts(engine: Engine, width: int, count: int = 64) -> float:
    def start() -> str:
        name = _create(engine, "sleep", "600")
        engine.call("POST", f"/containers/{name}/start")
        return name

    with concurrent.futures.ThreadPoolExecutor(width) as pool:
        began = time.perf_counter()
        names = list(pool.map(lambda _: start(), range(count)))
        rate = count / (time.perf_counter() - began)
        list(pool.map(lambda name: engine.call("DELETE", f"/containers/{name}?force=1"), names))
    return rate


def ps_twenty(engine: Engine) -> float:
    """`docker ps` with 20 running containers."""
    names = [_create(engine, "sleep", "600") for _ in range(20)]
    for name in names:
        engine.call("POST", f"/containers/{name}/start")
    span = _median(lambda: engine.docker("ps"), 15) / MILLI
    for name in names:
        engine.call("DELETE", f"/containers/{name}?force=1")
    return span


def ps_thousand(engine: Engine) -> float:
    """GET /containers/json?all=1 with 1,000 created containers."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: _create(engine, "true"), range(1000)))
        span = _median(lambda: engine.call("GET", "/containers/json?all=1"), 9) / MILLI
        list(pool.map(lambda name: engine.call("DELETE", f"/containers/{name}"), names))
    return span


def images_twenty(engine: Engine) -> float:
    """`docker images` with 20 tags."""
    for number in range(20):
        engine.docker("tag", "bench", f"bench/copy:{number}")
    return _median(lambda: engine.docker("images"), 15) / MILLI


def restart_with_containers(engine: Engine) -> float:
    """Kill -9 and restart with 50 running containers, to the first answer."""
    if engine.name != "orlop":
        raise NotComparable("stops its containers")
    names = [_create(engine, "sleep", "600") for _ in range(50)]
    for name in names:
        engine.call("POST", f"/containers/{name}/start")
    halt(engine, 9)
    span = relaunch(engine)
    for name in names:
        engine.call("DELETE", f"/containers/{name}?force=1")
    return span / MILLI


def idle_memory(engine: Engine) -> float:
    """PSS of all the engine's processes with nothing running."""
    time.sleep(2)
    return sum(map(pss_bytes, engine.processes())) / MEBI


def memory_per_container(engine: Engine) -> float:
    """PSS that each of 20 sleeping containers adds, its own program included."""
    before = sum(map(pss_bytes, engine.processes()))
    names = [_create(engine, "sleep", "600") for _ in range(20)]
    for name in names:
        engine.call("POST", f"/containers/{name}/start")
    time.sleep(1)
    after = sum(map(pss_bytes, engine.processes()))
    for name in names:
        engine.call("DELETE", f"/containers/{name}?force=1")
    return (after - before) / 20 / MEBI


def log_lines(engine: Engine) -> float:
    """A container writing 32 MiB of lines to its log, create to exit."""
    script = "yes 0123456789012345678901234567890123456789012345678901234567890123 | head -c 33554432"

    def once() -> None:
        name = _create(engine, "sh", "-c", script)
        engine.call("POST", f"/containers/{name}/start")
        engine.call("POST", f"/containers/{name}/wait")
        engine.call("DELETE", f"/containers/{name}")

    return _median(once, 3)


CONTAINER_ROWS = (
    Row("idle engine, PSS of all processes", "MB", 60, idle_memory),
    Row("create + start + wait + remove, API, no network", "ms", 20, container_life),
    Row("docker run --rm --network none", "ms", 60, run_with_client),
    Row("exec over the API", "ms", 10, exec_over_api),
    Row("container starts, one at a time", "1/s", 40, starts_sequential, is_more_better=True),
    Row("container starts, eight at a time", "1/s", 60, starts_parallel, is_more_better=True),
    Row("docker ps, 20 containers", "ms", 30, ps_twenty),
    Row("list 1,000 containers, API", "ms", 50, ps_thousand),
    Row("docker images, 20 tags", "ms", 30, images_twenty),
    Row("each running container, PSS", "MB", 3, memory_per_container),
    Row("32 MiB of log lines", "s", 0.4, log_lines),
    Row("restart with 50 running containers", "ms", 1000, restart_with_containers),
)
