import asyncio
from types import SimpleNamespace

import pytest

from orlop.base.clock import ManualClock
from orlop.base.errors import InvalidInput
from orlop.engine.lifecycle import NotPossible, Status
from orlop.engine.metrics import stats_document, top
from orlop.runtime.contract import Process, Stats


def container(task=None, network="bridge"):
    host = SimpleNamespace(network_mode=network)
    return SimpleNamespace(
        name="web", id="c" * 64, task=task, status=Status.RUNNING, record=SimpleNamespace(host=host)
    )


STATS = Stats(
    read_at_ns=10**9,
    cpu_total_ns=5,
    cpu_system_ns=100,
    online_cpus=2,
    memory_usage_bytes=7,
    memory_limit_bytes=9,
    pids_current=3,
    pids_limit=50,
    blkio=((8, 0, "Read", 4096),),
)


def test_a_reading_has_docker_s_shape():
    document = stats_document(container(), STATS, None)

    assert document["name"] == "/web"
    assert document["cpu_stats"]["cpu_usage"]["total_usage"] == 5
    assert document["cpu_stats"]["online_cpus"] == 2
    assert "system_cpu_usage" not in document["precpu_stats"]
    assert document["memory_stats"]["limit"] == 9
    assert document["pids_stats"] == {"current": 3, "limit": 50}
    assert document["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 0, "op": "read", "value": 4096}
    ]
    assert document["networks"] == {}


def test_a_stopped_container_reads_empty():
    document = stats_document(container(), None, None)

    assert document["memory_stats"] == {}
    assert document["read"].startswith("0001-01-01")


class Task:
    async def top(self):
        return [Process(12, 1, 0, 0, 61, 0, "", "sleep 60", "sleep")]


def listing(arguments):
    return asyncio.run(top(container(Task()), arguments, ManualClock()))


def test_top_has_the_columns_of_ps():
    result = listing("")

    assert result.titles == ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
    assert result.processes[0][0] == "root"
    assert result.processes[0][-1] == "sleep 60"
    assert result.processes[0][-2] == "00:01:01"


@pytest.mark.parametrize(
    ("arguments", "titles"),
    [("aux", 11), ("-ef", 8), ("-o pid,args", 2), ("-eo pid -o comm", 2), ("-eopid,user", 2)],
)
def test_columns_can_be_chosen(arguments, titles):
    assert len(listing(arguments).titles) == titles


def test_other_arguments_are_refused():
    with pytest.raises(InvalidInput, match="not understood"):
        listing("--forest; rm -rf /")


def test_a_stopped_container_has_no_processes():
    with pytest.raises(NotPossible, match="is not running"):
        asyncio.run(top(container(None), "", ManualClock()))
