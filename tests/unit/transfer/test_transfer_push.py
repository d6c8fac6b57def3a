import asyncio
import gzip
import json
import os

import pytest
from fake_registry import MANIFEST, FakeRegistry, error, sha256, tar_of
from stores import stores

from orlop.base import failpoints
from orlop.oci.platform import host_platform
from orlop.oci.reference import parse_reference
from orlop.registry.auth import Credentials
from orlop.registry.errors import AccessDenied
from orlop.transfer.outgoing import LayerDamaged
from orlop.transfer.progress import to_message
from orlop.transfer.pull import PullRequest
from orlop.transfer.push import NothingToPush, NotPushable, PushRequest

ARCH = host_platform().architecture
ONE, TWO = tar_of(one=b"1" * 50_000), tar_of(two=os.urandom(200_000))


def run(tmp_path, body):
    async def main():
        async with (
            FakeRegistry() as source,
            FakeRegistry() as target,
            stores(tmp_path, source, target) as here,
        ):
            return await body(source, target, here)

    return asyncio.run(main())


async def pulled(source, here, *tars):
    source.add_image("app", "1", tars or [ONE, TWO], arch=ARCH)
    return await here.puller.fetch(PullRequest(parse_reference(f"{source.domain}/app:1")))


async def made_here(here, *tars):
    """An image without manifest and sources, as a build makes it."""
    tars = tars or (ONE, TWO)
    diff_ids = [sha256(tar) for tar in tars]
    config = {"architecture": ARCH, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    async with here.leases.hold("test") as lease:
        for tar in tars:
            async with here.layers.writer(lease) as writer:
                await writer.write(tar)
                await writer.commit()
        return await here.images.put(json.dumps(config).encode(), lease=lease)


async def push(here, image, fake, name="copy:2", **more):
    reference = parse_reference(f"{fake.domain}/{name}")
    await here.images.tag(image.id, reference)
    return [to_message(p) async for p in here.pusher.push(PushRequest(reference, **more))]


def statuses(told, identifier):
    return [
        message["status"] for message in told if message.get("id") == identifier and "progress" not in message
    ]


def uploads(fake):
    return fake.calls("PATCH")


def test_a_pulled_image_arrives_elsewhere_byte_for_byte(tmp_path):
    async def body(source, target, here):
        image = await pulled(source, here)
        told = await push(here, image, target)
        return source, target, told, (await here.images.get(image.id)).repo_digests

    source, target, told, digests = run(tmp_path, body)

    manifest = source.manifests["app", "1"][1]
    assert target.manifests["copy", "2"] == (MANIFEST, manifest)
    assert set(source.blobs) == set(target.blobs)
    assert told[0] == {"status": f"The push refers to repository [{target.domain}/copy]"}
    assert [message["id"] for message in told[1:3]] == [sha256(TWO)[7:19], sha256(ONE)[7:19]]
    assert statuses(told, sha256(ONE)[7:19]) == ["Preparing", "Pushed"]
    assert told[-2:] == [
        {"status": f"2: digest: {sha256(manifest)} size: {len(manifest)}"},
        {"progressDetail": {}, "aux": {"Tag": "2", "Digest": sha256(manifest), "Size": len(manifest)}},
    ]
    assert f"{target.domain}/copy@{sha256(manifest)}" in [str(name) for name in digests]


async def not_in_copy(request):
    """The fake has all its blobs in every repository, but not in this one."""
    is_ours = request.method == "HEAD" and request.target.startswith("/v2/copy/blobs/")
    return error(404, "BLOB_UNKNOWN", "x") if is_ours else None


def test_within_a_registry_layers_are_mounted(tmp_path):
    async def body(source, _, here):
        image = await pulled(source, here)
        source.log.clear()
        source.hooks.append(not_in_copy)
        told = await push(here, image, source)
        return statuses(told, sha256(ONE)[7:19]), len(uploads(source))

    assert run(tmp_path, body) == (["Preparing", "Mounted from app"], 1)  # the config


def test_a_registry_that_does_not_mount_gets_the_bytes(tmp_path):
    async def body(source, _, here):
        image = await pulled(source, here)

        async def no_mounts(request):
            if "mount=" in request.target:
                return source.behave(type(request)("POST", f"{request.path}?x=1", {}, None, None))
            return None

        source.hooks += [no_mounts, not_in_copy]
        told = await push(here, image, source)
        return statuses(told, sha256(ONE)[7:19]), source.manifests["copy", "2"] == source.manifests[
            "app", "1"
        ]

    assert run(tmp_path, body) == (["Preparing", "Pushed"], True)


def test_the_second_push_of_a_local_image_sends_nothing(tmp_path):
    async def body(_, target, here):
        image = await made_here(here)
        first = await push(here, image, target)
        sent = len(uploads(target))
        manifest = target.manifests["copy", "2"]
        target.log.clear()
        second = await push(here, await here.images.get(image.id), target)
        return first, sent, manifest, second, uploads(target), target

    first, sent, manifest, second, again, target = run(tmp_path, body)

    assert sent == 3  # two layers and the config
    assert again == []
    assert statuses(second, sha256(ONE)[7:19]) == ["Preparing", "Layer already exists"]
    assert first[-1] == second[-1]
    assert target.manifests["copy", "2"] == manifest
    layers = [target.blobs[layer["digest"]] for layer in json.loads(manifest[1])["layers"]]
    assert [gzip.decompress(data) for data in layers] == [ONE, TWO]


def test_compression_is_the_same_for_every_registry(tmp_path):
    async def body(source, target, here):
        image = await made_here(here)
        await push(here, image, source)
        await push(here, await here.images.get(image.id), target)
        return source.manifests["copy", "2"] == target.manifests["copy", "2"], set(source.blobs) == set(
            target.blobs
        )

    assert run(tmp_path, body) == (True, True)


def test_a_source_that_is_gone_is_replaced_by_compression(tmp_path):
    async def body(source, target, here):
        image = await pulled(source, here)
        source.blobs.clear()
        told = await push(here, image, target)
        fresh = await here.images.get(image.id)
        target.log.clear()
        await push(here, fresh, target)
        return source, target, statuses(told, sha256(ONE)[7:19]), uploads(target)

    source, target, told, again = run(tmp_path, body)

    assert told == ["Preparing", "Pushed"]
    assert again == []
    assert target.manifests["copy", "2"][1] != source.manifests["app", "1"][1]


def test_a_source_that_breaks_off_is_replaced_by_compression(tmp_path):
    async def body(source, target, here):
        image = await pulled(source, here, TWO)

        async def breaks(request):
            return b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\nx" if request.method == "GET" else None

        source.hooks.append(breaks)
        await push(here, image, target)
        return [gzip.decompress(data) for data in target.blobs.values() if data[:2] == b"\x1f\x8b"]

    assert run(tmp_path, body) == [TWO]


def test_credentials_of_a_push_never_reach_the_source(tmp_path):
    async def body(source, target, here):
        image = await pulled(source, here)
        source.log.clear()

        async def wants_basic(request):
            if request.authorization:
                return None
            return error(401, "UNAUTHORIZED", "x", **{"WWW-Authenticate": 'Basic realm="x"'})

        target.hooks.append(wants_basic)
        source.hooks.append(wants_basic)
        await push(here, image, target, credentials=Credentials("alice", "secret"))
        return {call.authorization for call in source.log}, len(target.blobs)

    assert run(tmp_path, body) == ({""}, 3)


def test_a_damaged_layer_is_never_pushed(tmp_path):
    async def body(_, target, here):
        image = await made_here(here, TWO)
        path = here.layers.path(image.diff_ids[0])
        with open(path, "r+b") as file:
            file.seek(4096 + 600)
            file.write(b"flipped")
        with pytest.raises(LayerDamaged):
            await push(here, image, target)
        return target.blobs, target.manifests, target.uploads

    assert run(tmp_path, body) == ({}, {}, {})


def test_all_tags_of_a_repository_go(tmp_path):
    async def body(_, target, here):
        image = await made_here(here)
        for tag in ("a", "b"):
            await here.images.tag(image.id, parse_reference(f"{target.domain}/copy:{tag}"))
        bare = PushRequest(parse_reference(f"{target.domain}/copy"), all_tags=True)
        _ = [p async for p in here.pusher.push(bare)]
        return sorted(which for _, which in target.manifests if ":" not in which)

    assert run(tmp_path, body) == ["a", "b"]


def test_what_is_not_here_cannot_be_pushed(tmp_path):
    async def collect(here, reference, told):
        async for progress in here.pusher.push(PushRequest(parse_reference(reference))):
            told.append(progress.status)

    async def body(_, target, here):
        told = []
        with pytest.raises(NothingToPush, match=r"An image does not exist locally with the tag: .*/nope"):
            await collect(here, f"{target.domain}/nope", told)
        await here.images.tag((await made_here(here)).id, parse_reference(f"{target.domain}/copy:2"))
        with pytest.raises(NothingToPush, match="tag does not exist"):
            await collect(here, f"{target.domain}/copy:3", told)
        with pytest.raises(NotPushable):
            await collect(here, f"{target.domain}/copy@sha256:{'0' * 64}", told)
        return len(told)

    assert run(tmp_path, body) == 2


def test_a_refusal_is_shown_in_the_registrys_words(tmp_path):
    async def body(_, target, here):
        async def deny(request):
            return error(403, "DENIED", "requested access to the resource is denied")

        target.hooks.append(deny)
        with pytest.raises(AccessDenied, match="denied: requested access to the resource is denied"):
            await push(here, await made_here(here), target)

    run(tmp_path, body)


@pytest.mark.parametrize("name", ["push.layer.sent", "push.before-manifest"])
def test_a_push_that_fails_late_sends_no_layer_twice(tmp_path, name):
    async def body(_, target, here):
        image = await made_here(here, TWO)
        failpoints.configure(f"{name}=error")
        try:
            with pytest.raises(OSError, match=name):
                await push(here, image, target)
        finally:
            failpoints.configure("")
        manifests = dict(target.manifests)
        target.log.clear()
        told = await push(here, await here.images.get(image.id), target)
        return manifests, statuses(told, sha256(TWO)[7:19])

    assert run(tmp_path, body) == ({}, ["Preparing", "Layer already exists"])
