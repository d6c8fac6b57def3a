import asyncio
import os

import pytest

from orlop.base.errors import InvalidInput
from orlop.procs.selftest import echo
from orlop.procs.workers import InlineWorkers


def test_inline_workers_run_jobs_with_descriptors_and_progress():
    reader, writer = os.pipe()
    os.write(writer, b"in the pipe")
    seen = []

    async def whole():
        workers = InlineWorkers({"echo": echo})
        result = await workers.run("echo", {"steps": 2}, fds=[reader], progress=seen.append)
        await asyncio.sleep(0)
        return result

    result = asyncio.run(whole())

    assert result == {"payload": {"steps": 2}, "read": ["in the pipe"]}
    assert seen == [{"step": 0}, {"step": 1}]
    os.close(reader)
    os.close(writer)


def test_inline_workers_raise_the_jobs_error():
    workers = InlineWorkers({"echo": echo})

    with pytest.raises(InvalidInput, match="on purpose") as caught:
        asyncio.run(workers.run("echo", {"fail": "on purpose"}))

    assert (caught.value.hint, caught.value.facts) == ("do not ask for it", {"value": 7})
