"""Ranges of bytes in requests, both ways: what a download asks for, where an upload goes on.

Specs: RFC 9110, section 14; OCI distribution-spec 1.1, "Pushing a blob in chunks" (its Content-Range
is `<start>-<end>` without a unit; some clients send the unit).
"""

from __future__ import annotations

import re

from orlop.registryd.problems import Problem, Word

__all__ = ["parse_content_range", "parse_range", "upload_range"]

_RANGE = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*\Z")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,19})-([0-9]{1,19})(?:/(?:\*|[0-9]{1,19}))?\Z")


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Offset and length that a Range header selects; None when the whole is to be sent.

    A header that is malformed, in another unit or for several ranges is ignored, as the RFC allows.

    Raises:
        Problem: RANGE_INVALID, 416: nothing of the blob is in the range, or it ends before it begins.
    """
    match = _RANGE.match(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    if start > end or start >= size:
        raise Problem(
            Word.RANGE_INVALID,
            "the range is beyond the end of the blob",
            headers=(("Content-Range", f"bytes */{size}"),),
        )
    return start, end - start + 1


def parse_content_range(header: str) -> tuple[int, int]:
    """First and last position of a chunk.

    Raises:
        Problem: BLOB_UPLOAD_INVALID: not such a header, or it ends before it begins.
    """
    match = _CONTENT_RANGE.match(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise Problem(Word.BLOB_UPLOAD_INVALID, f"invalid Content-Range {header[:80]!r}")
    return int(match[1]), int(match[2])


def upload_range(offset: int) -> str:
    """The Range header that tells how far an upload is: `0-0` for nothing, as Docker says it."""
    return f"0-{max(offset - 1, 0)}"
