"""Names, tags and references as a server takes them: checked before anything else sees them.

Spec: OCI distribution-spec 1.1, "Pulling manifests" (grammar of <name> and <reference>).
"""

from __future__ import annotations

import re

from orlop.oci.digest import Digest, InvalidDigest, parse_digest
from orlop.registryd.problems import Problem, Word

__all__ = ["MAX_NAME", "check_digest", "check_name", "check_reference", "check_tag", "is_digest"]

MAX_NAME = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")


def check_name(text: str) -> str:
    """A repository's name. Raises Problem NAME_INVALID."""
    if len(text) > MAX_NAME or not _NAME.match(text):
        raise Problem(Word.NAME_INVALID, "invalid repository name", detail={"name": text[:MAX_NAME]})
    return text


def check_tag(text: str) -> str:
    """A tag. Raises Problem TAG_INVALID."""
    if not _TAG.match(text):
        raise Problem(Word.TAG_INVALID, "invalid tag", detail={"tag": text[:128]})
    return text


def check_digest(text: str) -> Digest:
    """A digest of an algorithm that we store. Raises Problem DIGEST_INVALID."""
    try:
        return parse_digest(text)
    except InvalidDigest as error:
        raise Problem(Word.DIGEST_INVALID, error.message, detail={"digest": text[:200]}) from error


def check_reference(text: str) -> str:
    """A tag or a digest. Raises Problem TAG_INVALID, DIGEST_INVALID."""
    return check_digest(text) if ":" in text else check_tag(text)


def is_digest(reference: str) -> bool:
    """True for a checked reference that is a digest; tags have no colon."""
    return ":" in reference
