"""Bodies that are ranges of files: by sendfile(2) on plain sockets, through memory under TLS."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable

from orlop.aio import offload
from orlop.aio.http_messages import FileResponse

__all__ = ["send_file"]

PIECE_BYTES = 4 << 20
READ_BYTES = 256 << 10
PIECE_TIMEOUT_S = 300.0  # a client slower than 14 kB/s holds a file and a connection for nothing


async def send_file(
    transport: asyncio.Transport,
    response: FileResponse,
    drain: Callable[[], Awaitable[None]],
    *,
    has_body: bool,
) -> None:
    """Send the body of an answer whose head was written; closes the file in every case.

    Raises:
        ConnectionError: the client has gone, does not read, or the file is shorter than promised.
    """
    if response.fd < 0:
        await drain()
        return
    with io.FileIO(response.fd, "rb") as file:
        position, end = response.offset, response.offset + (response.length if has_body else 0)
        await drain()
        while position < end:
            count = min(PIECE_BYTES, end - position)
            try:
                async with asyncio.timeout(PIECE_TIMEOUT_S):
                    sent = await _send_piece(transport, file, position, count, drain)
            except TimeoutError as error:
                raise ConnectionAbortedError("the client does not read") from error
            if sent != count:
                raise ConnectionAbortedError("the file is shorter than promised")
            position += count


async def _send_piece(
    transport: asyncio.Transport,
    file: io.FileIO,
    offset: int,
    count: int,
    drain: Callable[[], Awaitable[None]],
) -> int:
    if transport.get_extra_info("sslcontext") is None:
        loop = asyncio.get_running_loop()
        return await loop.sendfile(transport, file, offset, count, fallback=False)
    sent = 0
    while sent < count:
        size = min(READ_BYTES, count - sent)
        data = await offload.thread(os.pread, file.fileno(), size, offset + sent)
        if not data:
            break
        transport.write(data)
        await drain()
        sent += len(data)
    return sent
