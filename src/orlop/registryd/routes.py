"""The operations as data, and the reading of paths. A path is decoded once and then checked strictly.

Spec: OCI distribution-spec 1.1, "Endpoints".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote_to_bytes

from orlop.registryd import blobs, listing, manifests, pushing
from orlop.registryd.calls import Route
from orlop.registryd.names import check_digest, check_name, check_reference
from orlop.registryd.problems import Problem, Word

__all__ = ["ROUTES", "Place", "find_route", "locate", "parse_query"]

MAX_TARGET = 8 << 10
MAX_PARAMETERS = 100

ROUTES = (
    Route("base", "GET", "base", "", listing.base),
    Route("base", "HEAD", "base", "", listing.base),
    Route("catalog", "GET", "catalog", "", listing.catalog),
    Route("tags", "GET", "tags", "pull", listing.tags),
    Route("referrers", "GET", "referrers", "pull", listing.referrers),
    Route("manifest-get", "GET", "manifest", "pull", manifests.get),
    Route("manifest-head", "HEAD", "manifest", "pull", manifests.get),
    Route("manifest-put", "PUT", "manifest", "push", manifests.put),
    Route("manifest-delete", "DELETE", "manifest", "delete", manifests.delete),
    Route("blob-get", "GET", "blob", "pull", blobs.get),
    Route("blob-head", "HEAD", "blob", "pull", blobs.get),
    Route("blob-delete", "DELETE", "blob", "delete", blobs.delete),
    Route("upload-begin", "POST", "uploads", "push", pushing.begin),
    Route("upload-status", "GET", "upload", "push", pushing.status),
    Route("upload-status", "HEAD", "upload", "push", pushing.status),
    Route("upload-chunk", "PATCH", "upload", "push", pushing.chunk),
    Route("upload-finish", "PUT", "upload", "push", pushing.finish),
    Route("upload-cancel", "DELETE", "upload", "push", pushing.cancel),
)

_PATHS = (
    ("uploads", re.compile(r"(.+)/blobs/uploads/?()\Z", re.DOTALL)),
    ("upload", re.compile(r"(.+)/blobs/uploads/([^/]+)\Z", re.DOTALL)),
    ("blob", re.compile(r"(.+)/blobs/([^/]+)\Z", re.DOTALL)),
    ("manifest", re.compile(r"(.+)/manifests/([^/]+)\Z", re.DOTALL)),
    ("tags", re.compile(r"(.+)/tags/list()\Z", re.DOTALL)),
    ("referrers", re.compile(r"(.+)/referrers/([^/]+)\Z", re.DOTALL)),
)
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}\Z")
_BY_PLACE = {kind: [route for route in ROUTES if route.place == kind] for kind in {r.place for r in ROUTES}}


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names; name and reference are "" where there is none."""

    kind: str
    name: str = ""
    reference: str = ""


def locate(raw_path: str) -> Place | None:
    """What the path of a request names; None for paths that are no part of the API.

    Raises:
        Problem: NAME_INVALID, DIGEST_INVALID, TAG_INVALID, BLOB_UPLOAD_UNKNOWN.
    """
    if len(raw_path) > MAX_TARGET:
        raise Problem(Word.NAME_INVALID, "the path is too long", status=414)
    path = unquote_to_bytes(raw_path).decode("utf-8", "replace")
    if path in {"/v2", "/v2/"}:
        return Place("base")
    if not path.startswith("/v2/"):
        return None
    rest = path[4:]
    if rest in {"_catalog", "_catalog/"}:
        return Place("catalog")
    for kind, pattern in _PATHS:
        if (match := pattern.match(rest)) is not None:
            return Place(kind, check_name(match[1]), _check(kind, match[2]))
    return None


def find_route(method: str, place: Place) -> Route:
    """The operation. Raises Problem UNSUPPORTED, with the methods that there are."""
    routes = _BY_PLACE[place.kind]
    for route in routes:
        if route.method == method:
            return route
    allowed = ", ".join(dict.fromkeys(route.method for route in routes))
    raise Problem(Word.UNSUPPORTED, "the method is not allowed here", headers=(("Allow", allowed),))


def parse_query(text: str) -> dict[str, list[str]]:
    """The parameters of a query. Raises Problem when there are too many."""
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="replace")
    except ValueError as error:
        raise Problem(Word.UNSUPPORTED, "too many query parameters", status=400) from error


def _check(kind: str, text: str) -> str:
    if kind == "manifest":
        return check_reference(text)
    if kind in {"blob", "referrers"}:
        return check_digest(text)
    if kind == "upload" and not _UPLOAD_ID.match(text):
        raise Problem(Word.BLOB_UPLOAD_UNKNOWN, "no such upload")
    return text
