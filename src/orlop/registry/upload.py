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
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from orlop.aio.http_client import ConnectFailed
from orlop.aio.url import Url, with_query
from orlop.base import log
from orlop.base.errors import OrlopError
from orlop.oci.descriptor import Descriptor
from orlop.registry.auth import scope_text
from orlop.registry.errors import BadRegistry, parse_problem
from orlop.registry.retry import Attempts
from orlop.registry.session import TRANSIENT_ERRORS, Answer, Session, read_answer

__all__ = ["BlobSource", "Sent", "upload_blob"]

_MAX_ANSWER_BYTES = 64 << 10
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})\Z")
# A registry may hash or copy the whole blob before it answers.
_COMMIT_TIMEOUT_S = 300.0

Sent = Callable[[int], None]


class BlobSource(Protocol):
    """Bytes to upload, readable again from any offset."""

    def chunks(self, offset: int) -> AsyncIterator[bytes | memoryview]:
        """The bytes from `offset` to the end."""


@dataclass(frozen=True, slots=True)
class _RestOf:
    source: BlobSource
    offset: int
    length: int
    sent: Sent

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        position = self.offset
        async for chunk in self.source.chunks(self.offset):
            yield chunk
            position += len(chunk)
            self.sent(position)


async def upload_blob(
    session: Session,
    repository: str,
    descriptor: Descriptor,
    source: BlobSource,
    *,
    mount_from: str | None = None,
    sent: Sent = lambda _: None,
) -> bool:
    """Make sure that `repository` has the blob; True when it was mounted and nothing was sent.

    Args:
        session: the registry's own endpoint, for pushing.
        repository: path of the target.
        descriptor: digest and size of what `source` gives.
        source: read from offset 0, and again from later offsets after failures.
        mount_from: another repository of the same registry that has the blob.
        sent: told the bytes handed over so far; may go back after a failure.

    Raises:
        RegistryError and the errors of `HttpClient.request`.
    """
    upload = _Upload(session, repository, descriptor, source, sent)
    if await upload.begin(mount_from):
        return True
    attempts = Attempts(session.wire.retry)
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
            return False


class _UploadLost(Exception):
    def __init__(self, failure: OrlopError) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _cause(error: Exception) -> Exception:
    return error.failure if isinstance(error, _UploadLost) else error


class _Upload:
    """The state of one upload: where it is and how far it has come."""

    def __init__(
        self, session: Session, repository: str, descriptor: Descriptor, source: BlobSource, sent: Sent
    ) -> None:
        self._session = session
        self._repository = repository
        self._descriptor = descriptor
        self._source = source
        self._sent = sent
        self._scope = scope_text(repository, "pull,push")
        self._location: Url | None = None
        self.position = 0

    async def begin(self, mount_from: str | None = None) -> bool:
        """Open an upload, or mount; True when the registry mounted."""
        path, scope = f"/v2/{self._repository}/blobs/uploads/", self._scope
        if mount_from is not None:
            path += f"?mount={quote(self._descriptor.digest, safe='')}&from={quote(mount_from, safe='')}"
            scope += " " + scope_text(mount_from, "pull")
        answer = await self._session.call("POST", self._session.endpoint.url(path), scope=scope)
        if answer.status == 201 and mount_from is not None:
            return True
        if answer.status != 202:
            if mount_from is not None:
                return await self.begin()  # some registries refuse instead of falling back
            raise parse_problem(answer.status, answer.headers, answer.body).to_error()
        self._take_location(answer)
        self.position = 0
        return False

    async def send(self) -> None:
        """PATCH everything from the position on."""
        if self._location is None:
            await self.begin()
        size = self._descriptor.size_bytes
        if self.position == size:
            return
        headers = {"Content-Type": "application/octet-stream"}
        if self.position:
            headers["Content-Range"] = f"{self.position}-{size - 1}"
        body = _RestOf(self._source, self.position, size - self.position, self._sent)
        answer = await self._once("PATCH", self._known_location(), headers, body)
        if answer.status not in {201, 202, 204}:
            self._fail(answer)
        self._take_location(answer)
        self.position = size

    async def commit(self) -> None:
        """PUT the digest; the blob exists afterwards."""
        url = with_query(self._known_location(), digest=self._descriptor.digest)
        answer = await self._once("PUT", url, {"Content-Type": "application/octet-stream"}, None)
        if answer.status not in {201, 204}:
            self._fail(answer)
        claimed = answer.header("docker-content-digest")
        if claimed and claimed.startswith("sha256:") and claimed != self._descriptor.digest:
            raise BadRegistry(f"{self._session.endpoint.origin} stored {claimed} instead of what was sent")

    async def recover(self) -> None:
        """Ask how far the upload came; forget it when the registry cannot tell."""
        location, self._location, self.position = self._location, None, 0
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
                self._take_location(answer)
            # "0-0" is one byte to some and none to others: none is the safe reading
            end = int(match[1]) + 1 if match[1] != "0" else 0
            self.position = end if end <= self._descriptor.size_bytes else 0

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

    def _known_location(self) -> Url:
        assert self._location is not None
        return self._location

    def _take_location(self, answer: Answer) -> None:
        location = answer.header("location")
        if not location:
            if self._location is None:
                raise BadRegistry(f"{self._session.endpoint.origin} names no location for an upload")
            return
        self._location = self._session.check_target(answer.url.join(location), answer.url)
