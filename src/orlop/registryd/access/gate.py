"""The gate: who asks, what may they do, and what to tell those who may not yet.

Three ways: no accounts (the policy sees nobody), Basic (the policy decides at once), tokens (the
policy decides when a token is made; a token carries what it allows for some minutes).
Specs: RFC 7617; Docker registry token authentication and its OAuth2 form.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orlop.aio.http_messages import HeaderFields, ServerRequest
from orlop.base.clock import format_rfc3339_nano
from orlop.registryd.access.accounts import Accounts
from orlop.registryd.access.policy import Policy
from orlop.registryd.access.tokens import Access, Claims, Tokens, parse_scope
from orlop.registryd.problems import Problem, Word

__all__ = ["Gate", "Visitor"]

CATALOG = Access("registry", "catalog", frozenset({"*"}))
MAX_SCOPES = 50
_NO_CREDENTIALS = "Og=="  # ":", which skopeo and podman send where Basic is asked for and they have none
_HOST = re.compile(r"[A-Za-z0-9.\-\[\]:_]{1,255}\Z")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sent a request: a user, or "" for nobody; with the claims of a token when one was sent."""

    user: str = ""
    claims: Claims | None = None


class Gate:
    """Lets requests in.

    Args:
        policy: what users may do.
        accounts: None lets everybody in as nobody.
        tokens: None asks for Basic credentials with every request.
        service: the name in challenges.
        public_url: how clients reach this server; "" takes their word for it.
    """

    def __init__(
        self, policy: Policy, accounts: Accounts | None, tokens: Tokens | None, service: str, public_url: str
    ) -> None:
        self._policy = policy
        self._accounts = accounts
        self._tokens = tokens
        self._service = service
        self._public_url = public_url.rstrip("/")

    @property
    def has_tokens(self) -> bool:
        """True when this server has a token endpoint."""
        return self._tokens is not None

    async def identify(self, request: ServerRequest) -> Visitor:
        """Who sent the request.

        Raises:
            Problem: UNAUTHORIZED: credentials were sent and are wrong.
        """
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if self._accounts is None or not scheme:
            return Visitor()
        if scheme.lower() == "basic":
            if value.strip() == _NO_CREDENTIALS:
                return Visitor()
            user = await self._basic(value)
            if user:
                # with tokens, passwords are for the token endpoint only; some tools send them anyway
                return Visitor(user)
        elif scheme.lower() == "bearer" and self._tokens is not None:
            claims = self._tokens.read(value.strip(), "access")
            if claims is not None:
                return Visitor(claims.user, claims)
        raise Problem(
            Word.UNAUTHORIZED, "incorrect username, password or token", headers=self.challenge(request, ())
        )

    def allowed(self, visitor: Visitor, name: str) -> frozenset[str]:
        """What the visitor may do with a repository."""
        if visitor.claims is not None:
            return visitor.claims.allowed("repository", name)
        return self._policy.allowed(visitor.user, name)

    def allows_catalog(self, visitor: Visitor) -> bool:
        """May the visitor list repositories? The list has only those that may be pulled."""
        if visitor.claims is not None:
            return bool(visitor.claims.allowed("registry", "catalog"))
        return self._accounts is None or bool(visitor.user)

    def may_list(self, visitor: Visitor, name: str) -> bool:
        """Does a repository belong into the visitor's list?"""
        return "pull" in self._policy.allowed(visitor.user, name)

    def check_entry(self, visitor: Visitor, request: ServerRequest) -> None:
        """The base of the API, which `docker login` asks: an account is needed where there are any.

        Raises:
            Problem: UNAUTHORIZED.
        """
        if self._accounts is not None and not visitor.user and visitor.claims is None:
            raise Problem(Word.UNAUTHORIZED, "authentication required", headers=self.challenge(request, ()))

    def refuse(self, visitor: Visitor, request: ServerRequest, name: str, action: str) -> Problem:
        """What to answer when an action is not allowed."""
        scopes = [f"repository:{name}:{_with_pull(action)}"] if name else ["registry:catalog:*"]
        detail: dict[str, object] = {"repository": name, "action": action} if name else {"action": "catalog"}
        wants_login = self._accounts is not None and not visitor.user
        if wants_login or visitor.claims is not None:
            return Problem(
                Word.UNAUTHORIZED,
                "authentication required" if wants_login else "the token does not allow this",
                detail=detail,
                headers=self.challenge(request, scopes, is_insufficient=visitor.claims is not None),
            )
        return Problem(Word.DENIED, "requested access to the resource is denied", detail=detail)

    def challenge(
        self, request: ServerRequest, scopes: Sequence[str], *, is_insufficient: bool = False
    ) -> HeaderFields:
        """WWW-Authenticate."""
        if self._tokens is None:
            return (("WWW-Authenticate", f'Basic realm="{self._service}"'),)
        fields = [f'realm="{self._url(request)}/token"', f'service="{self._service}"']
        fields += [f'scope="{" ".join(scopes)}"'] if scopes else []
        fields += ['error="insufficient_scope"'] if is_insufficient else []
        return (("WWW-Authenticate", f"Bearer {','.join(fields)}"),)

    async def grant(self, request: ServerRequest, form: Mapping[str, Sequence[str]]) -> dict[str, object]:
        """The answer of the token endpoint; `form` is the query or the body of the OAuth2 form.

        Raises:
            Problem: UNAUTHORIZED: wrong credentials.
        """
        assert self._tokens is not None
        user = await self._granted_user(request, form)
        scopes = [word for text in form.get("scope", ()) for word in text.split()][:MAX_SCOPES]
        access = tuple(self._reduce(user, wanted) for wanted in parse_scope(scopes))
        claims = Claims(user, "access", tuple(entry for entry in access if entry.actions))
        token, made, ttl = self._tokens.make(claims)
        issued = format_rfc3339_nano(made * 1_000_000_000)
        answer: dict[str, object] = {
            "token": token, "access_token": token, "expires_in": ttl, "issued_at": issued
        }  # fmt: skip
        wants_refresh = _one(form, "offline_token") == "true" or _one(form, "access_type") == "offline"
        if wants_refresh and user:
            answer["refresh_token"] = self._tokens.make(Claims(user, "refresh"))[0]
        return answer

    async def _granted_user(self, request: ServerRequest, form: Mapping[str, Sequence[str]]) -> str:
        assert self._accounts is not None
        assert self._tokens is not None
        grant = _one(form, "grant_type")
        if grant == "refresh_token":
            claims = self._tokens.read(_one(form, "refresh_token"), "refresh")
            if claims is not None and self._accounts.has(claims.user):
                return claims.user
        elif grant == "password":
            user = _one(form, "username")
            if await self._accounts.verify(user, _one(form, "password")):
                return user
        else:
            scheme, _, value = request.headers.get("authorization", "").partition(" ")
            if not scheme:
                return ""
            if scheme.lower() == "basic" and (user := await self._basic(value)):
                return user
        raise Problem(Word.UNAUTHORIZED, "incorrect username or password")

    def _reduce(self, user: str, wanted: Access) -> Access:
        if wanted.kind == "registry":
            return wanted if user else Access(wanted.kind, wanted.name, frozenset())
        return Access(wanted.kind, wanted.name, wanted.actions & self._policy.allowed(user, wanted.name))

    async def _basic(self, value: str) -> str:
        """The user of Basic credentials, "" when they are wrong."""
        assert self._accounts is not None
        try:
            text = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return ""
        user, colon, password = text.partition(":")
        return user if colon and user and await self._accounts.verify(user, password) else ""

    def _url(self, request: ServerRequest) -> str:
        if self._public_url:
            return self._public_url
        host = request.headers.get("host", "")
        return f"{'https' if request.peer.is_tls else 'http'}://{host if _HOST.match(host) else 'localhost'}"


def _one(form: Mapping[str, Sequence[str]], name: str) -> str:
    values = form.get(name)
    return values[0] if values else ""


def _with_pull(action: str) -> str:
    return action if action == "pull" else f"pull,{action}"
