import asyncio
import base64
import contextlib
import dataclasses
import json
import subprocess

import pytest
from fake_registry import INDEX, FakeRegistry, Reply, error, sha256, tar_of

from orlop.aio.http_client import AddressRefused, BadResponse, ResponseTooLarge, Stalled
from orlop.aio.url import InvalidUrl
from orlop.base.errors import OrlopError
from orlop.oci.reference import parse_reference
from orlop.registry import session
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry
from orlop.registry.endpoints import RegistryOptions
from orlop.registry.errors import (
    AccessDenied,
    BadRegistry,
    NotOnRegistry,
    RegistryUnavailable,
    TooManyRequests,
    Unauthorized,
)
from orlop.registry.reach import public_only
from orlop.registry.retry import RetryPolicy

ALICE = Credentials("alice", "secret")
FAST = RetryPolicy(attempts=3, first_delay_s=0.001, max_delay_s=0.002, max_retry_after_s=0.05)
DOCUMENT = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}


@contextlib.asynccontextmanager
async def talking(*hooks, credentials=None, options=None, stall_s=2.0, for_push=False):
    """A fake registry with one manifest `app:1`, and a repository of it."""
    async with FakeRegistry() as fake:
        fake.add_manifest("app", "1", DOCUMENT, INDEX)
        fake.hooks += hooks
        registry = Registry(options or RegistryOptions(), user_agent="test", retry=FAST, stall_s=stall_s)
        registry.note_scheme(fake.domain, "http")
        reference = parse_reference(f"{fake.domain}/app:1")
        try:
            yield fake, registry.repository(reference, credentials, for_push=for_push), registry
        finally:
            registry.close()


def on(method, part, answer, times=1_000_000):
    """A hook that gives `answer` to the first `times` requests that match."""
    left = [times]

    async def hook(request):
        if request.method != method or part not in request.target or not left[0]:
            return None
        left[0] -= 1
        return answer(request) if callable(answer) else answer

    return hook


def token_service(scopes, token="tok", path="/token", expires=300):
    """Wants `Bearer <token>`, sells it at `path` of the same host."""

    async def hook(request):
        if request.path == path:
            scopes.append((request.query.get("scope"), request.authorization))
            return Reply(200, json.dumps({"token": token, "expires_in": expires}).encode())
        if request.authorization == f"Bearer {token}":
            return None
        realm = (
            f'Bearer realm="http://{request.headers["host"]}{path}",service="fake",scope="repository:evil:*"'
        )
        return error(401, "UNAUTHORIZED", "authentication required", **{"WWW-Authenticate": realm})

    return hook


def failing(*hooks, expected, action=None, match=None, **more):
    async def main():
        async with talking(*hooks, **more) as (fake, repository, _):
            with pytest.raises(expected, match=match):
                await (action(repository) if action else repository.get_manifest("1"))
            return fake

    return asyncio.run(main())


def test_manifests_come_with_our_own_digest():
    async def main():
        async with talking() as (fake, repository, _):
            by_tag = await repository.get_manifest("1")
            by_digest = await repository.get_manifest(by_tag.descriptor.digest)
            return by_tag, by_digest, await repository.head_manifest("1"), fake.calls("GET")[0].headers

    by_tag, by_digest, head, headers = asyncio.run(main())

    assert by_tag == by_digest
    assert by_tag.descriptor == head
    assert by_tag.descriptor.digest == sha256(by_tag.data)
    assert INDEX in headers["accept"]
    assert "authorization" not in headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Docker-Content-Digest": "sha256:" + "0" * 64},
        {"Docker-Content-Digest": "sha256:../../x"},
        {"Docker-Content-Digest": "md5:abc"},
    ],
)
def test_a_digest_header_that_lies_is_refused(headers):
    failing(on("GET", "/manifests/", Reply(200, b"{}", headers)), expected=BadRegistry)


def test_other_bytes_under_a_digest_are_refused():
    failing(
        on("GET", "/manifests/", Reply(200, b"{}")),
        expected=BadRegistry,
        action=lambda repository: repository.get_manifest("sha256:" + "1" * 64),
    )


def test_a_sha512_digest_is_verified_as_such():
    async def main():
        import hashlib

        digest = "sha512:" + hashlib.sha512(b"{}").hexdigest()
        async with talking(on("GET", "/manifests/", Reply(200, b"{}"))) as (_, repository, _):
            return (await repository.get_manifest(digest)).descriptor.digest == digest

    assert asyncio.run(main())


@pytest.mark.parametrize("headers", [{}, {"Content-Length": str(1 << 40)}])
def test_huge_manifests_are_cut_off(headers):
    failing(on("GET", "/manifests/", Reply(200, b" " * (5 << 20), headers)), expected=ResponseTooLarge)


def test_an_endless_error_body_does_not_hide_the_error():
    failing(on("GET", "/manifests/", Reply(404, b" " * (5 << 20))), expected=NotOnRegistry)


def test_temporary_failures_are_retried_and_permanent_ones_are_not():
    async def main():
        async with talking(on("GET", "/manifests/", Reply(503), times=2)) as (fake, repository, _):
            await repository.get_manifest("1")
            return len(fake.log)

    assert asyncio.run(main()) == 3
    assert len(failing(on("GET", "/manifests/", Reply(500)), expected=RegistryUnavailable).log) == 3
    assert len(failing(on("GET", "/manifests/", Reply(418)), expected=OrlopError).log) == 1
    assert len(failing(on("GET", "/manifests/", b""), expected=OrlopError, match="closed").log) == 3


def test_a_short_retry_after_is_waited_for_and_a_long_one_is_an_error():
    limited = error(429, "TOOMANYREQUESTS", "slow down", **{"Retry-After": "0"})
    endless = error(429, "TOOMANYREQUESTS", "slow down", **{"Retry-After": "1000000000"})

    async def main():
        async with talking(on("GET", "/manifests/", limited, times=1)) as (_, repository, _):
            return await repository.get_manifest("1")

    assert asyncio.run(main())
    assert len(failing(on("GET", "/manifests/", endless), expected=TooManyRequests, match="slow").log) == 1


def test_a_silent_registry_is_given_up():
    async def silent(request):
        await asyncio.sleep(30)

    async def main():
        async with talking(silent) as (_, repository, _):
            await session.Session.call(
                (await repository._sessions())[0],
                "GET",
                (await repository._sessions())[0].endpoint.url("/v2/"),
                timeout_s=0.05,
            )

    with pytest.raises(Stalled):
        asyncio.run(main())


def test_a_ten_megabyte_header_is_refused():
    raw = b"HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer " + b"a" * (10 << 20) + b"\r\n\r\n"

    failing(on("GET", "/manifests/", raw), expected=BadResponse)


def test_tokens_are_bought_once_for_the_scope_we_need():
    scopes = []

    async def main():
        async with talking(token_service(scopes), credentials=ALICE) as (fake, repository, _):
            await repository.get_manifest("1")
            await repository.get_manifest("1")
            return fake.calls("GET", "/manifests/")

    calls = asyncio.run(main())

    basic = "Basic " + base64.b64encode(b"alice:secret").decode()
    assert scopes == [("repository:app:pull", basic)]
    assert [call.authorization for call in calls] == ["", "Bearer tok", "Bearer tok"]


def test_another_user_of_a_known_registry_buys_a_token_before_the_first_request():
    scopes = []

    async def main():
        async with talking(token_service(scopes)) as (fake, repository, registry):
            await repository.get_manifest("1")
            fake.log.clear()
            await registry.repository(repository.reference, ALICE).get_manifest("1")
            return [call.path for call in fake.log]

    assert asyncio.run(main()) == ["/token", "/v2/app/manifests/1"]
    assert [bool(authorization) for _, authorization in scopes] == [False, True]


def test_a_refused_token_is_replaced_once_and_no_more():
    refused = on(
        "GET", "/manifests/", error(401, "UNAUTHORIZED", "no", **{"WWW-Authenticate": "Basic realm=x"})
    )

    fake = failing(refused, expected=Unauthorized, credentials=ALICE)

    assert len(fake.log) == 2


def test_a_bearer_loop_ends():
    scopes = []

    async def never(request):
        if request.path == "/token":
            return None
        realm = f'Bearer realm="http://{request.headers["host"]}/token"'
        return error(401, "UNAUTHORIZED", "again", **{"WWW-Authenticate": realm})

    fake = failing(never, token_service(scopes), expected=Unauthorized)

    assert len(fake.calls("GET", "/manifests/")) == 2


def test_basic_credentials_are_sent_only_after_a_challenge():
    async def basic(request):
        if request.authorization.startswith("Basic "):
            return None
        return error(401, "UNAUTHORIZED", "who", **{"WWW-Authenticate": 'Basic realm="x"'})

    async def main():
        async with talking(basic, credentials=ALICE) as (fake, repository, _):
            await repository.get_manifest("1")
            return [call.authorization for call in fake.log]

    first, second = asyncio.run(main())

    assert first == ""
    assert base64.b64decode(second.removeprefix("Basic ")) == b"alice:secret"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"token": "a b"}', b"x" * (1 << 20)])
def test_token_garbage_is_the_registrys_fault(body):
    async def garbage(request):
        return Reply(200, body) if request.path == "/token" else None

    failing(garbage, token_service([]), expected=(BadRegistry, ResponseTooLarge))


def test_a_token_service_that_refuses_names_the_reason():
    async def refuse(request):
        return Reply(401, b'{"details": "incorrect"}') if request.path == "/token" else None

    failing(refuse, token_service([]), expected=Unauthorized, match="incorrect username", credentials=ALICE)


def test_a_realm_in_clear_text_on_another_host_gets_no_credentials():
    async def main():
        async with FakeRegistry() as realm:
            scopes = []
            realm.hooks.append(token_service(scopes))

            async def challenge(request):
                if request.authorization == "Bearer tok":
                    return None
                where = f'Bearer realm="http://localhost:{realm.port}/token"'
                return error(401, "UNAUTHORIZED", "x", **{"WWW-Authenticate": where})

            async with talking(challenge, credentials=ALICE) as (_, repository, _):
                await repository.get_manifest("1")
            return scopes

    assert asyncio.run(main()) == [("repository:app:pull", "")]


def test_redirects_never_carry_credentials_to_another_host():
    async def main():
        async with FakeRegistry() as other:
            blob = other.add_blob(b"data" * 1000)

            def away(request):
                return Reply(307, b"", {"Location": f"http://127.0.0.1:{other.port}/v2/x/blobs/{blob}"})

            async with talking(on("GET", "/manifests/", away), token_service([]), credentials=ALICE) as (
                fake,
                repository,
                _,
            ):
                fake.hooks.reverse()  # the token first, the redirect behind it
                manifest = await repository.get_manifest("1")
            return manifest.data, fake.calls("GET", "/manifests/")[-1], other.log

    data, asked, seen = asyncio.run(main())

    assert data == b"data" * 1000
    assert asked.authorization == "Bearer tok"
    assert [call.authorization for call in seen] == [""]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("file:///etc/passwd", InvalidUrl),
        ("unix:///run/orlop/orlop.sock", InvalidUrl),
        ("http://user:pw@127.0.0.1/", InvalidUrl),
        ("http://169.254.169.254/latest/meta-data", AddressRefused),
        ("http://[fe80::1]/", AddressRefused),
        ("http://0.0.0.0:80/", AddressRefused),
        ("/v2/app/manifests/1", BadRegistry),  # for ever
    ],
)
def test_redirects_to_where_nobody_should_go_are_refused(location, expected):
    failing(on("GET", "/manifests/", Reply(307, b"", {"Location": location})), expected=expected)


def test_a_public_registry_cannot_send_us_to_loopback(monkeypatch):
    monkeypatch.setattr(session, "reach_from", lambda _: public_only)
    away = on("GET", "/manifests/", Reply(307, b"", {"Location": "http://localhost:2375/containers/json"}))

    failing(away, expected=AddressRefused, match="inside this network")


def test_tags_are_listed_across_pages_of_the_same_server():
    def page(request):
        if "last" in request.target:
            return Reply(200, b'{"tags": ["c"]}')
        return Reply(200, b'{"tags": ["a", "b"]}', {"Link": '</v2/app/tags/list?last=b>; rel="next"'})

    async def main():
        async with talking(on("GET", "/tags/list", page)) as (_, repository, _):
            return await repository.tags()

    assert asyncio.run(main()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("body", "link"),
    [
        (b'{"tags": ["a"]}', '<http://elsewhere/v2/x>; rel="next"'),
        (b'{"tags": ["a"]}', '</v2/app/tags/list?n=1000>; rel="next"'),
        (b'{"tags": ["../../x"]}', ""),
        (b"[]", ""),
        (b"{", ""),
    ],
)
def test_hostile_tag_lists_are_refused(body, link):
    pages = on("GET", "/tags/list", Reply(200, body, {"Link": link} if link else {}))

    if body == b"[]":
        assert asyncio.run(_tags(pages)) == []
        return
    failing(pages, expected=BadRegistry, action=lambda repository: repository.tags())


async def _tags(*hooks):
    async with talking(*hooks) as (_, repository, _):
        return await repository.tags()


def test_a_mirror_is_asked_first_without_credentials_and_left_when_it_fails():
    async def main():
        async with FakeRegistry() as mirror, FakeRegistry() as hub:
            mirror.add_manifest("library/app", "1", DOCUMENT, INDEX)
            hub.add_manifest("library/app", "2", DOCUMENT, INDEX)
            options = RegistryOptions(mirrors=(f"http://{mirror.domain}",))
            registry = Registry(options, user_agent="test", retry=FAST)
            found = await registry.sessions("docker.io", ALICE, for_push=False)
            object.__setattr__(found[1], "endpoint", found[1].endpoint.__class__(
                found[0].endpoint.origin.__class__("http", "127.0.0.1", hub.port), "docker.io"))  # fmt: skip
            first = registry.repository(parse_reference("app"), ALICE)
            first._known_sessions = list(found)
            await first.get_manifest("1")
            await first.get_manifest("2")
            registry.close()
            return len(mirror.log), len(hub.log), [c.authorization for c in mirror.log]

    assert asyncio.run(main()) == (2, 1, ["", ""])


def test_deleting_is_repeatable():
    async def main():
        digest = "sha256:" + "a" * 64
        async with talking(on("DELETE", "/", Reply(404))) as (fake, repository, _):
            await repository.delete_manifest(digest)
            await repository.delete_blob(digest)
            return [call.path for call in fake.log]

    assert len(asyncio.run(main())) == 2


def test_pushing_without_rights_is_denied_in_the_registrys_words():
    denied = on("PUT", "/manifests/", error(403, "DENIED", "requested access to the resource is denied"))

    failing(
        denied,
        expected=AccessDenied,
        match="denied: requested access to the resource is denied",
        action=lambda repository: repository.put_manifest("1", b"{}", INDEX),
        for_push=True,
    )


def test_login_returns_the_identity_token_that_is_offered():
    async def service(request):
        if request.path == "/token":
            offered = (
                {"token": "tok", "refresh_token": "idt"}
                if "offline_token" in request.query
                else {"token": "tok"}
            )
            return Reply(200, json.dumps(offered).encode())
        return None

    async def main():
        async with talking(service, token_service([])) as (fake, _, registry):
            return await registry.login(fake.domain, ALICE)

    assert asyncio.run(main()) == "idt"


def test_a_plain_registry_on_loopback_is_found_and_remembered():
    async def main():
        async with FakeRegistry() as fake:
            fake.add_image("app", "1", [tar_of(a=b"1")])
            registry = Registry(RegistryOptions(), user_agent="test", retry=FAST)
            for _ in range(2):
                repository = registry.repository(parse_reference(f"{fake.domain}/app:1"))
                await repository.get_manifest("1")
            registry.close()
            return len(fake.log)

    assert asyncio.run(main()) == 2


def test_nobody_listening_is_told_as_docker_does():
    registry = Registry(RegistryOptions(), user_agent="test", retry=FAST)

    with pytest.raises(RegistryUnavailable, match=r'Get "http://127\.0\.0\.1:1/v2/": .*connection refused'):
        asyncio.run(registry.repository(parse_reference("127.0.0.1:1/x")).get_manifest("1"))


@pytest.fixture
def certificate(tmp_path):
    key, crt = tmp_path / "key.pem", tmp_path / "crt.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", crt]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    return crt, key


def test_tls_is_verified_by_the_certificates_of_the_registry(tmp_path, certificate):
    import ssl

    crt, key = certificate
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(crt, key)

    async def fetch(config_dirs, *, is_lax):
        async with FakeRegistry(server) as fake:
            fake.add_manifest("app", "1", DOCUMENT, INDEX)
            if config_dirs:
                folder = tmp_path / "certs" / fake.domain
                folder.mkdir(parents=True)
                (folder / "ca.crt").write_bytes(crt.read_bytes())
            registry = Registry(RegistryOptions(config_dirs=config_dirs), user_agent="test", retry=FAST)
            repository = registry.repository(parse_reference(f"{fake.domain}/app:1"))
            found = await repository._sessions()
            if not is_lax:
                found[0].endpoint = dataclasses.replace(found[0].endpoint, is_insecure=False)
                repository._known_sessions = [found[0]]
            try:
                return len((await repository.get_manifest("1")).data)
            finally:
                registry.close()

    assert asyncio.run(fetch((), is_lax=True)) > 0
    assert asyncio.run(fetch((str(tmp_path / "certs"),), is_lax=False)) > 0
    with pytest.raises(RegistryUnavailable, match="certificate verify failed"):
        asyncio.run(fetch((), is_lax=False))


def test_a_token_server_without_post_is_asked_by_get():
    asked = []

    def token(request):
        asked.append((request.method, request.authorization))
        return Reply(404 if request.method == "POST" else 200, json.dumps({"token": "tok"}).encode())

    def manifest(request):
        if request.authorization == "Bearer tok":
            return None
        realm = f'Bearer realm="http://{request.headers["host"]}/token"'
        return Reply(401, b"", {"WWW-Authenticate": realm})

    async def main():
        hooks = on("GET", "/token", token), on("POST", "/token", token), on("GET", "/manifests/", manifest)
        async with talking(*hooks, credentials=Credentials("me", identity_token="idt")) as (_, app, _r):
            return (await app.get_manifest("1")).data

    assert json.loads(asyncio.run(main())) == DOCUMENT
    assert asked == [("POST", ""), ("GET", "Basic " + base64.b64encode(b"me:idt").decode())]


def test_a_mount_that_no_token_allows_is_no_failure():
    def token(request):
        return Reply(401) if "scope=repository%3Aother" in request.target else Reply(200, b'{"token": "tok"}')

    def upload(request):
        realm = f'Bearer realm="http://{request.headers["host"]}/token"'
        return Reply(401, b"", {"WWW-Authenticate": realm})

    async def main():
        async with talking(on("GET", "/token", token), on("POST", "/uploads/", upload), for_push=True) as (
            _,
            app,
            _r,
        ):
            return await app.mount(sha256(b"x"), "other")

    assert asyncio.run(main()) is False
