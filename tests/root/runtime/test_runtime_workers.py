"""Real workers: forked by a real zygote."""

import asyncio
import io
import os
import stat
import tarfile
import time

import pytest

from orlop.base.errors import InvalidInput
from orlop.procs.workers import WorkerDied, ZygoteWorkers
from orlop.procs.zygote import Zygote
from orlop.store.layerfile import TAR_OFFSET

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


def test_sealed_workers_index_verify_and_unpack_a_layer(tmp_path):
    """Everything a layer can hold, by workers that can reach nothing but the file and the directory."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, fields in (
            ("dir", tarfile.DIRTYPE, {"mode": 0o1777, "uid": 1000}),
            (
                "dir/file",
                tarfile.REGTYPE,
                {"mode": 0o4755, "gid": 7, "pax_headers": {"SCHILY.xattr.user.a": "b"}},
            ),
            ("dir/hard", tarfile.LNKTYPE, {"linkname": "dir/file", "mode": 0o4755, "gid": 7}),
            ("dir/soft", tarfile.SYMTYPE, {"linkname": "/etc/passwd"}),
            ("node", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3}),
            ("pipe", tarfile.FIFOTYPE, {}),
        ):
            entry = tarfile.TarInfo(name)
            entry.type = kind
            for field, value in fields.items():
                setattr(entry, field, value)
            tar.addfile(entry)
    layer, directory = tmp_path / "layer", tmp_path / "tree"
    with open(layer, "wb") as file:
        file.seek(TAR_OFFSET)
        file.write(archive.getvalue())
    directory.mkdir()

    async def work(workers, _):
        fd, tree = os.open(layer, os.O_RDWR), os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            job = {"tar_size": len(archive.getvalue()), "algorithm": "sha256"}
            made = await workers.run("layers.index", job, fds=[fd])
            await workers.run("layers.verify", {"diff_id": made["diff_id"]}, fds=[fd])
            await workers.run("layers.unpack", {}, fds=[fd, tree])
            found = {path.name: path.lstat() for path in directory.rglob("*")}
            used = await workers.run("trees.usage", {}, fds=[tree])
            await workers.run("trees.empty", {}, fds=[tree])
            return found, used
        finally:
            os.close(fd)
            os.close(tree)

    found, used = scenario(work)

    assert set(found) == {"dir", "file", "hard", "soft", "node", "pipe"}
    assert stat.S_IMODE(found["file"].st_mode) == 0o4755
    assert (found["dir"].st_uid, found["file"].st_gid, found["file"].st_nlink) == (1000, 7, 2)
    assert found["node"].st_rdev == os.makedev(1, 3)
    assert used
    assert list(directory.iterdir()) == []
