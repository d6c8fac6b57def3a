"""Operations on manifests: read, ask, store, delete; by tag and by digest."""

from __future__ import annotations

import asyncio

from orlop.aio.http_messages import BodyTooLarge, Response
from orlop.oci.digest import Digest, digest_of
from orlop.registryd.calls import Answer, Call
from orlop.registryd.documents import MAX_MANIFEST_BYTES, parse_manifest_document
from orlop.registryd.names import check_digest, check_tag, is_digest
from orlop.registryd.problems import Problem, Word
from orlop.registryd.storage.contract import Missing

__all__ = ["delete", "get", "put"]

MAX_TAGS = 10  # of one push


async def get(call: Call) -> Answer:
    """GET and HEAD of a manifest."""
    services = call.services
    if services.cache is not None:
        await services.cache.refresh_manifest(call)
    row = await services.storage.find_manifest(call.name, call.reference)
    if row is None:
        raise await _unknown(call)
    fields = (
        ("Content-Type", row.media_type),
        ("Docker-Content-Digest", row.digest),
        ("Etag", f'"{row.digest}"'),
    )
    if call.header("if-none-match").strip() == f'"{row.digest}"':
        return Response(304, b"", fields)
    return Response(200, await services.storage.read_manifest(row.digest), fields)


async def put(call: Call) -> Answer:
    """PUT: a manifest under a tag, or under its digest with any number of tags."""
    services = call.services
    try:
        async with asyncio.timeout(services.settings.body_idle_s):
            data = await call.incoming.body.read(MAX_MANIFEST_BYTES)
    except BodyTooLarge as error:
        raise Problem(
            Word.SIZE_INVALID, f"manifests have at most {MAX_MANIFEST_BYTES} bytes", status=413
        ) from error
    except TimeoutError as error:
        raise Problem(Word.MANIFEST_INVALID, "the client sends nothing", status=408) from error
    digest, tags = _target(call, data)
    document = parse_manifest_document(data, call.header("content-type"), digest)
    missing = Missing.ANY if services.settings.allows_sparse else Missing.NOTHING
    await services.storage.put_manifest(call.name, document, tags, missing)
    fields = [
        ("Location", f"/v2/{call.name}/manifests/{call.reference}"),
        ("Docker-Content-Digest", digest),
        *(("OCI-Tag", tag) for tag in tags if is_digest(call.reference)),
        *((("OCI-Subject", document.subject),) if document.subject else ()),
    ]
    return Response(201, b"", tuple(fields))


async def delete(call: Call) -> Answer:
    """DELETE: a tag, or a manifest with all its tags."""
    storage = call.services.storage
    if is_digest(call.reference):
        is_gone = await storage.delete_manifest(call.name, Digest(call.reference))
    else:
        is_gone = await storage.delete_tag(call.name, call.reference)
    if not is_gone:
        raise await _unknown(call)
    return Response(202)


def _target(call: Call, data: bytes) -> tuple[Digest, list[str]]:
    """The digest to store under and the tags to set."""
    if is_digest(call.reference):
        tags = [check_tag(text) for text in call.query.get("tag", ())]
        if len(tags) > MAX_TAGS:
            raise Problem(Word.TAG_INVALID, f"at most {MAX_TAGS} tags at once", status=414)
        return Digest(call.reference), list(dict.fromkeys(tags))
    wanted = call.parameter("digest")
    return check_digest(wanted) if wanted else digest_of(data), [call.reference]


async def _unknown(call: Call) -> Problem:
    if not await call.services.storage.has_repository(call.name):
        return Problem(Word.NAME_UNKNOWN, "repository name not known to registry", detail={"name": call.name})
    detail: dict[str, object] = {"name": call.name, "reference": call.reference}
    return Problem(Word.MANIFEST_UNKNOWN, "manifest unknown", detail=detail)
