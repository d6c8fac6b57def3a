"""Blob uploads: one POST to begin, PATCH with the bytes, PUT with the digest.

A broken PATCH is resumed where the registry says it is (GET on the upload); an upload that
the registry has forgotten begins anew. The Location of an upload may point anywhere; it is
followed under the rule of redirects and gets credentials only at the registry's own origin.
Spec: OCI distribution-spec, "Pushing blobs".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Protocol
from urllib.parse import quote

from orlop.aio.http_client import ConnectFailed
from orlop.aio.url import Url, with_query
from orlop.base import log
from orlop.base.errors import OrlopError
from orlop.oci.digest import Digest, algorithm
from orlop.registry.auth import scope_text
from orlop.registry.errors import AccessDenied, BadRegistry, Unauthorized, parse_problem
from orlop.registry.retry import Attempts
from orlop.registry.session import TRANSIENT_ERRORS, Answer, Session, read_answer

__all__ = ["BlobSource", "Sent", "mount_blob", "upload_blob"]

_MAX_ANSWER_BYTES = 64 << 10
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})\Z")
# A registry may hash or copy the whole blob before it answers.
_COMMIT_TIMEOUT_S = 300.0

Sent = Callable[[int], None]


class BlobSource(Protocol):
    """Bytes to upload, readable again from any offset; the same bytes every time."""

    @property
    def size_bytes(self) -> int | None:
        """How many bytes; None when that is known only at the end."""

    @property
    def digest(self) -> Digest:
        """Of all bytes; asked for when they have been read to the end."""

    def chunks(self, offset: int) -> AsyncIterator[bytes | memoryview]:
        """The bytes from `offset` to the end."""


class _RestOf:
    """What is left of a source, as a request body."""

    def __init__(self, source: BlobSource, offset: int, sent: Sent) -> None:
        self._source = source
        self._offset = offset
        self._sent = sent
        self.position = offset

    @property
    def length(self) -> int | None:
        size = self._source.size_bytes
        return None if size is None else size - self._offset

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        self.position = self._offset
        async for chunk in self._source.chunks(self._offset):
            yield chunk
            self.position += len(chunk)
            self._sent(self.position)


async def mount_blob(session: Session, repository: str, digest: Digest, source: str) -> bool:
    """Let `repository` share a blob of `source` on the same registry; False when it does not.

    Raises:
        RegistryError and the errors of `HttpClient.request`.
    """
    path = f"/v2/{repository}/blobs/uploads/?mount={quote(digest, safe='')}&from={quote(source, safe='')}"
    scope = f"{scope_text(repository, 'pull,push')} {scope_text(source, 'pull')}"
    try:
        answer = await session.call("POST", session.endpoint.url(path), scope=scope)
    except (Unauthorized, AccessDenied) as error:
        # no token for the source's repository: then the bytes are sent
        log.info("blob not mounted", digest=digest, source=source, error=str(error))
        return False
    if answer.status == 202:  # not mounted: the registry has begun an upload instead
        upload = _Upload(session, repository, None, lambda _: None)
        upload.take_location(answer)
        await upload.cancel()
    return answer.status == 201


async def upload_blob(
    session: Session, repository: str, source: BlobSource, *, sent: Sent = lambda _: None
) -> None:
    """Send a blob; `repository` has it when this returns.

    Args:
        session: the registry's own endpoint, for pushing.
        repository: path of the target.
        source: read from offset 0, and again from later offsets after failures.
        sent: told the bytes handed over so far; may go back after a failure.

    Raises:
        RegistryError and the errors of `HttpClient.request`; what `source` raises.
    """
    upload = _Upload(session, repository, source, sent)
    attempts = Attempts(session.retry)
    while True:
        begun = upload.position
        try:
            await upload.send()
            await upload.commit()
        except (*TRANSIENT_ERRORS, ConnectFailed, _UploadLost) as error:
            await upload.recover()
            delay = attempts.delay_after_failure(progress_bytes=upload.position - begun)
            if delay is None:
                raise _cause(error) from error
            await asyncio.sleep(delay)
        except BaseException:
            await upload.cancel()
            raise
        else:
            return


class _UploadLost(Exception):
    def __init__(self, failure: OrlopError) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _cause(error: Exception) -> Exception:
    return error.failure if isinstance(error, _UploadLost) else error


class _Upload:
    """The state of one upload: where it is and how far it has come."""

    def __init__(self, session: Session, repository: str, source: BlobSource | None, sent: Sent) -> None:
        self._session = session
        self._repository = repository
        self._source = source
        self._sent = sent
        self._scope = scope_text(repository, "pull,push")
        self._location: Url | None = None
        self._is_sent = False
        self.position = 0

    async def send(self) -> None:
        """Open an upload if there is none, and PATCH everything from the position on."""
        if self._location is None:
            url = self._session.endpoint.url(f"/v2/{self._repository}/blobs/uploads/")
            answer = await self._session.call("POST", url, scope=self._scope)
            if answer.status != 202:
                raise parse_problem(answer.status, answer.headers, answer.body).to_error()
            self.take_location(answer)
            self.position, self._is_sent = 0, False
        source = self._known_source()
        size = source.size_bytes
        if self._is_sent or self.position == size:
            return
        headers = {"Content-Type": "application/octet-stream"}
        if self.position and size is not None:
            headers["Content-Range"] = f"{self.position}-{size - 1}"
        body = _RestOf(source, self.position, self._sent)
        answer = await self._once("PATCH", self._known_location(), headers, body)
        if answer.status not in {201, 202, 204}:
            self._fail(answer)
        self.take_location(answer)
        self.position, self._is_sent = body.position, True

    async def commit(self) -> None:
        """PUT the digest; the blob exists afterwards."""
        digest = self._known_source().digest
        url = with_query(self._known_location(), digest=digest)
        answer = await self._once("PUT", url, {"Content-Type": "application/octet-stream"}, None)
        if answer.status not in {201, 204}:
            self._fail(answer)
        claimed = answer.header("docker-content-digest")
        if claimed.startswith(f"{algorithm(digest)}:") and claimed != digest:
            raise BadRegistry(f"{self._session.endpoint.origin} stored {claimed} instead of {digest}")

    async def recover(self) -> None:
        """Ask how far the upload came; forget it when the registry cannot tell."""
        location, self._location = self._location, None
        self.position, self._is_sent = 0, False
        if location is None:
            return
        try:
            answer = await self._once("GET", location, {}, None)
        except OrlopError:
            return
        match = _RANGE.match(answer.header("range"))
        if answer.status in {202, 204} and match is not None:
            self._location = location
            if answer.header("location"):
                self.take_location(answer)
            # "0-0" is one byte to some and none to others: none is the safe reading
            end = int(match[1]) + 1 if match[1] != "0" else 0
            size = self._known_source().size_bytes
            self.position = end if size is None or end <= size else 0

    async def cancel(self) -> None:
        """Tell the registry to forget the upload; a courtesy that may fail."""
        location, self._location = self._location, None
        if location is None:
            return
        try:
            async with asyncio.timeout(2):
                await self._once("DELETE", location, {}, None)
        except (OrlopError, TimeoutError) as error:
            log.debug("upload not cancelled", error=str(error))

    async def _once(self, method: str, url: Url, headers: dict[str, str], body: _RestOf | None) -> Answer:
        async with self._session.request(
            method, url, scope=self._scope, headers=headers, body=body, timeout_s=_COMMIT_TIMEOUT_S
        ) as response:
            return await read_answer(response, _MAX_ANSWER_BYTES)

    def _fail(self, answer: Answer) -> None:
        problem = parse_problem(answer.status, answer.headers, answer.body)
        is_lost = answer.status in {404, 408, 416, 429} or answer.status >= 500
        raise _UploadLost(problem.to_error()) if is_lost else problem.to_error()

    def _known_source(self) -> BlobSource:
        assert self._source is not None
        return self._source

    def _known_location(self) -> Url:
        assert self._location is not None
        return self._location

    def take_location(self, answer: Answer) -> None:
        """Follow the upload to where the registry says it goes on."""
        location = answer.header("location")
        if not location:
            if self._location is None:
                raise BadRegistry(f"{self._session.endpoint.origin} names no location for an upload")
            return
        self._location = self._session.check_target(answer.url.join(location), answer.url)
