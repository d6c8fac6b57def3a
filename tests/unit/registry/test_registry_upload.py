import asyncio
import contextlib
import os

import pytest
from fake_registry import FakeRegistry, Reply, error, read_body, sha256

from orlop.aio.url import parse_url
from orlop.base.errors import OrlopError
from orlop.oci.reference import parse_reference
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry
from orlop.registry.endpoints import RegistryOptions
from orlop.registry.errors import AccessDenied, BadRegistry, RegistryError
from orlop.registry.retry import RetryPolicy

FAST = RetryPolicy(attempts=4, first_delay_s=0.001, max_delay_s=0.002)
DATA = os.urandom(2 << 20)


class Source:
    """Bytes of known or unknown length."""

    def __init__(self, data=DATA, *, is_sized=True):
        self.data, self.offsets = data, []
        self.size_bytes = len(data) if is_sized else None
        self.digest = sha256(data)

    async def chunks(self, offset):
        self.offsets.append(offset)
        for start in range(offset, len(self.data), 1 << 17):
            yield self.data[start : start + (1 << 17)]


@contextlib.asynccontextmanager
async def serving(*hooks):
    async with FakeRegistry() as fake:
        fake.hooks += hooks
        registry = Registry(RegistryOptions(), user_agent="test", retry=FAST, stall_s=2)
        registry.note_scheme(fake.domain, "http")
        reference = parse_reference(f"{fake.domain}/app")
        try:
            yield fake, registry.repository(reference, Credentials("alice", "secret"), for_push=True)
        finally:
            registry.close()


def upload(source, *hooks):
    async def main():
        sent = []
        async with serving(*hooks) as (fake, repository):
            await repository.upload(source, sent=sent.append)
            assert fake.blobs[source.digest] == source.data
            return fake, sent

    return asyncio.run(main())


@pytest.mark.parametrize("is_sized", [True, False])
def test_a_blob_is_sent_in_three_steps(is_sized):
    fake, sent = upload(Source(is_sized=is_sized))

    assert [call.method for call in fake.log] == ["POST", "PATCH", "PUT"]
    assert ("transfer-encoding" in fake.log[1].headers) is not is_sized
    assert sent[-1] == len(DATA)
    assert fake.log[2].query["_state"] == "y"


def test_an_empty_blob_needs_no_patch():
    fake, _ = upload(Source(b""))

    assert [call.method for call in fake.log] == ["POST", "PUT"]


@pytest.mark.parametrize("is_sized", [True, False])
def test_a_broken_upload_goes_on_where_the_registry_says(is_sized):
    left = [1]

    async def breaks(request):
        if request.method != "PATCH" or not left:
            return None
        left.clear()
        upload = next(iter(fakes[0].uploads.values()))
        upload += DATA[: 1 << 20]
        return b""

    fakes = []

    async def main():
        async with serving(breaks) as (fake, repository):
            fakes.append(fake)
            source = Source(is_sized=is_sized)
            await repository.upload(source)
            return source, fake

    source, fake = asyncio.run(main())

    assert fake.blobs[source.digest] == DATA
    assert source.offsets[-1] == 1 << 20
    assert [call.method for call in fake.log] == ["POST", "PATCH", "GET", "PATCH", "PUT"]


def test_a_forgotten_upload_begins_anew():
    left = [1]

    async def forget(request):
        if request.method != "PUT" or not left:
            return None
        left.clear()
        fakes[0].uploads.clear()
        return error(404, "BLOB_UPLOAD_UNKNOWN", "gone")

    fakes = []

    async def main():
        async with serving(forget) as (fake, repository):
            fakes.append(fake)
            await repository.upload(Source())
            return [call.method for call in fake.log]

    assert asyncio.run(main()) == ["POST", "PATCH", "PUT", "GET", "POST", "PATCH", "PUT"]


def test_a_registry_that_always_fails_is_given_up():
    async def fails(request):
        if request.method != "PATCH":
            return None
        await read_body(request)
        return Reply(500)

    with pytest.raises(OrlopError, match="500"):
        upload(Source(), fails)


def test_refusals_are_final_and_the_upload_is_cancelled():
    async def refuse(request):
        return error(403, "DENIED", "quota") if request.method == "PUT" else None

    async def main():
        async with serving(refuse) as (fake, repository):
            with pytest.raises(AccessDenied, match="quota"):
                await repository.upload(Source())
            return [call.method for call in fake.log], fake.uploads

    assert asyncio.run(main()) == (["POST", "PATCH", "PUT", "DELETE"], {})


def test_a_registry_that_stores_something_else_is_told_apart():
    async def lie(request):
        claim = {"Docker-Content-Digest": "sha256:" + "0" * 64}
        return Reply(201, b"", claim) if request.method == "PUT" else None

    with pytest.raises(BadRegistry, match="stored"):
        upload(Source(), lie)


def test_mounting_sends_nothing():
    async def main():
        async with serving() as (fake, repository):
            digest = fake.add_blob(DATA)
            mounted = await repository.mount(digest, "other/app")
            missing = await repository.mount("sha256:" + "0" * 64, "other/app")
            return mounted, missing, [call.method for call in fake.log], fake.uploads

    assert asyncio.run(main()) == (True, False, ["POST", "POST", "DELETE"], {})


def test_an_upload_location_on_another_host_gets_no_credentials():
    async def main():
        async with FakeRegistry() as other:

            async def away(request):
                if "Basic" not in request.authorization:
                    return error(401, "UNAUTHORIZED", "x", **{"WWW-Authenticate": 'Basic realm="x"'})
                if request.method != "POST":
                    return None
                other.uploads["9"] = bytearray()
                return Reply(202, b"", {"Location": f"http://127.0.0.1:{other.port}/v2/app/blobs/uploads/9"})

            async with serving(away) as (fake, repository):
                await repository.upload(Source())
                return [call.authorization != "" for call in fake.log], [
                    call.authorization for call in other.log
                ]

    ours, theirs = asyncio.run(main())

    assert ours == [False, True]
    assert theirs == ["", ""]


def test_a_location_that_leaves_tls_is_refused():
    async def main():
        async with serving() as (_, repository):
            found = (await repository._sessions())[0]
            with pytest.raises(RegistryError, match="not encrypted"):
                found.check_target(parse_url("http://a/x"), parse_url("https://a/y"))

    asyncio.run(main())


def test_a_post_without_location_is_refused():
    async def nowhere(request):
        return Reply(202) if request.method == "POST" else None

    with pytest.raises(BadRegistry, match="location"):
        upload(Source(), nowhere)
