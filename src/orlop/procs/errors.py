"""Errors that cross a process border: encoded as facts, raised again as themselves.

The receiver raises the class that carries the same code when it has that class loaded,
so `except DigestMismatch` works for a job that ran in a worker; otherwise a `RemoteError`
with the same kind, code, message, hint and facts.
"""

from __future__ import annotations

from typing import Any, ClassVar

from orlop.base.errors import Kind, OrlopError, describe_os_error

__all__ = ["RemoteError", "decode_error", "encode_error"]


class RemoteError(OrlopError):
    """An error of another process whose class is not known here."""

    kind: ClassVar[Kind] = Kind.INTERNAL
    code: ClassVar[str] = "remote"


def encode_error(error: BaseException) -> dict[str, Any]:
    """Plain JSON values that tell the whole error."""
    if isinstance(error, OrlopError):
        facts = {name: value for name, value in error.facts.items() if _is_plain(value)}
        return {
            "kind": error.kind.value,
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "facts": facts,
        }
    if isinstance(error, OSError):
        name = f" {error.filename!r}" if error.filename is not None else ""
        message = f"system call failed{name}: {describe_os_error(error)}"
        return {
            "kind": _kind_of(error).value,
            "code": "os-error",
            "message": message,
            "facts": {"errno": error.errno},
        }
    return {"kind": Kind.INTERNAL.value, "code": "internal", "message": f"{type(error).__name__}: {error}"}


def decode_error(data: dict[str, Any]) -> OrlopError:
    """The error that `encode_error` described, ready to raise."""
    code = str(data.get("code", "remote"))
    kind = Kind(data.get("kind", "internal"))
    facts = dict(data.get("facts") or {})
    known = _class_of(code, kind)
    error = (known or RemoteError).__new__(known or RemoteError)
    OrlopError.__init__(error, str(data.get("message", "")), hint=data.get("hint"), **facts)
    for name, value in facts.items():
        if name.isidentifier() and not hasattr(error, name):
            setattr(error, name, value)
    if known is None:
        vars(error).update(kind=kind, code=code)
    return error


def _class_of(code: str, kind: Kind) -> type[OrlopError] | None:
    queue = [OrlopError]
    while queue:
        candidate = queue.pop()
        if candidate.code == code and candidate.kind is kind:
            return candidate
        queue.extend(candidate.__subclasses__())
    return None


def _kind_of(error: OSError) -> Kind:
    import errno

    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
        return Kind.EXHAUSTED
    return Kind.NOT_FOUND if error.errno == errno.ENOENT else Kind.INTERNAL


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)
