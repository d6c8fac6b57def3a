"""The one error base: a closed kind, a stable code, a message, a hint, facts.

Adapters own the tables from kind to HTTP status, gRPC code and exit code. A subclass is
defined beside the code that raises it and names its kind and code as class attributes.
"""

from __future__ import annotations

import enum
import os
from typing import ClassVar

__all__ = ["InvalidInput", "Kind", "NotFound", "OrlopError", "describe_os_error"]


class Kind(enum.Enum):
    """What went wrong, coarse enough that every adapter can map all of them."""

    INVALID = "invalid"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    NOT_MODIFIED = "not-modified"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    UNSUPPORTED = "unsupported"
    EXHAUSTED = "exhausted"  # disk, memory, quota, rate limit
    UNAVAILABLE = "unavailable"  # a remote peer or a helper process does not answer
    CANCELLED = "cancelled"
    CORRUPT = "corrupt"  # stored bytes are not what they claim
    INTERNAL = "internal"  # our own bug


class OrlopError(Exception):
    """An error that a user can read.

    Args:
        message: what failed, on what, and why; one line, lower case, no full stop.
        hint: what to try, or None.
        facts: named values for logs and `--json`; never secrets.
    """

    kind: ClassVar[Kind] = Kind.INTERNAL
    code: ClassVar[str] = "internal"
    remedy: ClassVar[str | None] = None  # the hint of errors of this class that bring none

    def __init__(self, message: str, *, hint: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.remedy
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(OrlopError):
    """The caller's value cannot be accepted; the message names the value."""

    kind = Kind.INVALID
    code = "invalid-input"


class NotFound(OrlopError):
    """The named thing does not exist."""

    kind = Kind.NOT_FOUND
    code = "not-found"


def describe_os_error(error: OSError) -> str:
    """`EPERM (operation not permitted)`: the form in which messages name an errno."""
    import errno

    number = error.errno or 0
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number).lower()})"
