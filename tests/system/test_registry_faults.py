"""The registry server killed at every step, and collection while others push: nothing told is lost."""

import concurrent.futures
import http.client
import os
import threading

import pytest

from support.failpoint_names import declared
from support.registryd import RegistryServer, digest_of, manifest_of

pytestmark = pytest.mark.system

LAYER = os.urandom(3 << 20)
COLLECTING = "registry.collect.after-forget"
STEPS = [
    "blobs.ingest.write",
    "blobs.commit.before-fsync",
    "blobs.commit.before-rename",
    "blobs.commit.after-rename",
    "blobs.commit.before-row",
    "blobs.commit.after-row",
    "registry.blob.before-link",
    "registry.blob.after-link",
    "registry.manifest.before-row",
    "registry.manifest.after-row",
    "db.commit.before",
    "db.commit.after",
]


def files_of(server):
    """Digests that have bytes."""
    return {f"{path.parent.name}:{path.name}" for path in (server.root / "blobs").glob("*/*")}


def push_all(client):
    """What was acknowledged before the server died."""
    acknowledged = []
    try:
        acknowledged.append(("blob", client.push_blob("a", b"{}")))
        acknowledged.append(("blob", client.push_blob("a", LAYER)))
        manifest = manifest_of(b"{}", LAYER)
        answer = client.put_manifest("a", "x", manifest)
        assert answer.status == 201, answer.body
        acknowledged.append(("manifest", digest_of(manifest)))
    except (ConnectionError, http.client.HTTPException):
        pass
    return acknowledged


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_nothing_told_is_lost_and_nothing_half_is_seen(step, tmp_path):
    for nth in (1, 3) if not step.startswith("db.") else (2, 5, 9):
        root = tmp_path / f"{nth}"
        with RegistryServer(root=root, environ={"ORLOP_FAILPOINTS": f"{step}=crash@{nth}"}) as server:
            acknowledged = push_all(server.client())
            if len(acknowledged) < 3:
                assert server.wait_dead() == 137
        with RegistryServer("--gc-grace", "0", root=root) as server:
            client = server.client()
            for kind, digest in acknowledged:
                assert client.ask("GET", f"/v2/a/{kind}s/{digest}").status == 200, (step, nth, kind)
            manifest = client.ask("GET", "/v2/a/manifests/x")
            if manifest.status == 200:
                assert manifest.body == manifest_of(b"{}", LAYER)
                assert client.ask("GET", f"/v2/a/blobs/{digest_of(LAYER)}").body == LAYER
            layer = client.ask("GET", f"/v2/a/blobs/{digest_of(LAYER)}")
            assert layer.status == 404 or layer.body == LAYER
            assert files_of(server) <= {
                digest_of(LAYER),
                digest_of(b"{}"),
                digest_of(manifest_of(b"{}", LAYER)),
            }
            assert len(push_all(client)) == 3


def test_killed_while_it_collects(tmp_path):
    step = {"ORLOP_FAILPOINTS": f"{COLLECTING}=crash"}
    flags = ("--gc-interval", "0.1", "--gc-grace", "0.5")
    with RegistryServer(*flags, root=tmp_path / "data", environ=step) as server:
        client = server.client()
        _, manifest = client.push_image("a", "x", b"layer")
        orphan = client.push_blob("a", b"nobody names me")
        assert server.wait_dead() == 137
        assert orphan in files_of(server)
    with RegistryServer(root=tmp_path / "data") as server:
        assert server.client().ask("GET", "/v2/a/manifests/x").body == manifest
        assert server.client().ask("GET", f"/v2/a/blobs/{digest_of(b'layer')}").body == b"layer"
        assert orphan not in files_of(server)


def test_every_step_of_the_server_is_tried():
    assert {name for name in declared() if name.startswith("registry.")} <= {*STEPS, COLLECTING}


def test_collection_takes_what_nobody_needs_while_others_push(tmp_path):
    flags = ("--gc-interval", "0.2", "--gc-grace", "2", "--delete")
    with RegistryServer(*flags, root=tmp_path / "data") as server:
        client = server.client()
        old, _ = client.push_image("old", "x", b"old layer")
        orphan = client.push_blob("old", b"nobody names me")
        assert client.ask("DELETE", f"/v2/old/manifests/{old}").status == 202
        stop = threading.Event()

        def push(worker):
            count = 0
            while not stop.is_set():
                data = os.urandom(2000)
                client.push_image(f"new{worker}", f"t{count}", data, config=b"{}")
                assert client.ask("GET", f"/v2/new{worker}/blobs/{digest_of(data)}").body == data
                count += 1
            return count

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            pushes = [pool.submit(push, worker) for worker in range(4)]
            gone = {old, orphan, digest_of(b"old layer")}
            try:
                for _ in range(400):
                    if not gone & files_of(server) or any(push.done() for push in pushes):
                        break
                    threading.Event().wait(0.1)
            finally:
                stop.set()
            counts = [push.result() for push in pushes]

        assert min(counts) > 0
        assert not gone & files_of(server)
        assert client.ask("GET", f"/v2/old/blobs/{orphan}").status == 404
        for worker, count in enumerate(counts):
            tags = client.ask("GET", f"/v2/new{worker}/tags/list?n=10000").json()["tags"]
            assert len(tags) == count
        assert client.ask("GET", "/v2/new0/blobs/" + digest_of(b"{}")).status == 200


def test_untagged_manifests_go_when_that_was_asked_for(tmp_path):
    flags = ("--gc-interval", "0.2", "--gc-grace", "1", "--remove-untagged")
    with RegistryServer(*flags, root=tmp_path / "data") as server:
        client = server.client()
        first, _ = client.push_image("a", "x", b"first")
        kept, manifest = client.push_image("a", "x", b"second")
        subject = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": kept,
            "size": len(manifest),
        }
        about = manifest_of(b"{}", subject=subject)
        assert client.put_manifest("a", digest_of(about), about).status == 201

        for _ in range(200):
            if first not in files_of(server):
                break
            threading.Event().wait(0.1)

        assert client.ask("GET", f"/v2/a/manifests/{first}").status == 404
        assert client.ask("GET", f"/v2/a/manifests/{kept}").status == 200
        assert client.ask("GET", f"/v2/a/manifests/{digest_of(about)}").body == about
        assert client.ask("GET", f"/v2/a/blobs/{digest_of(b'second')}").body == b"second"
