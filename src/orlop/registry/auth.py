"""Credentials and the tokens they buy.

Credentials are bound to the origin of the registry they were given for. A registry answers
401 with a challenge: Basic wants them with every request, Bearer names a *realm* that sells
tokens for a *scope*. What we ask for is what the operation needs, never the scope that the
challenge suggests. The realm may be another host (Docker Hub, GitLab), so this is the one
place where credentials travel to a host the registry names; hence:

    registry      realm                     it gets
    https         https, any host           credentials (Docker's practice)
    https         http                      nothing: refused
    http          https, or the same host   credentials
    http          http, another host        an anonymous request

A realm redirects nowhere, and its addresses obey the rule of redirects (see `session`).
Spec: distribution "Token Authentication"; RFC 7235; Docker's OAuth2 extension.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from orlop.aio.url import Origin, Url, parse_url, with_query
from orlop.base.clock import Clock
from orlop.registry.errors import BadRegistry

__all__ = [
    "Challenge",
    "Credentials",
    "Grant",
    "TokenCache",
    "TokenRequest",
    "basic_header",
    "parse_challenges",
    "parse_grant",
    "scope_text",
    "token_request",
]

_MAX_CHALLENGE = 16 << 10
_MAX_TOKEN = 32 << 10
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")
_DEFAULT_LIFETIME_S = 60.0  # distribution: without expires_in a token lives 60 s
_MAX_LIFETIME_S = 3600.0
_CLIENT_ID = "orlop"
# one optional comma between blanks, written so that a failure costs linear time
_SCHEME = re.compile(r"[ \t]*(?:,[ \t]*)*([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?:[ \t]+|\Z)")
_PARAM = re.compile(r'[ \t]*(?:,[ \t]*)*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


@dataclass(frozen=True, slots=True)
class Credentials:
    """What `docker login` stored, as clients send it. Never shown: repr is the user name."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)  # an OAuth2 refresh token
    registry_token: str = field(default="", repr=False)  # a ready bearer token

    @property
    def is_anonymous(self) -> bool:
        """True when there is nothing to send."""
        return not (self.username or self.identity_token or self.registry_token)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One offer of a WWW-Authenticate header; names are in lower case."""

    scheme: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """How to ask a realm for a token."""

    method: str
    url: Url
    headers: Mapping[str, str]
    form: bytes | None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a realm answered."""

    token: str = field(repr=False)
    lifetime_s: float
    refresh_token: str = field(default="", repr=False)


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Read the WWW-Authenticate headers of a response; what cannot be read is skipped."""
    found: list[Challenge] = []
    for value in values:
        if len(value) > _MAX_CHALLENGE:
            raise BadRegistry("the registry's authentication challenge is too long")
        position = 0
        while (match := _SCHEME.match(value, position)) is not None:
            position = match.end()
            params: dict[str, str] = {}
            while (param := _PARAM.match(value, position)) is not None:
                position = param.end()
                quoted = param[2]
                text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else param[3]
                params.setdefault(param[1].lower(), text)
            found.append(Challenge(match[1].lower(), params))
    return found


def basic_header(credentials: Credentials) -> str:
    """The value of an Authorization header."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode("ascii")


def scope_text(repository: str, actions: str) -> str:
    """`repository:library/alpine:pull` or `...:pull,push`."""
    return f"repository:{repository}:{actions}"


def token_request(
    challenge: Challenge,
    registry: Origin,
    credentials: Credentials,
    scopes: Iterable[str],
    *,
    wants_refresh_token: bool = False,
    by_get: bool = False,
) -> TokenRequest:
    """How to buy a token for `scopes`, following the table in the module's head.

    `by_get` is for realms that do not know OAuth2's POST: the identity token is the password then.

    Raises:
        BadRegistry: no realm, an unusable realm, or one in clear text for a TLS registry.
        InvalidUrl: the realm is not an http or https URL.
    """
    realm = parse_url(challenge.params.get("realm", ""))
    if registry.scheme == "https" and realm.origin.scheme != "https":
        raise BadRegistry(
            f"registry {registry.authority} sends its users to {realm.origin} for a token, in clear text",
            hint="the registry's token realm must be https",
        )
    is_trusted = realm.origin.scheme == "https" or realm.origin.host == registry.host
    service = challenge.params.get("service", "")
    if by_get and credentials.identity_token and credentials.username:
        credentials = replace(credentials, password=credentials.password or credentials.identity_token)
    elif credentials.identity_token and is_trusted and not by_get:
        fields = [("grant_type", "refresh_token"), ("service", service), ("client_id", _CLIENT_ID)]
        fields += [("scope", " ".join(scopes)), ("refresh_token", credentials.identity_token)]
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return TokenRequest("POST", realm, headers, urlencode(fields).encode())
    query = {"service": service} if service else {}
    if is_trusted and credentials.username:
        query["account"] = credentials.username
        if wants_refresh_token:
            query |= {"offline_token": "true", "client_id": _CLIENT_ID}
    url = with_query(realm, **query) if query else realm
    for scope in scopes:
        url = with_query(url, scope=scope)
    headers = {"Authorization": basic_header(credentials)} if is_trusted and credentials.username else {}
    return TokenRequest("GET", url, headers, None)


def parse_grant(body: bytes) -> Grant:
    """Read a token answer.

    Raises:
        BadRegistry: no token in it, or one that cannot be put into a header.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRegistry("the token service's answer is not JSON") from error
    if not isinstance(document, dict):
        raise BadRegistry("the token service's answer is not an object")
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or len(token) > _MAX_TOKEN or not _TOKEN.match(token):
        raise BadRegistry("the token service's answer has no usable token")
    lifetime = document.get("expires_in")
    if not isinstance(lifetime, int | float) or isinstance(lifetime, bool) or not lifetime > 0:
        lifetime = _DEFAULT_LIFETIME_S
    refresh = document.get("refresh_token")
    usable = isinstance(refresh, str) and len(refresh) <= _MAX_TOKEN and refresh.isprintable()
    return Grant(token, min(float(lifetime), _MAX_LIFETIME_S), str(refresh) if usable else "")


class TokenCache:
    """Bearer tokens by registry, scope and who bought them, until nearly expired."""

    _LIMIT = 1000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens: dict[tuple[Origin, str, Credentials], tuple[str, float]] = {}

    def find(self, registry: Origin, scope: str, owner: Credentials) -> str | None:
        """A token that lives for some seconds more."""
        entry = self._tokens.get((registry, scope, owner))
        if entry is None or entry[1] <= self._clock.monotonic_s():
            return None
        return entry[0]

    def keep(self, registry: Origin, scope: str, owner: Credentials, grant: Grant) -> None:
        """Remember a token."""
        if len(self._tokens) >= self._LIMIT:
            self._tokens.clear()
        expires = self._clock.monotonic_s() + grant.lifetime_s * 0.9
        self._tokens[registry, scope, owner] = grant.token, expires

    def drop(self, registry: Origin, scope: str, owner: Credentials) -> None:
        """Forget a token that was refused."""
        self._tokens.pop((registry, scope, owner), None)
