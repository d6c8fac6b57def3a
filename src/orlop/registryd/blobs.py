"""Operations on blobs: read, ask, delete."""

from __future__ import annotations

from orlop.aio.http_messages import FileResponse, HeaderFields, Response
from orlop.oci.digest import Digest
from orlop.registryd.calls import Answer, Call
from orlop.registryd.problems import Problem, Word
from orlop.registryd.ranges import parse_range

__all__ = ["blob_headers", "delete", "get"]


async def get(call: Call) -> Answer:
    """GET and HEAD of a blob, whole or a range."""
    storage, digest = call.services.storage, Digest(call.reference)
    size = await storage.blob_size(call.name, digest)
    if size is None:
        if call.services.cache is not None:
            return await call.services.cache.blob(call)
        raise unknown(digest)
    fields = blob_headers(digest)
    if call.header("if-none-match").strip() in {f'"{digest}"', "*"}:
        return Response(304, b"", fields)
    offset, length, status = 0, size, 200
    if_range = call.header("if-range")
    if if_range in {"", f'"{digest}"'} and (part := parse_range(call.header("range"), size)) is not None:
        offset, length = part
        status = 206
        fields = (*fields, ("Content-Range", f"bytes {offset}-{offset + length - 1}/{size}"))
    fd = -1 if call.is_head else storage.open_blob(digest)
    return FileResponse(fd, offset, length, status, fields)


async def delete(call: Call) -> Answer:
    """DELETE: the repository sees the blob no longer."""
    digest = Digest(call.reference)
    if not await call.services.storage.unlink_blob(call.name, digest):
        raise unknown(digest)
    return Response(202)


def blob_headers(digest: Digest) -> HeaderFields:
    """What every answer about a blob says; content never changes under its digest."""
    return (
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", digest),
        ("Etag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", "max-age=31536000, immutable"),
    )


def unknown(digest: Digest) -> Problem:
    """The repository has no such blob."""
    return Problem(Word.BLOB_UNKNOWN, "blob unknown to registry", detail={"digest": digest})
