"""Blobs as a stream that survives the connection.

A broken or stalled connection is replaced by one that asks for the rest (Range). A server
that ignores the range sends everything again and we drop what we have had. Nothing here
judges the content: position and size are checked, the digest is the receiver's business.
Spec: OCI distribution-spec, "Pulling blobs"; RFC 9110, 14.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from orlop.aio.http_client import ConnectFailed, Response
from orlop.base.errors import OrlopError
from orlop.oci.descriptor import Descriptor
from orlop.registry.errors import BadRegistry, parse_problem
from orlop.registry.retry import Attempts, parse_retry_after
from orlop.registry.session import TRANSIENT_ERRORS, Session, is_transient_status

__all__ = ["RetryNote", "iter_blob"]

_MAX_ERROR_BYTES = 64 << 10
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z")

# Told before a pause: seconds to wait, and why.
RetryNote = Callable[[float, OrlopError], None]


async def iter_blob(
    session: Session,
    path: str,
    descriptor: Descriptor,
    *,
    offset: int,
    scope: str,
    note: RetryNote | None = None,
) -> AsyncGenerator[memoryview, None]:
    """The bytes of a blob from `offset` to the end its descriptor announces.

    Each piece is valid until the next one is asked for.

    Raises:
        BadRegistry: more or fewer bytes than announced, or a range nobody asked for.
        RegistryError and the errors of `HttpClient.request`, when the retries are used up.
    """
    position = offset
    attempts = Attempts(session.retry)
    while position < descriptor.size_bytes:
        begun, retry_after_s = position, None
        try:
            async with aclosing(_attempt(session, path, descriptor, position, scope)) as pieces:
                async for piece in pieces:
                    position += len(piece)
                    yield piece
            failure: OrlopError = BadRegistry(
                f"{session.endpoint.origin} ended blob {descriptor.digest} early"
            )
        except _Transient as error:
            failure, retry_after_s = error.failure, error.retry_after_s
        except (*TRANSIENT_ERRORS, ConnectFailed) as error:
            failure = error
        if position == descriptor.size_bytes:
            return
        delay = attempts.delay_after_failure(retry_after_s, position - begun)
        if delay is None:
            raise failure
        if note is not None:
            note(delay, failure)
        await asyncio.sleep(delay)


class _Transient(Exception):
    def __init__(self, failure: OrlopError, retry_after_s: float | None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.retry_after_s = retry_after_s


async def _attempt(
    session: Session, path: str, descriptor: Descriptor, position: int, scope: str
) -> AsyncGenerator[memoryview, None]:
    headers = {"Range": f"bytes={position}-"} if position else {}
    url = session.endpoint.url(path)
    async with session.request("GET", url, scope=scope, headers=headers) as response:
        if is_transient_status(response.status):
            body = await response.read(_MAX_ERROR_BYTES)
            problem = parse_problem(response.status, response.headers, body)
            raise _Transient(problem.to_error(), parse_retry_after(response.header("retry-after")))
        if response.status not in {200, 206}:
            body = await response.read(_MAX_ERROR_BYTES)
            raise parse_problem(response.status, response.headers, body).to_error()
        skip = _skip(response, descriptor, position)
        left = descriptor.size_bytes - position
        async for piece in response.chunks():
            dropped = min(skip, len(piece))
            skip -= dropped
            rest = piece[dropped:]
            left -= len(rest)
            if left < 0:
                raise BadRegistry(
                    f"{session.endpoint.origin} sends more than the {descriptor.size_bytes} bytes "
                    f"of blob {descriptor.digest}"
                )
            if rest:
                yield rest


def _skip(response: Response, descriptor: Descriptor, position: int) -> int:
    """How many bytes of the body lie before `position`; checks what is announced."""
    size = descriptor.size_bytes
    begin = 0
    if response.status == 206:
        match = _CONTENT_RANGE.match(response.header("content-range"))
        if match is None or int(match[1]) > position or match[3] not in {"*", str(size)}:
            raise BadRegistry(
                f"{response.url.origin} answers a request for bytes from {position} of {size} with "
                f"{response.header('content-range')[:100]!r}"
            )
        begin = int(match[1])
    if response.length is not None and response.length != size - begin and response.status == 200:
        raise BadRegistry(
            f"{response.url.origin} has {response.length} bytes of blob {descriptor.digest}, "
            f"its manifest says {size}"
        )
    return position - begin
