"""Operations that bring blobs in: whole, in chunks, resumed, mounted.

    POST                 new upload, 202        PATCH   more bytes, 202
    POST ?digest=        whole blob, 201        PUT     last bytes and the digest, 201
    POST ?mount=&from=   linked, 201, or 202    GET     how far it is, 204
                                                DELETE  cancelled, 204
Spec: OCI distribution-spec 1.1, "Push".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from orlop.aio.http_messages import HeaderFields, Response
from orlop.base.errors import OrlopError
from orlop.oci.digest import Digest
from orlop.registryd.calls import Answer, Call
from orlop.registryd.names import check_digest, check_name
from orlop.registryd.problems import Problem, Word
from orlop.registryd.ranges import parse_content_range, upload_range
from orlop.registryd.storage.contract import Upload

__all__ = ["begin", "cancel", "chunk", "finish", "status"]


async def begin(call: Call) -> Answer:
    """POST: an upload, a whole blob, or a mount."""
    storage = call.services.storage
    if (text := call.parameter("mount")) and await _mount(call, digest := check_digest(text)):
        return _created(call, digest)
    whole = check_digest(call.parameter("digest")) if call.parameter("digest") else None
    if whole is not None:
        _check_size(call, call.incoming.body.length or 0)
    upload_id = await storage.begin_upload(call.name)
    if whole is None:
        return _accepted(call, upload_id, 0, 202)
    async with storage.upload(call.name, upload_id) as upload:
        try:
            await _receive(call, upload)
        except (OrlopError, asyncio.CancelledError):
            await upload.discard()  # nobody knows its id
            raise
        await upload.commit(whole)
    return _created(call, whole)


async def status(call: Call) -> Answer:
    """GET: how far an upload is."""
    async with call.services.storage.upload(call.name, call.reference) as upload:
        return _accepted(call, call.reference, upload.offset, 204)


async def chunk(call: Call) -> Answer:
    """PATCH: the next bytes."""
    async with call.services.storage.upload(call.name, call.reference) as upload:
        await _take(call, upload)
        await upload.flush()
        return _accepted(call, call.reference, upload.offset, 202)


async def finish(call: Call) -> Answer:
    """PUT: the last bytes, if any, and the digest of them all."""
    digest = check_digest(call.parameter("digest"))
    async with call.services.storage.upload(call.name, call.reference) as upload:
        await _take(call, upload)
        await upload.commit(digest)
    return _created(call, digest)


async def cancel(call: Call) -> Answer:
    """DELETE: the upload is dropped."""
    async with call.services.storage.upload(call.name, call.reference) as upload:
        await upload.discard()
    return Response(204)


async def _mount(call: Call, digest: Digest) -> bool:
    """Link a blob of a repository that the visitor may read; without `from`, of any such."""
    services = call.services
    source = call.parameter("from")
    homes = [check_name(source)] if source else await services.storage.homes_of(digest)
    for home in homes:
        is_readable = "pull" in services.gate.allowed(call.visitor, home)
        if is_readable and await services.storage.mount_blob(home, call.name, digest):
            return True
    return False


async def _take(call: Call, upload: Upload) -> None:
    header = call.header("content-range")
    if header:
        first, last = parse_content_range(header)
        if first != upload.offset:
            raise Problem(
                Word.BLOB_UPLOAD_INVALID,
                f"the chunk begins at {first}, the upload goes on at {upload.offset}",
                status=416,
                headers=_place(call, call.reference, upload.offset),
            )
        length = call.incoming.body.length
        if length is not None and length != last - first + 1:
            raise Problem(Word.SIZE_INVALID, "Content-Range and Content-Length contradict each other")
    await _receive(call, upload)


async def _receive(call: Call, upload: Upload) -> None:
    _check_size(call, upload.offset + (call.incoming.body.length or 0))
    async for data in _patiently(aiter(call.incoming.body), call.services.settings.body_idle_s):
        _check_size(call, upload.offset + len(data))
        await upload.write(data)


async def _patiently(body: AsyncIterator[bytes], idle_s: float) -> AsyncIterator[bytes]:
    """The body, as long as something comes now and then."""
    while True:
        try:
            async with asyncio.timeout(idle_s):
                data = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Problem(Word.BLOB_UPLOAD_INVALID, "the client sends nothing", status=408) from error
        yield data


def _check_size(call: Call, size: int) -> None:
    limit = call.services.settings.max_blob_bytes
    if limit and size > limit:
        raise Problem(Word.SIZE_INVALID, f"blobs of more than {limit} bytes are not accepted", status=413)


def _created(call: Call, digest: Digest) -> Response:
    where = f"/v2/{call.name}/blobs/{digest}"
    return Response(201, b"", (("Location", where), ("Docker-Content-Digest", digest)))


def _accepted(call: Call, upload_id: str, offset: int, code: int) -> Response:
    fields = _place(call, upload_id, offset)
    least = call.services.settings.chunk_min_bytes
    if least:
        fields = (*fields, ("OCI-Chunk-Min-Length", str(least)))
    return Response(code, b"", fields)


def _place(call: Call, upload_id: str, offset: int) -> HeaderFields:
    return (
        ("Location", f"/v2/{call.name}/blobs/uploads/{upload_id}"),
        ("Range", upload_range(offset)),
        ("Docker-Upload-UUID", upload_id),
    )
