"""Real workers: forked by a real zygote."""

import asyncio
import os
import time

import pytest

from orlop.base.errors import InvalidInput
from orlop.procs.workers import WorkerDied, ZygoteWorkers
from orlop.procs.zygote import Zygote

pytestmark = pytest.mark.root


def scenario(work):
    async def whole():
        zygote = await Zygote.start("test")
        try:
            return await asyncio.wait_for(work(ZygoteWorkers(zygote), zygote), 30)
        finally:
            await zygote.aclose()

    return asyncio.run(whole())


def test_a_job_gets_payload_and_descriptors_and_reports_progress():
    reader, writer = os.pipe()
    os.write(writer, b"bytes")
    os.close(writer)
    seen = []

    async def work(workers, _):
        return await workers.run("procs.echo", {"steps": 3, "x": "ü"}, fds=[reader], progress=seen.append)

    result = scenario(work)

    assert result == {"payload": {"steps": 3, "x": "ü"}, "read": ["bytes"]}
    assert [item["step"] for item in seen] == [0, 1, 2]
    os.close(reader)


def test_a_large_payload_and_result_travel():
    async def work(workers, _):
        return await workers.run("procs.echo", {"data": "x" * 2_000_000})

    assert len(scenario(work)["payload"]["data"]) == 2_000_000


def test_an_error_is_raised_as_itself():
    async def work(workers, _):
        with pytest.raises(InvalidInput, match="on purpose") as caught:
            await workers.run("procs.echo", {"fail": "on purpose"})
        return caught.value

    assert scenario(work).facts == {"value": 7}


def test_a_worker_that_ends_without_an_answer_is_told():
    async def work(workers, _):
        with pytest.raises(WorkerDied):
            await workers.run("procs.echo", {"exit": 3})
        return await workers.run("procs.echo", {})

    assert scenario(work)["read"] == []


def test_cancelling_kills_the_worker():
    async def work(workers, zygote):
        running = asyncio.ensure_future(workers.run("procs.echo", {"sleep_s": 100}))
        while not _children(zygote.pid):
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        deadline = time.monotonic() + 5
        while _workers(zygote.pid) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return _workers(zygote.pid)

    assert scenario(work) == []


def test_workers_die_with_the_zygote():
    async def work(workers, zygote):
        running = asyncio.ensure_future(workers.run("procs.echo", {"sleep_s": 100}))
        while not _workers(zygote.pid):
            await asyncio.sleep(0.01)
        (worker,) = _workers(zygote.pid)
        os.kill(zygote.pid, 9)
        with pytest.raises(WorkerDied):
            await running
        deadline = time.monotonic() + 5
        while _is_running(worker) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return _is_running(worker)

    assert not scenario(work)


def test_many_jobs_at_once():
    async def work(workers, _):
        return await asyncio.gather(*(workers.run("procs.echo", {"n": n}) for n in range(20)))

    assert [result["payload"]["n"] for result in scenario(work)] == list(range(20))


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def _workers(pid):
    return [child for child in _children(pid) if _name(child) == "orlop-worker"]


def _name(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
