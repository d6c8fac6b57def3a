"""Follow a container's log from the engine's event loop (asyncio)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from orlop.runtime.logs import LogEntry, LogQuery, LogReader

__all__ = ["iter_log"]


async def iter_log(
    directory: str, query: LogQuery, *, ended: asyncio.Future[None] | None = None
) -> AsyncIterator[list[LogEntry]]:
    """Entries in batches, oldest first; a batch is at most about 1 MiB.

    Args:
        directory: the log's directory.
        query: what to read.
        ended: done once the writer has ended (a task that waits for the exit, say); until then
            new output is waited for. None reads what is there and stops. Cancel or close the
            iterator to stop earlier.
    """
    has_ended = ended is None
    with LogReader(directory, query, follow=not has_ended) as reader:
        while True:
            # Looked at before reading: what is read afterwards is then surely the last.
            has_ended = has_ended or ended is None or ended.done()
            for entries in reader.batches():
                if entries:
                    yield entries
                await asyncio.sleep(0)
            if reader.is_past_end:
                return
            if has_ended:
                break
            assert ended is not None
            await _wait_either(reader.fileno(), ended)
        if rest := reader.finish():
            yield rest


async def _wait_either(fd: int, ended: asyncio.Future[None]) -> None:
    """Until the log may have grown, or the end."""
    loop = asyncio.get_running_loop()
    grown: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, grown)
    try:
        await asyncio.wait({grown, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(fd)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
