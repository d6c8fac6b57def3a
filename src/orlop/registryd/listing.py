"""Lists: the base of the API, repositories, tags, referrers."""

from __future__ import annotations

from orlop.aio.http_messages import HeaderFields, Response
from orlop.oci.digest import Digest
from orlop.oci.mediatype import OCI_INDEX
from orlop.registryd.calls import Answer, Call
from orlop.registryd.paging import Page, link_to, parse_page
from orlop.registryd.problems import Problem, Word
from orlop.registryd.storage.contract import Referrer
from orlop.wire import gojson

__all__ = ["base", "catalog", "referrers", "tags"]

_JSON = ("Content-Type", "application/json")
_REFERRERS_BYTES = 3 << 20  # clients read indexes of up to 4 MiB


async def base(call: Call) -> Answer:
    """GET /v2/: this is a registry, and the visitor may come in."""
    call.services.gate.check_entry(call.visitor, call.incoming)
    return Response(200, b"{}", (_JSON,))


async def catalog(call: Call) -> Answer:
    """GET /v2/_catalog: the repositories that the visitor may pull from."""
    services = call.services
    if not services.gate.allows_catalog(call.visitor):
        raise services.gate.refuse(call.visitor, call.incoming, "", "*")
    page = _page(call)
    names: list[str] = []
    last = page.last
    while len(names) < page.count:
        found = await services.storage.repositories(Page(page.count + 1, last))
        visible = [name for name in found if services.gate.may_list(call.visitor, name)]
        names += visible
        if len(found) <= page.count:
            break
        last = found[-1]
    has_more = len(names) > page.count
    names = names[: page.count]
    fields: HeaderFields = link_to("/v2/_catalog", page, names[-1]) if has_more and names else ()
    return Response(200, gojson.encode({"repositories": names}), (_JSON, *fields))


async def tags(call: Call) -> Answer:
    """GET tags/list."""
    page = _page(call)
    found = await call.services.storage.tags(call.name, Page(page.count + 1, page.last))
    if not found and not await call.services.storage.has_repository(call.name):
        raise Problem(Word.NAME_UNKNOWN, "repository name not known to registry", detail={"name": call.name})
    shown = found[: page.count]
    has_more = len(found) > page.count and shown
    fields = link_to(f"/v2/{call.name}/tags/list", page, shown[-1]) if has_more else ()
    return Response(200, gojson.encode({"name": call.name, "tags": shown}), (_JSON, *fields))


async def referrers(call: Call) -> Answer:
    """GET referrers: an index of the manifests about a digest; an unknown one has none."""
    page = _page(call)
    wanted = call.parameter("artifactType")
    found = await call.services.storage.referrers(
        call.name, Digest(call.reference), wanted, Page(page.count + 1, page.last)
    )
    shown: list[dict[str, object]] = []
    size = 0
    for entry in found[: page.count]:
        value = _descriptor(entry)
        size += len(gojson.encode(value))
        if shown and size > _REFERRERS_BYTES:
            break
        shown.append(value)
    fields: HeaderFields = (("Content-Type", OCI_INDEX),)
    if wanted:
        fields += (("OCI-Filters-Applied", "artifactType"),)
    if shown and len(found) > len(shown):
        more = {"artifactType": wanted} if wanted else {}
        path = f"/v2/{call.name}/referrers/{call.reference}"
        fields += link_to(path, page, found[len(shown) - 1].digest, **more)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": shown}
    return Response(200, gojson.encode(index), fields)


def _page(call: Call) -> Page:
    return parse_page({name: call.parameter(name) for name in ("n", "last")})


def _descriptor(entry: Referrer) -> dict[str, object]:
    value: dict[str, object] = {
        "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size_bytes
    }  # fmt: skip
    if entry.artifact_type:
        value["artifactType"] = entry.artifact_type
    if entry.annotations:
        value["annotations"] = dict(entry.annotations)
    return value
