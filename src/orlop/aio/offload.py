"""C calls that release the GIL, off the loop: hash, inflate, deflate, fsync, big reads.

Give it chunks of 256 KiB or more; a hop costs some 50 microseconds. Python work belongs to a
worker process, not here. The pool is bounded: callers queue.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["close", "thread"]

P = ParamSpec("P")
T = TypeVar("T")

# fsync waits for a disk, not for a processor: more threads than cores keep group commits together
_THREADS = min(32, (os.cpu_count() or 1) * 4)

_pool: ThreadPoolExecutor | None = None


def _executor() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603 - one pool per process, made when first used
    if _pool is None:
        _pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="offload")
    return _pool


async def thread(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` in the pool and return what it returns.

    A cancelled caller stays until `fn` has ended: `fn` may be using the caller's buffers and fds,
    which nobody may reuse or close under it.
    """
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(_executor(), lambda: fn(*args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue  # cancelled again: the first one is raised below, still after the end
        if not future.cancelled():
            future.exception()  # marks it as retrieved
        raise


def close() -> None:
    """Wait for running calls and let the threads go; the next `thread` starts new ones."""
    global _pool  # noqa: PLW0603 - see above
    if _pool is not None:
        _pool.shutdown(wait=True)
        _pool = None
