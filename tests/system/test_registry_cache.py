"""Pull-through: a registry server that fills itself from another one, and serves when that is gone."""

import concurrent.futures
import json
import os

import pytest

from support import images
from support.registryd import OCI_MANIFEST, RegistryServer, digest_of, manifest_of

pytestmark = pytest.mark.system


@pytest.fixture
def upstream():
    with RegistryServer("--delete") as server:
        yield server


@pytest.fixture
def cache(upstream, tmp_path):
    entries = [
        {"prefix": "mirror", "registry": upstream.address, "ttl_s": 0, "insecure": True},
        {"prefix": "slow", "registry": upstream.address, "ttl_s": 1000, "insecure": True},
        {"prefix": "dead", "registry": "127.0.0.1:1", "insecure": True},
    ]
    (tmp_path / "config").write_text(json.dumps({"upstreams": entries}))
    with RegistryServer("--config", str(tmp_path / "config"), "--metrics") as server:
        yield server


def test_what_was_pulled_once_is_there_without_upstream(upstream, cache):
    layer = os.urandom(3_000_000)
    digest, manifest = upstream.client().push_image("app", "1", layer)
    client = cache.client()

    first = client.ask("GET", "/v2/mirror/app/manifests/1")
    head = client.ask("HEAD", f"/v2/mirror/app/blobs/{digest_of(layer)}")
    blobs = [client.ask("GET", f"/v2/mirror/app/blobs/{digest_of(data)}").body for data in (b"{}", layer)]
    upstream.stop()
    again = client.ask("GET", "/v2/mirror/app/manifests/1")

    assert first.body == again.body == manifest
    assert first.headers["Docker-Content-Digest"] == digest
    assert first.headers["Content-Type"] == OCI_MANIFEST
    assert head.headers["Content-Length"] == str(len(layer))
    assert blobs == [b"{}", layer]
    assert client.ask("GET", f"/v2/mirror/app/manifests/{digest}").body == manifest
    assert (
        client.ask("GET", f"/v2/mirror/app/blobs/{digest_of(layer)}", Range="bytes=5-9").body == layer[5:10]
    )
    missing = client.ask("GET", "/v2/mirror/app/manifests/2")
    assert (missing.status, missing.word) == (503, "UNAVAILABLE")
    assert "upstream does not answer" in cache.log()


def test_a_tag_that_moved_is_seen_after_its_time(upstream, cache):
    source, client = upstream.client(), cache.client()
    source.push_image("app", "1", b"old")
    for name in ("mirror/app", "slow/app"):
        client.ask("GET", f"/v2/{name}/manifests/1")
    digest, _ = source.push_image("app", "1", b"new")

    assert client.ask("HEAD", "/v2/mirror/app/manifests/1").headers["Docker-Content-Digest"] == digest
    assert client.ask("HEAD", "/v2/slow/app/manifests/1").headers["Docker-Content-Digest"] != digest


def test_a_tag_that_is_gone_upstream_is_gone_here(upstream, cache):
    source, client = upstream.client(), cache.client()
    source.push_image("app", "1", b"x")
    assert client.ask("GET", "/v2/mirror/app/manifests/1").status == 200

    source.ask("DELETE", "/v2/app/manifests/1")

    assert client.ask("GET", "/v2/mirror/app/manifests/1").status == 404


def test_many_who_ask_at_once_cost_upstream_one_download(upstream, cache):
    layer = os.urandom(5_000_000)
    upstream.client().push_image("app", "1", layer)
    client = cache.client()
    client.ask("GET", "/v2/mirror/app/manifests/1")

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        path = f"/v2/mirror/app/blobs/{digest_of(layer)}"
        bodies = list(pool.map(lambda _: client.ask("GET", path).body, range(10)))

    assert bodies == [layer] * 10
    asked = [
        line
        for line in upstream.log().splitlines()
        if f"method=GET path=/v2/app/blobs/{digest_of(layer)}" in line
    ]
    assert len(asked) == 1


def test_bytes_that_upstream_falsifies_are_not_kept(upstream, cache):
    layer = os.urandom(100_000)
    upstream.client().push_image("app", "1", layer)
    algorithm, _, name = digest_of(layer).partition(":")
    (upstream.root / "blobs" / algorithm / name).write_bytes(os.urandom(len(layer)))
    client = cache.client()
    client.ask("GET", "/v2/mirror/app/manifests/1")

    with pytest.raises(Exception, match=r"IncompleteRead|Connection|Remote"):
        client.ask("GET", f"/v2/mirror/app/blobs/{digest_of(layer)}")

    assert not (cache.root / "blobs" / algorithm / name).exists()


def test_what_is_cached_cannot_be_pushed_to(cache):
    client = cache.client()

    assert client.ask("POST", "/v2/mirror/app/blobs/uploads/").word == "UNSUPPORTED"
    assert client.put_manifest("mirror/app", "1", manifest_of(b"{}")).word == "UNSUPPORTED"
    assert client.ask("POST", "/v2/own/blobs/uploads/").status == 202
    assert client.ask("GET", "/v2/dead/app/manifests/1").word == "UNAVAILABLE"
    assert client.ask("GET", f"/v2/mirror/app/blobs/{digest_of(b'none')}").word == "BLOB_UNKNOWN"


def test_an_engine_pulls_through(upstream, cache, engine):
    engine.docker("load", input=images.busybox_archive("cached:1", marker="cache"))
    engine.docker("tag", "cached:1", f"{upstream.address}/deep/app:1")
    engine.docker("push", f"{upstream.address}/deep/app:1")
    engine.docker("rmi", f"{upstream.address}/deep/app:1", "cached:1")

    engine.docker("pull", f"{cache.address}/mirror/deep/app:1")

    shown = engine.docker("run", "--rm", f"{cache.address}/mirror/deep/app:1", "echo", "hello").stdout
    assert shown == "hello\n"
