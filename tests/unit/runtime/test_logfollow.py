import asyncio

from orlop.runtime.logfollow import iter_log
from orlop.runtime.logs import LogQuery
from orlop.runtime.logwriter import LogWriter


def open_writer(tmp_path):
    return LogWriter(str(tmp_path), max_size_bytes=1 << 20, max_files=3)


def test_without_an_end_what_is_there_is_all(tmp_path):
    writer = open_writer(tmp_path)
    writer.write(1, memoryview(b"a\nb"))
    writer.close()

    async def whole():
        return [entry.data async for batch in iter_log(str(tmp_path), LogQuery()) for entry in batch]

    assert asyncio.run(whole()) == [b"a\n", b"b"]


def test_following_ends_with_the_writer_and_misses_nothing(tmp_path):
    writer = open_writer(tmp_path)

    async def whole():
        ended = asyncio.get_running_loop().create_future()
        seen = []

        async def follow():
            async for batch in iter_log(str(tmp_path), LogQuery(), ended=ended):
                seen.extend(entry.data for entry in batch)

        following = asyncio.ensure_future(follow())
        for n in range(5):
            writer.write(1, memoryview(b"%d\n" % n))
            while len(seen) <= n:
                await asyncio.sleep(0.001)
        writer.write(1, memoryview(b"last\nhalf"))
        writer.close()
        ended.set_result(None)
        await asyncio.wait_for(following, 5)
        return seen

    assert asyncio.run(whole()) == [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n", b"last\n", b"half"]
