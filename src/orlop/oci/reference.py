"""Image references: `[domain/]path[:tag][@digest]` with Docker's short forms.

Grammar: distribution/reference; `alpine` is `docker.io/library/alpine:latest`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from orlop.base.errors import InvalidInput
from orlop.oci.digest import Digest, InvalidDigest, parse_digest

__all__ = ["DEFAULT_DOMAIN", "InvalidReference", "Reference", "parse_reference"]

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_MAX_NAME = 255
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?\Z")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"\w[\w.-]{0,127}\Z", re.ASCII)
_HEX64 = re.compile(r"[a-f0-9]{64}\Z")


class InvalidReference(InvalidInput):
    """The text is not a reference."""

    code = "invalid-reference"


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name; `tag` or `digest` may be None, both may be set."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """Domain and path: `docker.io/library/alpine`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The short form that people see: `alpine`, `user/app`, `host:5000/app`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix("library/")
        return rest if "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        """The short form with tag and digest."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """`latest` is added when there is neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag="latest")

    def with_tag(self, tag: str) -> Reference:
        """The same name with another tag and no digest."""
        if not _TAG.match(tag):
            raise InvalidReference("invalid tag format", tag=tag)
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """The same name pinned to a digest, without tag."""
        return replace(self, tag=None, digest=digest)


def _split_domain(text: str) -> tuple[str, str]:
    head, slash, rest = text.partition("/")
    if not slash or not (set(head) & set(".:") or head == "localhost" or head.lower() != head):
        domain, path = DEFAULT_DOMAIN, text
    else:
        domain, path = head, rest
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


def parse_reference(text: str) -> Reference:
    """Parse a familiar or a full reference.

    Raises:
        InvalidReference: with the texts the docker CLI shows.
    """
    # docker CLI prints these texts after "Error response from daemon:"
    if _HEX64.match(text):
        raise InvalidReference(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest_text = text.partition("@")
    digest: Digest | None = None
    if at:
        try:
            digest = parse_digest(digest_text)
        except InvalidDigest as error:
            raise InvalidReference("invalid reference format", reference=text[:300]) from error
    name, tag = rest, None
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        name, tag = rest[:colon], rest[colon + 1 :]
        if not _TAG.match(tag):
            raise InvalidReference("invalid reference format", reference=text[:300])
    domain, path = _split_domain(name)
    if not _PATH.match(path) or not _DOMAIN.match(domain):
        if path.lower() != path and _PATH.match(path.lower()):
            raise InvalidReference(f"invalid reference format: repository name ({path}) must be lowercase")
        raise InvalidReference("invalid reference format", reference=text[:300])
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise InvalidReference(f"repository name must not be more than {_MAX_NAME} characters")
    return Reference(domain, path, tag, digest)
