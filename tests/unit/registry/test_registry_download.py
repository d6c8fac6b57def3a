import asyncio
import contextlib
import os

import pytest
from fake_registry import FakeRegistry, Reply, sha256

from orlop.base.errors import OrlopError
from orlop.oci.descriptor import Descriptor
from orlop.oci.mediatype import DOCKER_LAYER_GZIP
from orlop.oci.reference import parse_reference
from orlop.registry.client import Registry
from orlop.registry.endpoints import RegistryOptions
from orlop.registry.errors import BadRegistry, NotOnRegistry
from orlop.registry.retry import RetryPolicy

FAST = RetryPolicy(attempts=3, first_delay_s=0.001, max_delay_s=0.002, max_retry_after_s=0.05)
DATA = os.urandom(3 << 20)


@contextlib.asynccontextmanager
async def serving(*hooks, data=DATA, stall_s=2.0):
    async with FakeRegistry() as fake:
        descriptor = Descriptor(DOCKER_LAYER_GZIP, fake.add_blob(data), len(data))
        fake.hooks += hooks
        registry = Registry(RegistryOptions(), user_agent="test", retry=FAST, stall_s=stall_s)
        registry.note_scheme(fake.domain, "http")
        try:
            yield fake, registry.repository(parse_reference(f"{fake.domain}/app")), descriptor
        finally:
            registry.close()


async def collect(repository, descriptor, offset=0, notes=None):
    note = (lambda delay, error: notes.append(error)) if notes is not None else None
    return b"".join([bytes(piece) async for piece in repository.blob(descriptor, offset, note)])


def only_blobs(answer, times=1_000_000):
    left = [times]

    async def hook(request):
        if "/blobs/" not in request.target or not left[0]:
            return None
        left[0] -= 1
        return answer(request)

    return hook


def start_of(request):
    return int(request.headers.get("range", "bytes=0-")[6:-1])


def rest_of(request, data=DATA, **more):
    start = start_of(request)
    if not start:
        return Reply(200, data, **more)
    return Reply(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, **more)


def fetch(*hooks, offset=0, notes=None, **more):
    async def main():
        async with serving(*hooks, **more) as (fake, repository, descriptor):
            return await collect(repository, descriptor, offset, notes), fake

    return asyncio.run(main())


def test_a_blob_arrives_whole_or_from_an_offset():
    assert fetch()[0] == DATA
    assert fetch(offset=1 << 20)[0] == DATA[1 << 20 :]
    assert fetch(offset=len(DATA))[0] == b""


def test_resets_cost_little_more_than_their_number():
    data, notes = os.urandom(32 << 20), []

    def reset(request):
        return rest_of(request, data, cut_after=2 << 20)

    received, fake = fetch(only_blobs(reset), data=data, notes=notes)

    assert sha256(received) == sha256(data)
    assert len(notes) >= 15
    assert fake.sent_bytes < 1.05 * len(data)


def test_resets_without_progress_are_given_up():
    async def main():
        async with serving(only_blobs(lambda r: rest_of(r, cut_after=10))) as (fake, repository, descriptor):
            with pytest.raises(OrlopError, match="closed the connection"):
                await collect(repository, descriptor)
            return len(fake.log)

    assert asyncio.run(main()) == 3


def test_a_stall_leads_to_a_new_connection():
    async def stall(request):
        if request.headers.get("range") is None:
            request.writer.write(Reply(200, DATA).encode("GET")[: 1 << 20])
            await request.writer.drain()
            await asyncio.sleep(5)
        return

    notes = []
    received, fake = fetch(stall, stall_s=0.2, notes=notes)

    assert received == DATA
    assert len(fake.log) == 2
    assert "next to nothing" in str(notes[0])


def test_a_server_that_ignores_ranges_is_read_from_the_start():
    def always_all(request):
        return Reply(200, DATA, cut_after=None if start_of(request) else 1 << 20)

    received, fake = fetch(only_blobs(always_all))

    assert received == DATA
    assert len(fake.log) == 2


@pytest.mark.parametrize(
    "content_range",
    ["", "bytes 5-10/20", f"bytes {2 << 20}-{len(DATA) - 1}/{len(DATA)}", f"bytes 0-{len(DATA) - 1}/7", "bytes */7", "x" * 500],
)  # fmt: skip
def test_wrong_ranges_are_refused(content_range):
    def wrong(request):
        return Reply(206, DATA[1 << 20 :], {"Content-Range": content_range})

    with pytest.raises(BadRegistry):
        fetch(only_blobs(wrong), offset=1 << 20)


def test_a_range_that_begins_earlier_overlaps_without_harm():
    def earlier(request):
        return Reply(206, DATA[100:], {"Content-Range": f"bytes 100-{len(DATA) - 1}/{len(DATA)}"})

    assert fetch(only_blobs(earlier), offset=1 << 20)[0] == DATA[1 << 20 :]


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_another_length_than_the_manifest_says_is_refused(size):
    with pytest.raises(BadRegistry):
        fetch(only_blobs(lambda _: Reply(200, (DATA + b"x")[:size])))


def test_more_bytes_than_announced_anywhere_are_refused():
    def endless(request):
        body = b"".join(b"100000\r\n" + bytes(1 << 20) + b"\r\n" for _ in range(5))
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body

    with pytest.raises(BadRegistry, match="more than"):
        fetch(only_blobs(endless))


def test_unavailable_servers_are_asked_again_and_missing_blobs_are_not():
    unavailable = only_blobs(lambda _: Reply(503, b"", {"Retry-After": "0"}), times=2)
    assert fetch(unavailable)[0] == DATA

    async def main():
        async with serving() as (fake, repository, _):
            with pytest.raises(NotOnRegistry, match="blob unknown"):
                await collect(repository, Descriptor(DOCKER_LAYER_GZIP, "sha256:" + "0" * 64, 5))
            return len(fake.log)

    assert asyncio.run(main()) == 1
