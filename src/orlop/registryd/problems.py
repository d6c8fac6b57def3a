"""Errors as the distribution-spec has them: a word, a message, a detail; and their HTTP statuses.

Spec: OCI distribution-spec 1.1, "Error Codes"; the words without a number there are Docker's.
"""

from __future__ import annotations

import enum

from orlop.aio.http_messages import HeaderFields, Response
from orlop.base.errors import Kind, OrlopError
from orlop.wire import gojson

__all__ = ["Problem", "Word", "problem_of", "problem_response"]


class Word(enum.Enum):
    """What clients match on, and the status that goes with it."""

    BLOB_UNKNOWN = 404
    BLOB_UPLOAD_INVALID = 400, "upload"
    BLOB_UPLOAD_UNKNOWN = 404, "upload"
    DIGEST_INVALID = 400, "digest"
    MANIFEST_BLOB_UNKNOWN = 400, "reference"
    MANIFEST_INVALID = 400, "manifest"
    MANIFEST_UNKNOWN = 404, "manifest"
    NAME_INVALID = 400, "name"
    NAME_UNKNOWN = 404, "name"
    SIZE_INVALID = 400, "size"
    UNAUTHORIZED = 401
    DENIED = 403
    UNSUPPORTED = 405
    TOOMANYREQUESTS = 429
    TAG_INVALID = 400, "tag"
    PAGINATION_NUMBER_INVALID = 400, "page"
    RANGE_INVALID = 416
    UNAVAILABLE = 503
    UNKNOWN = 500

    @property
    def status(self) -> int:
        """The usual status of this word."""
        return self.value if isinstance(self.value, int) else self.value[0]


class Problem(OrlopError):
    """A request that is answered with an error.

    Args:
        word: what clients match on.
        message: for people.
        status: another status than the word's own.
        detail: named values, shown to the client.
        headers: more header fields of the answer.
    """

    kind = Kind.INVALID
    code = "registry-problem"

    def __init__(
        self,
        word: Word,
        message: str,
        *,
        status: int = 0,
        detail: dict[str, object] | None = None,
        headers: HeaderFields = (),
    ) -> None:
        super().__init__(message)
        self.word = word
        self.status = status or word.status
        self.detail = detail or {}
        self.headers = headers


_BY_KIND = {
    Kind.INVALID: (Word.UNSUPPORTED, 400),
    Kind.NOT_FOUND: (Word.BLOB_UNKNOWN, 404),
    Kind.CONFLICT: (Word.UNAVAILABLE, 409),
    Kind.UNAUTHORIZED: (Word.UNAUTHORIZED, 401),
    Kind.FORBIDDEN: (Word.DENIED, 403),
    Kind.UNSUPPORTED: (Word.UNSUPPORTED, 405),
    Kind.EXHAUSTED: (Word.UNAVAILABLE, 507),
    Kind.UNAVAILABLE: (Word.UNAVAILABLE, 503),
    Kind.CANCELLED: (Word.BLOB_UPLOAD_INVALID, 400),
}


def problem_of(error: Exception) -> Problem | None:
    """What to tell a client of an error; None for those that are our own fault."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, OrlopError) and error.kind in _BY_KIND:
        word, status = _BY_KIND[error.kind]
        return Problem(word, str(error), status=status)
    return None


def problem_response(problem: Problem) -> Response:
    """The answer: `{"errors": [{"code", "message", "detail"}]}`."""
    entry: dict[str, object] = {"code": problem.word.name, "message": problem.message}
    if problem.detail:
        entry["detail"] = problem.detail
    body = gojson.encode({"errors": [entry]})
    return Response(problem.status, body, (("Content-Type", "application/json"), *problem.headers))
