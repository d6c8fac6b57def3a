"""Bearer tokens of our own: JSON Web Tokens signed with a key of this registry (HS256).

Only this server makes and reads them, so a shared key is enough and no library is needed; the header
is compared as a whole, so that no other algorithm can be smuggled in.
Specs: RFC 7519, RFC 7515; Docker registry token authentication, "Token response".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from orlop.base import ids
from orlop.base.clock import Clock
from orlop.registryd.access.policy import ACTIONS
from orlop.registryd.names import check_name
from orlop.registryd.problems import Problem

__all__ = ["Access", "Claims", "Tokens", "parse_scope"]

ACCESS_TTL_S = 300
REFRESH_TTL_S = 90 * 86_400
_MAX_TOKEN = 16 << 10
_SCOPE = re.compile(r"repository(?:\([a-z0-9]+\))?:([^:]+):([a-z*,]+)\Z")
_HEADER = {"alg": "HS256", "typ": "JWT"}


@dataclass(frozen=True, slots=True)
class Access:
    """Actions on a repository, or on the catalog: ("registry", "catalog")."""

    kind: str
    name: str
    actions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says."""

    user: str
    use: str  # access or refresh
    access: tuple[Access, ...] = ()

    def allowed(self, kind: str, name: str) -> frozenset[str]:
        """The actions that it carries for something."""
        found = [entry.actions for entry in self.access if (entry.kind, entry.name) == (kind, name)]
        return frozenset().union(*found)


class Tokens:
    """Makes and reads tokens with one key."""

    def __init__(self, key: bytes, service: str, clock: Clock) -> None:
        self._key = key
        self._service = service
        self._clock = clock

    def make(self, claims: Claims) -> tuple[str, int, int]:
        """The token, when it was made (seconds since the epoch), and how many seconds it lives."""
        now = self._clock.now_ns() // 1_000_000_000
        ttl = ACCESS_TTL_S if claims.use == "access" else REFRESH_TTL_S
        body = {
            "iss": self._service,
            "aud": self._service,
            "sub": claims.user,
            "use": claims.use,
            "iat": now,
            "nbf": now - 10,
            "exp": now + ttl,
            "jti": ids.new_token(),
            "access": [
                {"type": entry.kind, "name": entry.name, "actions": sorted(entry.actions)}
                for entry in claims.access
            ],
        }
        text = f"{_encode(_HEADER)}.{_encode(body)}"
        return f"{text}.{self._sign(text)}", now, ttl

    def read(self, token: str, use: str) -> Claims | None:
        """What a token says; None when it is not ours, is over, or is for another use."""
        text, _, signature = token.rpartition(".")
        if len(token) > _MAX_TOKEN or not token.isascii():
            return None
        if not hmac.compare_digest(self._sign(text), signature):
            return None
        header, _, payload = text.partition(".")
        if header != _encode(_HEADER):
            return None
        try:
            body = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (ValueError, binascii.Error):
            return None
        now = self._clock.now_ns() // 1_000_000_000
        is_valid = body["aud"] == self._service and body["use"] == use and body["nbf"] <= now < body["exp"]
        if not is_valid:
            return None
        access = (Access(e["type"], e["name"], frozenset(e["actions"])) for e in body["access"])
        return Claims(body["sub"], body["use"], tuple(access))

    def _sign(self, text: str) -> str:
        digest = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def parse_scope(scopes: Iterable[str]) -> list[Access]:
    """What clients ask a token for; what cannot be read is left out, as Docker's token servers do."""
    found: list[Access] = []
    for scope in scopes:
        if scope == "registry:catalog:*":
            found.append(Access("registry", "catalog", frozenset({"*"})))
        elif (match := _SCOPE.match(scope)) is not None:
            wanted = frozenset(match[2].split(","))
            try:
                name = check_name(match[1])
            except Problem:
                continue
            found.append(
                Access("repository", name, frozenset(ACTIONS) if "*" in wanted else wanted & set(ACTIONS))
            )
    return found


def _encode(value: object) -> str:
    data = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
