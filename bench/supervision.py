"""Rows about containers that do not answer, and about many lives; bench/rows.py says what a row is."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import statistics
import time
from collections.abc import Iterator

from harness import Engine, pss_bytes
from rows import MEBI, MILLI, NotComparable, Row

_WEDGED_OF = 200
_CALLS = 200
_LIVES = 1000
_WARM_UP_LIVES = 200


def list_beside_wedged(engine: Engine) -> float:
    """GET /containers/json, 99th percentile, while the supervisors of half of 200 containers stand still."""
    with _half_wedged(engine):
        return _percentile(engine, ["/containers/json"] * _CALLS)


def inspect_beside_wedged(engine: Engine) -> float:
    """GET /containers/ID/json of each of them, 99th percentile."""
    with _half_wedged(engine) as names:
        return _percentile(engine, [f"/containers/{name}/json" for name in names])


def growth(engine: Engine) -> float:
    """PSS that engine and zygote gain over 1,000 container lives, after a warm-up."""
    if engine.name != "orlop":
        raise NotComparable("not measured")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: _life(engine), range(_WARM_UP_LIVES)))
        before = _settled_pss(engine)
        list(pool.map(lambda _: _life(engine), range(_LIVES)))
        return max(0.0, _settled_pss(engine) - before) / MEBI


def _settled_pss(engine: Engine) -> float:
    time.sleep(2)
    return sum(map(pss_bytes, engine.processes()))


def _create(engine: Engine, *command: str) -> str:
    body = {"Image": "bench", "Cmd": list(command), "HostConfig": {"NetworkMode": "none"}}
    return str(engine.call("POST", "/containers/create", body)["Id"])


def _life(engine: Engine) -> None:
    name = _create(engine, "true")
    engine.call("POST", f"/containers/{name}/start")
    engine.call("POST", f"/containers/{name}/wait")
    engine.call("DELETE", f"/containers/{name}")


def _percentile(engine: Engine, paths: list[str]) -> float:
    spans = []
    for path in paths:
        began = time.perf_counter()
        engine.call("GET", path)
        spans.append(time.perf_counter() - began)
    return statistics.quantiles(spans, n=100)[98] / MILLI


@contextlib.contextmanager
def _half_wedged(engine: Engine) -> Iterator[list[str]]:
    if engine.name != "orlop":
        raise NotComparable("has no supervisors")

    def start(_: int) -> str:
        name = _create(engine, "sleep", "1000000")
        engine.call("POST", f"/containers/{name}/start")
        return name

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        names = list(pool.map(start, range(_WEDGED_OF)))
        wedged = [engine.supervisor_pid(name) for name in names[::2]]
        for pid in wedged:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield names
        finally:
            for pid in wedged:
                os.kill(pid, signal.SIGCONT)
            list(pool.map(lambda name: engine.call("DELETE", f"/containers/{name}?force=1"), names))


SUPERVISION_ROWS = (
    Row("list, 100 of 200 containers wedged, p99", "ms", 100, list_beside_wedged),
    Row("inspect, 100 of 200 containers wedged, p99", "ms", 100, inspect_beside_wedged),
    Row("growth over 1,000 container lives, PSS", "MB", 1, growth),
)
