"""Paths of a Dockerfile: slashes, made absolute, trailing slash and trailing dot kept on request."""

from __future__ import annotations

import posixpath

__all__ = ["absolute", "clean"]


def clean(path: str) -> str:
    """Go's path.Clean: no doubled slash, no `.`, no resolvable `..`; empty is `.`."""
    cleaned = posixpath.normpath(path) if path else "."
    return "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned


def absolute(directory: str, path: str, *, keeps_slash: bool = False) -> str:
    """`path` below `directory` unless it is absolute.

    With `keeps_slash`, a trailing `/` or `/.` stays: COPY reads it as "this is a directory".
    """
    result = clean(path)
    if not result.startswith("/"):
        result = clean(f"/{directory}/{result}")
    if keeps_slash and result != "/":
        if path.endswith("/") or path in (".", ""):
            result += "/"
        elif path.endswith("/."):
            result += "/."
    return result
