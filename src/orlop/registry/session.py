"""Requests to one endpoint of a registry: authentication, redirects, retries.

Redirect rule. Credentials go only to the origin they are bound to. From https only https is
followed. Where a name leads is checked when the address is known, not when it is parsed: a
registry at a public address may send us to public addresses only, one at a private address
also to private ones, one on loopback anywhere but link-local (metadata services). Token realms
and upload locations obey the same rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ssl import SSLContext

from orlop.aio.http_client import (
    BadResponse,
    Body,
    BytesBody,
    ConnectionBroken,
    Dial,
    HttpClient,
    IpAddress,
    Response,
    ResponseTooLarge,
    Stalled,
)
from orlop.aio.url import Origin, Url
from orlop.base.clock import Clock
from orlop.registry.auth import (
    Challenge,
    Credentials,
    Grant,
    TokenCache,
    TokenRequest,
    basic_header,
    parse_challenges,
    parse_grant,
    token_request,
)
from orlop.registry.certificates import TlsContexts, TlsFiles
from orlop.registry.endpoints import Endpoint, RegistryOptions, certificates_of
from orlop.registry.errors import BadRegistry, Unauthorized, parse_problem
from orlop.registry.reach import public_only, reach_from
from orlop.registry.retry import Attempts, RetryPolicy, parse_retry_after

__all__ = ["TRANSIENT_ERRORS", "Answer", "Session", "Wire", "is_transient_status", "read_answer"]

_MAX_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_ERROR_BYTES = 64 << 10
_MAX_TOKEN_ANSWER_BYTES = 256 << 10
_TOKEN_TIMEOUT_S = 30.0
_MIRROR_ATTEMPTS = 2

TRANSIENT_ERRORS = (ConnectionBroken, Stalled, BadResponse)


def is_transient_status(status: int) -> bool:
    """True for answers that a later attempt may change."""
    return status in {408, 429, 500, 502, 503, 504}


@dataclass(slots=True)
class Wire:
    """What all sessions of an engine share."""

    http: HttpClient
    options: RegistryOptions
    tls: TlsContexts
    tokens: TokenCache
    clock: Clock
    retry: RetryPolicy
    challenges: dict[Origin, Challenge] = field(default_factory=dict)
    reach: dict[Origin, Callable[[IpAddress], bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its body, which was small."""

    status: int
    headers: Mapping[str, tuple[str, ...]]
    body: bytes
    url: Url

    def header(self, name: str) -> str:
        """The first value of a header, or an empty string; `name` in lower case."""
        values = self.headers.get(name)
        return values[0] if values else ""


class Session:
    """One endpoint, spoken to by one user.

    `credentials` must be those the user gave for this endpoint's registry: the caller passes
    anonymous ones for mirrors.
    """

    def __init__(self, wire: Wire, endpoint: Endpoint, credentials: Credentials) -> None:
        self.wire = wire
        self.endpoint = endpoint
        self._credentials = credentials
        self._has_own_authorization = any(name.lower() == "authorization" for name, _ in endpoint.headers)

    @property
    def retry(self) -> RetryPolicy:
        """How often to try; where there is another server, sooner there than again here."""
        policy = self.wire.retry
        if not self.endpoint.is_mirror or self.endpoint.is_last:
            return policy
        return replace(policy, attempts=min(policy.attempts, _MIRROR_ATTEMPTS))

    async def call(
        self,
        method: str,
        url: Url,
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        limit: int = _MAX_ERROR_BYTES,
        timeout_s: float = 60.0,
    ) -> Answer:
        """Send a request whose answer is small, with retries; any status below 500 is an answer.

        Error answers are cut to 64 KiB. Use it for requests that may be repeated safely.

        Raises:
            RegistryError and the errors of `HttpClient.request`.
        """
        attempts = Attempts(self.retry)
        while True:
            try:
                async with self.request(
                    method, url, scope=scope, headers=headers, body=body, timeout_s=timeout_s
                ) as response:
                    answer = await read_answer(response, limit)
            except TRANSIENT_ERRORS:
                delay = attempts.delay_after_failure()
                if delay is None:
                    raise
            else:
                if not is_transient_status(answer.status):
                    return answer
                delay = attempts.delay_after_failure(parse_retry_after(answer.header("retry-after")))
                if delay is None:
                    raise parse_problem(answer.status, answer.headers, answer.body).to_error()
            await asyncio.sleep(delay)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: Url,
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        timeout_s: float = 60.0,
    ) -> AsyncIterator[Response]:
        """Send one request, authenticated where that is right, redirects followed.

        A 401 of the registry itself is answered once with a fresh token or with credentials.
        """
        async with AsyncExitStack() as stack:
            has_tried, hops = False, 0
            while True:
                is_ours = url.origin == self.endpoint.origin
                fields = dict(headers or {})
                if is_ours:
                    fields = {**dict(self.endpoint.headers), **fields}
                    value, is_fresh = await self._authorization(scope)
                    has_tried = has_tried or is_fresh
                    fields |= {"Authorization": value} if value else {}
                response = await stack.enter_async_context(
                    self.wire.http.request(
                        method,
                        url,
                        headers=fields,
                        body=body,
                        dial=self.dial(url.origin),
                        answer_timeout_s=timeout_s,
                    )
                )
                if is_ours:
                    proxied = self.wire.options.proxies.find(url.origin)
                    # the peer is the proxy then, and says nothing of where the registry is
                    address = response.peer_address if proxied is None else url.origin.host
                    self.wire.reach[url.origin] = reach_from(address)
                if (
                    response.status == 401
                    and is_ours
                    and not has_tried
                    and self._learn(response, fields, scope)
                ):
                    has_tried = True
                elif (target := self._redirect(method, response)) is not None:
                    hops += 1
                    if hops > _MAX_REDIRECTS:
                        raise BadRegistry(
                            f"{self.endpoint.origin} redirects more than {_MAX_REDIRECTS} times"
                        )
                    url = target
                else:
                    yield response
                    return
                await stack.aclose()

    def dial(self, target: Origin) -> Dial:
        """How to connect to `target`: the endpoint itself, or somewhere it sent us."""
        own = self.endpoint.origin
        proxy = self.wire.options.proxies.find(target)
        is_lax = self.endpoint.is_insecure or self.endpoint.skip_verify
        if target == own:
            return Dial(tls=self._tls(target, self.endpoint.files, verify=not is_lax), proxy=proxy)
        files = certificates_of(target, self.wire.options)
        return Dial(
            tls=self._tls(target, files, verify=not (is_lax and target.host == own.host)),
            allows_address=self.wire.reach.get(own, public_only),
            proxy=proxy,
        )

    def _tls(self, target: Origin, files: TlsFiles, *, verify: bool) -> SSLContext | None:
        return self.wire.tls.of(files, verify=verify) if target.scheme == "https" else None

    def check_target(self, target: Url, source: Url) -> Url:
        """Refuse what must not be followed whatever address it has.

        Raises:
            BadRegistry: from https to http.
        """
        if source.origin.scheme == "https" and target.origin.scheme != "https":
            raise BadRegistry(
                f"{source.origin} redirects to {target.origin}, which is not encrypted",
                hint="the registry must redirect to https only",
            )
        return target

    def _redirect(self, method: str, response: Response) -> Url | None:
        if response.status not in _REDIRECTS or not (location := response.header("location")):
            return None
        if method not in {"GET", "HEAD"} and response.status not in {307, 308}:
            return None
        return self.check_target(response.url.join(location), response.url)

    async def _authorization(self, scope: str) -> tuple[str, bool]:
        """The header's value, and whether it was bought just now."""
        if self._has_own_authorization:
            return "", False
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}", False
        challenge = self.wire.challenges.get(self.endpoint.origin)
        if challenge is None:
            return "", False
        if challenge.scheme == "basic":
            return basic_header(self._credentials) if self._credentials.username else "", False
        key = (self.endpoint.origin, scope, self._credentials)
        token = self.wire.tokens.find(*key)
        if token is not None:
            return f"Bearer {token}", False
        grant = await self.buy_token(challenge, scope)
        self.wire.tokens.keep(*key, grant)
        return f"Bearer {grant.token}", True

    async def buy_token(
        self, challenge: Challenge, scope: str, *, wants_refresh_token: bool = False
    ) -> Grant:
        """Ask the realm of `challenge` for a token of `scope` (scopes are separated by blanks).

        Raises:
            Unauthorized: it refuses; TooManyRequests: it limits; BadRegistry: nonsense.
        """
        to_buy = (challenge, self.endpoint.origin, self._credentials, scope.split())
        order = token_request(*to_buy, wants_refresh_token=wants_refresh_token)
        answer = await self._ask_realm(order)
        if order.method == "POST" and answer.status in {404, 405} and self._credentials.username:
            order = token_request(*to_buy, by_get=True)
            answer = await self._ask_realm(order)
        if answer.status == 200:
            return parse_grant(answer.body)
        problem = parse_problem(answer.status, answer.headers, answer.body)
        if answer.status in {401, 403}:
            text = "unauthorized: incorrect username or password"
            if self._credentials.is_anonymous:
                text = str(problem)
            raise Unauthorized(text, hint="log in again", status=answer.status)
        if answer.status == 429:
            raise problem.to_error()
        raise BadRegistry(f"no token from {order.url.origin}{order.url.path}: {problem}")

    async def refresh_token(self) -> str:
        """What the registry wants stored in place of the password, or an empty string."""
        challenge = self.wire.challenges.get(self.endpoint.origin)
        if challenge is None or challenge.scheme != "bearer":
            return ""
        grant = await self.buy_token(challenge, "", wants_refresh_token=True)
        return grant.refresh_token

    async def _ask_realm(self, order: TokenRequest) -> Answer:
        attempts = Attempts(self.wire.retry)
        while True:
            try:
                async with (
                    asyncio.timeout(_TOKEN_TIMEOUT_S),
                    self.wire.http.request(
                        order.method,
                        order.url,
                        headers=order.headers,
                        body=BytesBody(order.form) if order.form is not None else None,
                        dial=self.dial(order.url.origin),
                        answer_timeout_s=_TOKEN_TIMEOUT_S,
                    ) as response,
                ):
                    answer = await read_answer(response, _MAX_TOKEN_ANSWER_BYTES)
            except (*TRANSIENT_ERRORS, TimeoutError) as error:
                delay = attempts.delay_after_failure()
                if delay is None:
                    raise BadRegistry(f"no token from {order.url.origin}{order.url.path}: {error}") from error
            else:
                if not is_transient_status(answer.status):
                    return answer
                delay = attempts.delay_after_failure(parse_retry_after(answer.header("retry-after")))
                if delay is None:
                    return answer
            await asyncio.sleep(delay)

    def _learn(self, response: Response, sent: Mapping[str, str], scope: str) -> bool:
        """Remember the challenge of a 401; False when trying again would change nothing."""
        offers = {
            c.scheme: c for c in reversed(parse_challenges(response.headers.get("www-authenticate", ())))
        }
        challenge = offers.get("bearer") or offers.get("basic")
        if challenge is None or self._credentials.registry_token or self._has_own_authorization:
            return False
        self.wire.challenges[self.endpoint.origin] = challenge
        self.wire.tokens.drop(self.endpoint.origin, scope, self._credentials)
        if challenge.scheme == "basic":
            return bool(self._credentials.username) and "Authorization" not in sent
        return True


async def read_answer(response: Response, limit: int) -> Answer:
    """Read a response whose body is small; the body of an error may be cut.

    Raises:
        ResponseTooLarge: a body of a successful response is over `limit`.
    """
    is_error = response.status >= 400
    try:
        body = await response.read(min(limit, _MAX_ERROR_BYTES) if is_error else limit)
    except ResponseTooLarge:
        if not is_error:
            raise
        body = b""
    return Answer(response.status, response.headers, body, response.url)
