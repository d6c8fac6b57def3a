"""Errors as the Engine API shows them: kind -> HTTP status, and the JSON body."""

from __future__ import annotations

import errno

from orlop.aio.http_messages import BodyTooLarge, Response
from orlop.base import log
from orlop.base.errors import Kind, OrlopError
from orlop.wire import gojson
from orlop.wire.http1 import BadHttp

__all__ = ["error_message", "error_response", "message_response", "status_of"]

_STATUS = {
    Kind.INVALID: 400,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.NOT_MODIFIED: 304,
    Kind.UNAUTHORIZED: 401,
    Kind.FORBIDDEN: 403,
    Kind.UNSUPPORTED: 501,
    Kind.EXHAUSTED: 507,
    Kind.UNAVAILABLE: 503,
    Kind.CANCELLED: 499,
    Kind.CORRUPT: 500,
    Kind.INTERNAL: 500,
}
_MAKE_ROOM = "make room with docker system prune, or give the data root a larger disk"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_OURS = (Kind.INTERNAL, Kind.CORRUPT, Kind.EXHAUSTED)  # somebody here must act, not the client alone


def status_of(error: BaseException) -> int:
    """The HTTP status of any exception; an error may carry its own as a fact `http_status`."""
    if isinstance(error, BodyTooLarge):
        return 413
    if isinstance(error, BadHttp):
        return error.status
    if isinstance(error, OrlopError):
        own = error.facts.get("http_status")
        return own if isinstance(own, int) else _STATUS[error.kind]
    if isinstance(error, OSError) and error.errno in _FULL:
        return _STATUS[Kind.EXHAUSTED]
    return 500


def error_message(error: BaseException) -> str:
    """The text for the client: never a traceback, never empty.

    The hint follows in brackets only for our own additions: Docker's texts carry none, so clients
    that match on them see them unchanged.
    """
    if isinstance(error, OrlopError):
        return str(error) or error.code
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror.lower()}{f': {error.filename}' if error.filename else ''}"
        return f"{text} ({_MAKE_ROOM})" if error.errno in _FULL else text
    text = str(error)
    return f"internal error: {type(error).__name__}{f': {text}' if text else ''}"


def message_response(status: int, message: str) -> Response:
    """An error answer with Docker's body `{"message": ...}`; 304 has none."""
    if status == 304:
        return Response(304)
    return Response(status, gojson.encode({"message": message}), (("Content-Type", "application/json"),))


def error_response(error: BaseException, *, operation: str = "") -> Response:
    """Turn an exception of a handler into its answer, and log what is our own fault."""
    status = status_of(error)
    if isinstance(error, OrlopError):
        if error.kind in _OURS:
            log.error("request failed", operation=operation, code=error.code, error=error)
    elif status >= 500:
        log.error("handler failed", operation=operation, error=repr(error), trace=_where(error))
    return message_response(status, error_message(error))


def _where(error: BaseException) -> str:
    """The innermost frames, for the log only."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames)
    )
