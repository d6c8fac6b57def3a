"""API versions: which we serve, and how a client's prefix is judged.

Texts are dockerd's: docker-py and the docker CLI show them, docker-java matches on "client version".
"""

from __future__ import annotations

from orlop.base.errors import InvalidInput

__all__ = ["MAX_VERSION", "MIN_VERSION", "Version", "parse_version", "version_text"]

Version = tuple[int, int]

MIN_VERSION: Version = (1, 24)
MAX_VERSION: Version = (1, 51)


def version_text(version: Version) -> str:
    """`(1, 51)` -> `1.51`."""
    return f"{version[0]}.{version[1]}"


def parse_version(text: str) -> Version:
    """The version of a path prefix without its `v`: digits and dots.

    Raises:
        InvalidInput: too old, too new, or not a version.
    """
    major, _, minor = text.partition(".")
    if not major.isdecimal() or (minor and not minor.isdecimal()) or len(text) > 12:
        raise InvalidInput(f"invalid API version {text[:20]!r}")
    version = (int(major), int(minor or 0))
    if version < MIN_VERSION:
        raise InvalidInput(
            f"client version {text} is too old. "
            f"Minimum supported API version is {version_text(MIN_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    if version > MAX_VERSION:
        raise InvalidInput(
            f"client version {text} is too new. Maximum supported API version is {version_text(MAX_VERSION)}"
        )
    return version
