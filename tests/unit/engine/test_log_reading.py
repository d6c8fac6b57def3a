"""Logs are read off the event loop, and nothing stays open of a reader that nobody got."""

import asyncio
import os
import threading
from types import SimpleNamespace

import pytest

from orlop.engine import logs
from orlop.runtime import logarchive
from orlop.runtime import logs as runtime_logs
from orlop.runtime.logarchive import compress_file
from orlop.runtime.logs import LogQuery, LogReader
from orlop.runtime.logwriter import LogWriter, log_files


@pytest.fixture
def directory(tmp_path):
    """A log of some files, all but the last compressed."""
    writer = LogWriter(str(tmp_path), max_size_bytes=1 << 16, max_files=9)
    for number in range(300):
        writer.write(1, memoryview(b"%04d " % number * 100 + b"\n"))
    writer.close()
    fd = os.open(tmp_path, os.O_RDONLY)
    for number in log_files(fd)[:-1]:
        compress_file(fd, number)
    os.close(fd)
    assert len(log_files(str(tmp_path))) > 2
    return str(tmp_path)


def open_files():
    return len(os.listdir("/proc/self/fd"))


def stopped_container():
    return SimpleNamespace(task=None, exit_waiters=set())


async def collect(stream):
    return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("tail", [None, 250])
@pytest.mark.parametrize("follow", [False, True])
def test_files_are_opened_and_read_in_other_threads(directory, monkeypatch, tail, follow):
    threads = []
    expand = logarchive._expand

    def watched(source, place):
        threads.append(threading.current_thread())
        return expand(source, place)

    monkeypatch.setattr(logarchive, "_expand", watched)
    query = LogQuery(tail=tail)
    container = stopped_container()
    encode = logs._encoder(b"", has_tty=True, has_timestamps=False)

    def stream():
        if follow:
            return logs._follow(container, directory, query, encode)
        return logs._read(container, 0, directory, query, encode)

    data = asyncio.run(collect(stream()))

    assert data.count(b"\n") == (tail or 300)
    assert threads
    assert threading.main_thread() not in threads


def test_who_goes_away_while_the_log_is_opened_leaves_nothing_open(directory, monkeypatch):
    entered, release = threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        entered.set()
        assert release.wait(10)
        return LogReader(*args, **kwargs)

    monkeypatch.setattr(logs, "LogReader", slow)

    async def run():
        async def read():
            async with logs._opened(directory, LogQuery(), follow=True):
                pytest.fail("cancelled before")

        task = asyncio.create_task(read())
        while not entered.is_set():
            await asyncio.sleep(0.001)
        before = open_files()
        task.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return before

    assert asyncio.run(run()) >= open_files()


def test_a_reader_that_finds_no_place_closes_its_watch(directory, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runtime_logs, "start_position", fail)
    before = open_files()
    with pytest.raises(OSError, match="No space"):
        LogReader(directory, follow=True)
    assert open_files() == before


def test_what_is_expanded_is_kept_in_no_memory(directory):
    fd = logarchive.open_file(directory, log_files(directory)[0])
    try:
        assert os.fstat(fd).st_dev == os.stat(directory).st_dev
        assert os.fstat(fd).st_nlink == 0
    finally:
        os.close(fd)
    assert not [name for name in os.listdir(directory) if not name.startswith("0")]


def test_without_inotify_a_follower_looks_now_and_then(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(runtime_logs, "_watch", fail)
    writer = LogWriter(str(tmp_path), max_size_bytes=1 << 20, max_files=2)
    writer.write(1, memoryview(b"one\n"))
    container = SimpleNamespace(task=object(), exit_waiters=set())
    encode = logs._encoder(b"", has_tty=True, has_timestamps=False)

    async def run():
        stream = logs._follow(container, str(tmp_path), LogQuery(), encode)
        async with asyncio.timeout(20):
            assert await anext(stream) == b"one\n"
            writer.write(1, memoryview(b"two\n"))
            assert await anext(stream) == b"two\n"
            container.task = None
            assert await collect(stream) == b""

    asyncio.run(run())
    writer.close()
