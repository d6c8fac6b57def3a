"""`docker logs`: the log of a container as Docker's byte stream, read to its end or followed.

Frames go out as stdcopy frames, or raw when the container has a terminal. A follower wakes by inotify
and ends when the container does; what it has not read by then it still gets.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote_plus

from orlop.aio import offload
from orlop.base.errors import Kind, OrlopError
from orlop.engine.logdrivers import attributes, is_readable
from orlop.engine.model import Container, State
from orlop.engine.services import Services, container_paths
from orlop.runtime.contract import TaskGone
from orlop.runtime.logs import LogEntry, LogQuery, LogReader
from orlop.runtime.logwriter import remove_log
from orlop.wire.stdstream import header

__all__ = ["LogOptions", "LogStream", "clear_logs", "open_logs"]

_NANO = 1_000_000_000
# Clients read the log of a short command right after starting it, without waiting for its end. It was
# there, because dockerd takes longer to answer the start than the command takes.
_SETTLE_NS = 100_000_000
_READ_BYTES = 256 << 10
_BLIND_WAIT_S = 0.2

Encode = Callable[[LogEntry], bytes]


class LogsNotKept(OrlopError):
    """The container's log driver keeps nothing that could be read."""

    kind = Kind.UNSUPPORTED
    code = "logs-not-kept"


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What a client wants to see. `tail` None is everything."""

    follow: bool = False
    has_stdout: bool = False
    has_stderr: bool = False
    since_ns: int = 0
    until_ns: int = 0
    has_timestamps: bool = False
    tail: int | None = None
    has_details: bool = False
    contains: str = ""  # only lines with this text


@dataclass(slots=True)
class LogStream:
    """Bytes for the client (`aclose` ends a follower), and whether they are raw."""

    chunks: AsyncIterator[bytes]
    has_tty: bool


def open_logs(services: Services, container: Container, options: LogOptions) -> LogStream:
    """The log as a stream; a container that has not run has an empty one.

    Raises:
        LogsNotKept: driver `none`, or a service whose copy here was switched off.
    """
    if not is_readable(container.record.host.log_config):
        raise LogsNotKept("configured logging driver does not support reading")
    has_tty = container.record.config.tty
    directory = container_paths(services, container.id).log_dir
    query = LogQuery(
        has_stdout=options.has_stdout,
        has_stderr=options.has_stderr,
        since_ns=options.since_ns,
        until_ns=options.until_ns,
        tail=options.tail,
        contains=options.contains.encode(),
        # a frame a line, as clients expect; the bytes of a terminal have no frames
        as_chunks=has_tty
        and options.tail is None
        and not (options.has_timestamps or options.has_details or options.contains),
    )
    details = _details(attributes(container.record)) if options.has_details else b""
    encode = _encoder(details, has_tty=has_tty, has_timestamps=options.has_timestamps)
    if not os.path.isdir(directory):
        return LogStream(_nothing(), has_tty)
    if options.follow and container.task is not None:
        return LogStream(_follow(container, directory, query, encode), has_tty)
    settle_ns = 0
    if container.task is not None:
        settle_ns = container.state.started_ns + _SETTLE_NS - services.clock.now_ns()
    return LogStream(_read(container, settle_ns, directory, query, encode), has_tty)


async def clear_logs(services: Services, container: Container) -> None:
    """Remove what the container has logged so far; what it writes from now on is kept again.

    A running container's supervisor does it; the files of a stopped one are removed here.

    Raises:
        LogsNotKept: there is no log that could be read.
    """
    if not is_readable(container.record.host.log_config):
        raise LogsNotKept("configured logging driver does not support reading")
    task = container.task
    if task is not None:
        try:
            await task.clear_log()
        except TaskGone:
            pass
        else:
            return
    async with container.lock:
        if container.task is None:
            await offload.thread(remove_log, container_paths(services, container.id).log_dir)


def _details(values: dict[str, str]) -> bytes:
    """`a=1,b=2 `, escaped and sorted, as dockerd puts it before a line."""
    pairs = (f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(values.items()))
    return f"{','.join(pairs)} ".encode()


def _encoder(details: bytes, *, has_tty: bool, has_timestamps: bool) -> Encode:
    def encode(entry: LogEntry) -> bytes:
        data = details + entry.data if details else entry.data
        if has_timestamps:
            data = _timestamp(entry.time_ns) + data
        return data if has_tty else header(entry.stream, len(data)) + data

    return encode


def _timestamp(time_ns: int) -> bytes:
    """Docker's fixed width: nine digits of fraction."""
    seconds, nanos = divmod(time_ns, _NANO)
    base = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{base}.{nanos:09d}Z ".encode()


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk


async def _read(
    container: Container, settle_ns: int, directory: str, query: LogQuery, encode: Encode
) -> AsyncIterator[bytes]:
    if settle_ns > 0 and container.task is not None:
        await _wait_ended(container, min(settle_ns, _SETTLE_NS) / _NANO)
    async with _opened(directory, query) as reader:
        async for data in _present(reader, encode):
            yield data
        if rest := reader.finish():
            yield b"".join(map(encode, rest))


async def _follow(
    container: Container, directory: str, query: LogQuery, encode: Encode
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    more = asyncio.Event()
    ended: asyncio.Future[object] = loop.create_future()
    async with _opened(directory, query, follow=True) as reader:
        with ExitStack() as stack:
            limit_s = 1.0 if query.until_ns else None  # one with an end looks at the time
            if reader.is_following:
                loop.add_reader(reader.fileno(), more.set)
                stack.callback(loop.remove_reader, reader.fileno())
            else:
                limit_s = _BLIND_WAIT_S
            container.exit_waiters.add(ended)  # type: ignore[arg-type]  # its value is not looked at
            stack.callback(container.exit_waiters.discard, ended)
            ended.add_done_callback(lambda _: more.set())
            stack.callback(ended.cancel)
            while True:
                has_ended = ended.done() or container.task is None
                more.clear()
                async for data in _present(reader, encode):
                    yield data
                if has_ended or reader.is_past_end:
                    break
                await _wait(more, limit_s)
            if rest := reader.finish():
                yield b"".join(map(encode, rest))


@asynccontextmanager
async def _opened(directory: str, query: LogQuery, *, follow: bool = False) -> AsyncIterator[LogReader]:
    """A reader; finding its place can mean to read, and to expand, whole files."""
    made: list[LogReader] = []  # a caller that is cancelled in between must still close it
    try:
        await offload.thread(lambda: made.append(_open_reader(directory, query, follow=follow)))
        yield made[0]
    finally:
        for reader in made:
            reader.close()


def _open_reader(directory: str, query: LogQuery, *, follow: bool) -> LogReader:
    try:
        return LogReader(directory, query, follow=follow)
    except OSError as error:
        if not follow or error.errno not in (errno.EMFILE, errno.ENOSPC):
            raise
        # inotify instances or watches are used up, perhaps by others: look now and then
        return LogReader(directory, query)


async def _present(reader: LogReader, encode: Encode) -> AsyncIterator[bytes]:
    """What there is up to the present end, piece by piece."""

    def take() -> bytes:
        return b"".join(map(encode, reader.read(_READ_BYTES)))

    while True:
        if data := await offload.thread(take):
            yield data
        if reader.is_at_end or reader.is_past_end:
            return


async def _wait_ended(container: Container, limit_s: float) -> None:
    """Wait for the end of the container, no longer than `limit_s`."""
    ended: asyncio.Future[State] = asyncio.get_running_loop().create_future()
    container.exit_waiters.add(ended)
    try:
        await asyncio.wait([ended], timeout=limit_s)
    finally:
        container.exit_waiters.discard(ended)


async def _wait(more: asyncio.Event, limit_s: float | None) -> None:
    """Wait for something to read, no longer than `limit_s`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await more.wait()
