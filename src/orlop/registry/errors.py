"""What registries answer when they refuse, and the texts Docker's users know.

Spec: OCI distribution-spec, "Error Codes". The texts are those of the Docker engine, which
scripts and the docker CLI match on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from orlop.base.errors import Kind, OrlopError
from orlop.oci.reference import Reference
from orlop.registry.retry import parse_retry_after

__all__ = [
    "AccessDenied",
    "BadRegistry",
    "NotOnRegistry",
    "RegistryError",
    "RegistryProblem",
    "RegistryUnavailable",
    "TooManyRequests",
    "Unauthorized",
    "parse_problem",
    "pull_error",
]

_MAX_DETAIL = 500
_CODE = re.compile(r"[A-Za-z0-9_ .-]{1,64}\Z")
_SCOPE_ERROR = re.compile(r'\berror="?(insufficient_scope|invalid_token)\b')


class RegistryError(OrlopError):
    """A registry refused or failed."""

    kind = Kind.UNAVAILABLE
    code = "registry-error"


class RegistryUnavailable(RegistryError):
    """The registry fails or cannot be reached; trying again later may help."""

    code = "registry-unavailable"


class BadRegistry(RegistryError):
    """The registry's answer breaks the protocol or contradicts itself."""

    code = "bad-registry"


class NotOnRegistry(RegistryError):
    """The registry does not have it, or does not tell us that it has."""

    kind = Kind.NOT_FOUND
    code = "not-on-registry"


class AccessDenied(RegistryError):
    """The registry knows who asks and refuses."""

    kind = Kind.FORBIDDEN
    code = "access-denied"


class Unauthorized(RegistryError):
    """The registry wants (other) credentials."""

    kind = Kind.UNAUTHORIZED
    code = "unauthorized"


class TooManyRequests(RegistryError):
    """A rate limit is reached."""

    kind = Kind.EXHAUSTED
    code = "too-many-requests"


@dataclass(frozen=True, slots=True)
class RegistryProblem:
    """An error answer, read: the spec's code, or an empty one when the body was something else."""

    status: int
    code: str
    message: str
    retry_after_s: float | None = None

    def __str__(self) -> str:
        if not self.code:
            return self.message
        # distribution prints the code in lower case with blanks, then its message
        return f"{self.code.lower().replace('_', ' ')}: {self.message}"

    def to_error(self) -> RegistryError:
        """The error of an operation that has no text of its own."""
        text = str(self)
        if self.code == "TOOMANYREQUESTS" or self.status == 429:
            wait = f"wait {self.retry_after_s:.0f} seconds" if self.retry_after_s else "wait"
            hint = f"log in for a higher limit, configure a mirror (hosts.toml), or {wait}"
            return TooManyRequests(text, hint=hint, status=self.status)
        if self.code == "DENIED" or self.status == 403:
            return AccessDenied(text, status=self.status)
        if self.code == "UNAUTHORIZED" or self.status == 401:
            return Unauthorized(text, status=self.status)
        if self.status == 404 or self.code.endswith("_UNKNOWN"):
            return NotOnRegistry(text, status=self.status)
        if self.status >= 500:
            return RegistryUnavailable(text, status=self.status)
        return RegistryError(text, status=self.status)


def parse_problem(status: int, headers: Mapping[str, tuple[str, ...]], body: bytes) -> RegistryProblem:
    """Read an error answer; never fails, whatever the body is."""
    challenge = " ".join(headers.get("www-authenticate", ()))
    if status == 401 and (found := _SCOPE_ERROR.search(challenge)):
        if found[1] == "insufficient_scope":
            return RegistryProblem(status, "DENIED", "requested access to the resource is denied")
        return RegistryProblem(status, "UNAUTHORIZED", "authentication required - invalid token")
    code, message = _first_error(body)
    retry_after_s = parse_retry_after(next(iter(headers.get("retry-after", ())), ""))
    if code:
        return RegistryProblem(status, code, message, retry_after_s)
    if status == 401:
        return RegistryProblem(status, "UNAUTHORIZED", message or "authentication required")
    if status == 429:
        return RegistryProblem(status, "TOOMANYREQUESTS", message or "too many requests", retry_after_s)
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    return RegistryProblem(status, "", f"received unexpected HTTP status: {phrase}")


def pull_error(problem: RegistryProblem, reference: Reference) -> RegistryError:
    """The error of a pull, in the Docker engine's words."""
    if problem.code == "DENIED":
        return NotOnRegistry(
            f"pull access denied for {reference.familiar_name}, repository does not exist or "
            f"may require 'docker login': {problem}",
            status=problem.status,
        )
    if problem.code == "MANIFEST_UNKNOWN" or (problem.status == 404 and not problem.code):
        text = str(problem) if problem.code else "manifest unknown: manifest unknown"
        return NotOnRegistry(f"manifest for {reference.familiar} not found: {text}", status=problem.status)
    if problem.code == "NAME_UNKNOWN":
        return NotOnRegistry(
            f"repository {reference.familiar_name} not found: {problem}", status=problem.status
        )
    return problem.to_error()


def _first_error(body: bytes) -> tuple[str, str]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    errors = document.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        code, message = errors[0].get("code"), errors[0].get("message")
        if isinstance(code, str) and _CODE.match(code):
            return code.upper(), _printable(message) or code.lower().replace("_", " ")
    # Hub and token services: {"details": "..."}
    return "", _printable(document.get("details") or document.get("message"))


def _printable(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value[:_MAX_DETAIL])
