"""A registry as the rest of Orlop sees it: repositories with manifests, blobs and tags.

`Registry` lives as long as the engine and owns connections, tokens and what was learned about
servers. `Repository` is one name on it, spoken to by one user; it knows the servers behind the
name (mirrors first, for pulls) and stays with the one that answered. Manifests are hashed
before anybody parses them; blobs are checked by whoever stores them.
Spec: OCI distribution-spec 1.1.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from orlop.aio.http_client import BytesBody, ConnectFailed, ConnectionBroken, HttpClient, TlsFailed
from orlop.base import log
from orlop.base.clock import Clock, SystemClock
from orlop.base.errors import OrlopError
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest, InvalidDigest, algorithm, encoded, new_hasher, parse_digest
from orlop.oci.mediatype import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from orlop.oci.reference import DEFAULT_DOMAIN, Reference
from orlop.registry.auth import Credentials, TokenCache, scope_text
from orlop.registry.certificates import TlsContexts
from orlop.registry.download import RetryNote, iter_blob
from orlop.registry.endpoints import RegistryOptions, endpoints_of, index_endpoint
from orlop.registry.errors import (
    BadRegistry,
    RegistryUnavailable,
    Unauthorized,
    parse_problem,
    pull_error,
)
from orlop.registry.retry import RetryPolicy
from orlop.registry.session import Answer, Session, Wire
from orlop.registry.tags import list_tags
from orlop.registry.upload import BlobSource, Sent, mount_blob, upload_blob

__all__ = ["MAX_MANIFEST_BYTES", "Registry", "RemoteManifest", "Repository"]

T = TypeVar("T")

MAX_MANIFEST_BYTES = 4 << 20  # OCI distribution-spec, "Pushing Manifests": registries accept 4 MiB
_MANIFEST_ACCEPT = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_INDEX}, {DOCKER_MANIFEST}"


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest or index as the registry sent it; the digest is ours, made of these bytes."""

    descriptor: Descriptor
    data: bytes


class Registry:
    """The client side of all registries; close it at the end."""

    def __init__(
        self,
        options: RegistryOptions,
        *,
        user_agent: str,
        clock: Clock | None = None,
        retry: RetryPolicy | None = None,
        stall_s: float = 15.0,
    ) -> None:
        self.options = options
        clock = clock or SystemClock()
        self._wire = Wire(
            http=HttpClient(user_agent=user_agent, stall_s=stall_s),
            options=options,
            tls=TlsContexts(),
            tokens=TokenCache(clock),
            clock=clock,
            retry=retry or RetryPolicy(),
        )
        self._scheme_of: dict[str, str] = {}  # of insecure registries: what they turned out to speak

    def repository(
        self, reference: Reference, credentials: Credentials | None = None, *, for_push: bool = False
    ) -> Repository:
        """The repository of `reference`; `credentials` are those given for its domain."""
        return Repository(self, reference, credentials or Credentials(), for_push=for_push)

    async def login(self, domain: str, credentials: Credentials) -> str:
        """Check credentials; returns the identity token the registry wants stored instead, or "".

        Raises:
            Unauthorized: the registry refuses them.
        """
        repository = self.repository(Reference(domain, "login"), credentials, for_push=True)
        return await repository.try_each(_login)

    def close(self) -> None:
        """Drop idle connections."""
        self._wire.http.close()

    async def sessions(self, domain: str, credentials: Credentials, *, for_push: bool) -> list[Session]:
        """A session per server behind `domain`, in the order to try them."""
        endpoints = await endpoints_of(domain, self.options, for_push=for_push)
        known = self._scheme_of.get(domain)
        if known and any(e.origin.scheme == known for e in endpoints):
            endpoints = [e for e in endpoints if e.is_mirror or e.origin.scheme == known]
        return [
            Session(self._wire, endpoint, credentials if endpoint.gets_credentials else Credentials())
            for endpoint in endpoints
        ]

    async def index_sessions(self, domain: str) -> list[Session]:
        """A session per server that searches in `domain`, without credentials."""
        endpoints = await endpoints_of(domain, self.options, for_push=False)  # refuses blocked ones
        if domain == DEFAULT_DOMAIN:
            endpoints = [await index_endpoint(self.options)]
        own = [one for one in endpoints if not one.is_mirror]
        return [Session(self._wire, endpoint, Credentials()) for endpoint in own]

    def note_scheme(self, domain: str, scheme: str) -> None:
        """Remember what an insecure registry speaks."""
        self._scheme_of[domain] = scheme


class Repository:
    """One repository: `reference` gives its name; operations say which tag or digest."""

    def __init__(
        self, registry: Registry, reference: Reference, credentials: Credentials, *, for_push: bool
    ) -> None:
        self.reference = reference
        self._registry = registry
        self._credentials = credentials
        self._for_push = for_push
        self._known_sessions: list[Session] = []
        self.scope = scope_text(reference.path, "pull,push" if for_push else "pull")

    async def get_manifest(self, which: str | Digest) -> RemoteManifest:
        """The manifest or index of a tag or digest, its bytes verified.

        Raises:
            NotOnRegistry and other RegistryErrors, in the Docker engine's words.
            BadRegistry: the bytes are not what was asked for, or not what a header says.
        """
        return await self.try_each(
            lambda session: self._get_manifest(session, which), need="pull" if ":" in which else "resolve"
        )

    async def head_manifest(self, which: str | Digest) -> Descriptor | None:
        """What a tag points to now, or None when the registry does not say; costs no rate limit."""
        answer = await self.try_each(
            lambda session: self._manifest_call(session, "HEAD", which), need="resolve"
        )
        if answer.status != 200:
            return None
        try:
            digest = parse_digest(answer.header("docker-content-digest"))
        except InvalidDigest:
            return None
        length = answer.header("content-length")
        size_bytes = int(length) if length.isdecimal() else 0
        return Descriptor(answer.header("content-type").partition(";")[0], digest, size_bytes)

    async def put_manifest(self, which: str | Digest, data: bytes, media_type: str) -> None:
        """Store a manifest or index under a tag or its digest.

        Raises:
            RegistryError: the registry refuses, for instance because a blob is missing.
        """

        async def put(session: Session) -> None:
            url = session.endpoint.url(f"/v2/{self.reference.path}/manifests/{which}")
            answer = await session.call(
                "PUT", url, scope=self.scope, headers={"Content-Type": media_type}, body=BytesBody(data)
            )
            if answer.status not in {200, 201, 202}:
                raise parse_problem(answer.status, answer.headers, answer.body).to_error()
            _check_claim(session, answer, data)

        await self.try_each(put)

    async def delete_manifest(self, digest: Digest) -> None:
        """Remove a manifest; fine when it is gone."""
        await self._delete(f"/v2/{self.reference.path}/manifests/{digest}")

    async def delete_blob(self, digest: Digest) -> None:
        """Remove a blob; fine when it is gone."""
        await self._delete(f"/v2/{self.reference.path}/blobs/{digest}")

    async def blob(
        self, descriptor: Descriptor, offset: int = 0, note: RetryNote | None = None
    ) -> AsyncGenerator[memoryview, None]:
        """Stream a blob from `offset`; broken connections are replaced within the stream.

        Close the iterator (`contextlib.aclosing`). Each piece is valid until the next one.
        Size is checked, the digest is not.
        """
        position = offset
        path = f"/v2/{self.reference.path}/blobs/{descriptor.digest}"
        sessions = await self._sessions("pull")
        for session in sessions:
            try:
                pieces = iter_blob(session, path, descriptor, offset=position, scope=self.scope, note=note)
                async with aclosing(pieces):
                    async for piece in pieces:
                        position += len(piece)
                        yield piece
            except OrlopError as error:
                if session is sessions[-1] or not _is_worth_another(session, error):
                    raise _explained(session, error) from error
                log.warning(
                    "blob not from this server", server=str(session.endpoint.origin), error=str(error)
                )
            else:
                return

    async def read_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob such as a config, verified: bytes are hashed before anybody parses them.

        Raises:
            BadRegistry: it is announced with more than `limit` bytes, or its digest is another.
        """
        if descriptor.size_bytes > limit:
            raise BadRegistry(f"blob {descriptor.digest} has {descriptor.size_bytes} bytes, over {limit}")
        data = bytearray()
        async with aclosing(self.blob(descriptor)) as pieces:
            async for piece in pieces:
                data += piece
        found = _digest_like(descriptor.digest, bytes(data))
        if found != descriptor.digest:
            raise BadRegistry(f"{self.reference.domain} sent {found} for blob {descriptor.digest}")
        return bytes(data)

    async def find_blob(self, digest: Digest) -> int | None:
        """The size of a blob that the repository has, or None.

        Raises:
            RegistryError: the registry refuses to say.
        """

        async def head(session: Session) -> int | None:
            url = session.endpoint.url(f"/v2/{self.reference.path}/blobs/{digest}")
            answer = await session.call("HEAD", url, scope=self.scope)
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise parse_problem(answer.status, answer.headers, answer.body).to_error()
            length = answer.header("content-length")
            return int(length) if length.isdecimal() else 0

        return await self.try_each(head)

    async def mount(self, digest: Digest, source: str) -> bool:
        """Share a blob of the repository at path `source` of this registry; False when it will not."""
        return await self.try_each(lambda session: mount_blob(session, self.reference.path, digest, source))

    async def upload(self, source: BlobSource, *, sent: Sent = lambda _: None) -> None:
        """Send a blob. See `upload_blob`."""
        await self.try_each(lambda session: upload_blob(session, self.reference.path, source, sent=sent))

    async def tags(self) -> list[str]:
        """All tags, in the registry's order.

        Raises:
            BadRegistry: pages without end, or pages on another server.
        """
        return await self.try_each(
            lambda session: list_tags(session, self.reference, self.scope), need="resolve"
        )

    async def try_each(self, operation: Callable[[Session], Awaitable[T]], need: str = "") -> T:
        """Run `operation` on the first server that can answer, and stay with it.

        Args:
            operation: a call, given each server in turn.
            need: "resolve" for what a tag means, which some mirrors are not asked; "" as for blobs.
        """
        sessions = await self._sessions(need or ("push" if self._for_push else "pull"))
        for session in sessions:
            try:
                result = await operation(session)
            except OrlopError as error:
                if session is sessions[-1] or not _is_worth_another(session, error):
                    raise _explained(session, error) from error
                log.debug("next server", server=str(session.endpoint.origin), error=str(error))
            else:
                self._settle_on(session, sessions)
                return result
        raise AssertionError("a registry has at least one endpoint")

    async def _sessions(self, need: str = "pull") -> Sequence[Session]:
        if not self._known_sessions:
            self._known_sessions = await self._registry.sessions(
                self.reference.domain, self._credentials, for_push=self._for_push
            )
        # who resolves may be asked for the rest when nobody else is there
        able = [one for one in self._known_sessions if need in one.endpoint.capabilities]
        return able or self._known_sessions

    def _settle_on(self, session: Session, tried: Sequence[Session]) -> None:
        if tried[0] is session:
            return
        if session.endpoint.is_insecure and not session.endpoint.is_mirror:
            self._registry.note_scheme(self.reference.domain, session.endpoint.origin.scheme)
        failed = tried[: tried.index(session)]
        self._known_sessions = [one for one in self._known_sessions if one not in failed]

    async def _manifest_call(self, session: Session, method: str, which: str | Digest) -> Answer:
        url = session.endpoint.url(f"/v2/{self.reference.path}/manifests/{which}")
        return await session.call(
            method, url, scope=self.scope, headers={"Accept": _MANIFEST_ACCEPT}, limit=MAX_MANIFEST_BYTES
        )

    async def _get_manifest(self, session: Session, which: str | Digest) -> RemoteManifest:
        answer = await self._manifest_call(session, "GET", which)
        if answer.status != 200:
            reference = self.reference if ":" in which else self.reference.with_tag(which)
            raise pull_error(parse_problem(answer.status, answer.headers, answer.body), reference)
        digest = _check_claim(session, answer, answer.body)
        if ":" in which and digest != which:
            digest = _digest_like(Digest(which), answer.body)
            if digest != which:
                raise BadRegistry(f"{session.endpoint.origin} answers {digest} to a request for {which}")
        media_type = answer.header("content-type").partition(";")[0].strip().lower()
        return RemoteManifest(Descriptor(media_type, digest, len(answer.body)), answer.body)

    async def _delete(self, path: str) -> None:
        async def delete(session: Session) -> None:
            scope = scope_text(self.reference.path, "delete")
            answer = await session.call("DELETE", session.endpoint.url(path), scope=scope)
            if answer.status not in {200, 202, 204, 404}:
                raise parse_problem(answer.status, answer.headers, answer.body).to_error()

        await self.try_each(delete)


def _is_worth_another(session: Session, error: OrlopError) -> bool:
    if session.endpoint.is_mirror:
        return True
    is_about_tls = isinstance(error, ConnectFailed | TlsFailed | ConnectionBroken)
    return session.endpoint.is_insecure and session.endpoint.origin.scheme == "https" and is_about_tls


def _explained(session: Session, error: OrlopError) -> OrlopError:
    """Connection failures in the words of Go's HTTP client, which is what people search for."""
    if not isinstance(error, ConnectFailed | TlsFailed):
        return error
    base = session.endpoint.url("/v2/")
    if "WRONG_VERSION_NUMBER" in error.message or "wrong version number" in error.message.lower():
        return RegistryUnavailable(
            f'Get "{base}": http: server gave HTTP response to HTTPS client',
            hint=f"if that is intended, list {session.endpoint.domain} under insecure-registries",
        )
    return RegistryUnavailable(f'Get "{base}": {error.message}', hint=error.hint)


def _digest_like(pattern: Digest, data: bytes) -> Digest:
    hasher = new_hasher(algorithm(pattern))
    hasher.update(data)
    return Digest(f"{algorithm(pattern)}:{hasher.hexdigest()}")


def _check_claim(session: Session, answer: Answer, data: bytes) -> Digest:
    """The sha256 digest of `data`; refuses a Docker-Content-Digest that says otherwise."""
    digest = _digest_like(Digest("sha256:"), data)
    text = answer.header("docker-content-digest")
    if not text:
        return digest
    try:
        claimed = parse_digest(text)
    except InvalidDigest as error:
        raise BadRegistry(f"{session.endpoint.origin} names the digest {text[:100]!r}") from error
    if encoded(_digest_like(claimed, data)) != encoded(claimed):
        raise BadRegistry(f"{session.endpoint.origin} says {claimed} but its bytes hash to {digest}")
    return digest


async def _login(session: Session) -> str:
    answer = await session.call("GET", session.endpoint.url("/v2/"))
    if answer.status != 200:
        problem = parse_problem(answer.status, answer.headers, answer.body)
        raise (
            problem.to_error()
            if answer.status != 401
            else Unauthorized("unauthorized: incorrect username or password", status=401)
        )
    return await session.refresh_token()
