"""Manifests and indexes: what is accepted, what is refused, which platform is chosen."""

import base64
import hashlib
import json

import pytest

from orlop.base.errors import OrlopError
from orlop.oci import mediatype as mt
from orlop.oci.index import Index, parse_document, parse_index, select
from orlop.oci.manifest import Manifest, UnsupportedManifest, parse_manifest
from orlop.oci.platform import Platform
from orlop.oci.strictjson import MalformedDocument

DIGEST = "sha256:" + "a" * 64
CONFIG = {"mediaType": mt.OCI_CONFIG, "digest": DIGEST, "size": 7}
LAYER = {"mediaType": mt.OCI_LAYER_GZIP, "digest": DIGEST, "size": 9}


def manifest(**changes):
    document = {
        "schemaVersion": 2,
        "mediaType": mt.OCI_MANIFEST,
        "config": CONFIG,
        "layers": [LAYER],
    } | changes
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def index(*platforms, **changes):
    entries = [
        {
            "mediaType": mt.OCI_MANIFEST,
            "digest": "sha256:" + f"{number:064x}",
            "size": 5,
            **({"platform": platform} if platform else {}),
        }
        for number, platform in enumerate(platforms)
    ]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": mt.OCI_INDEX, "manifests": entries} | changes
    ).encode()


def test_a_manifest_keeps_its_bytes_and_digest():
    raw = manifest(annotations={"a": "b"}, unknown={"x": 1})

    parsed = parse_manifest(raw, mt.OCI_MANIFEST)

    assert parsed.raw == raw
    assert parsed.digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert parsed.layers[0].size_bytes == 9
    assert parsed.is_image


def test_an_oci_manifest_without_a_media_type_is_one():
    assert parse_manifest(manifest(mediaType=...)).media_type == mt.OCI_MANIFEST
    assert parse_manifest(manifest(mediaType=...), mt.OCI_MANIFEST).media_type == mt.OCI_MANIFEST


def test_docker_manifests_and_sha512_are_accepted():
    layer = {"mediaType": mt.DOCKER_LAYER_GZIP, "digest": "sha512:" + "b" * 128, "size": 1}

    assert parse_manifest(manifest(mediaType=mt.DOCKER_MANIFEST, layers=[layer]), mt.DOCKER_MANIFEST)


REFUSED = {
    "announced otherwise": (manifest(), mt.DOCKER_MANIFEST),
    "an index": (index(), ""),
    "announced as index": (manifest(mediaType=...), mt.OCI_INDEX),
    "both": (manifest(manifests=[]), ""),
    "both announced as index": (manifest(mediaType=..., manifests=[]), mt.OCI_INDEX),
    "no config": (manifest(config=...), ""),
    "version 3": (manifest(schemaVersion=3), ""),
    "no version": (manifest(schemaVersion=...), ""),
    "version as text": (manifest(schemaVersion="2"), ""),
    "unknown type": (manifest(mediaType="text/plain"), ""),
    "unknown announced type": (manifest(mediaType=...), "text/plain"),
    "513 layers": (manifest(layers=[LAYER] * 513), ""),
    "layers an object": (manifest(layers={}), ""),
    "negative size": (manifest(config=CONFIG | {"size": -1}), ""),
    "no size": (manifest(config={"mediaType": "x", "digest": DIGEST}), ""),
    "size as text": (manifest(config=CONFIG | {"size": "7"}), ""),
    "size as float": (manifest(config=CONFIG | {"size": 7.0}), ""),
    "size true": (manifest(config=CONFIG | {"size": True}), ""),
    "huge size": (manifest(config=CONFIG | {"size": 1 << 63}), ""),
    "upper case digest": (manifest(config=CONFIG | {"digest": "sha256:" + "A" * 64}), ""),
    "path as digest": (manifest(config=CONFIG | {"digest": "sha256:../../x"}), ""),
    "unknown algorithm": (manifest(config=CONFIG | {"digest": "md5:" + "a" * 32}), ""),
    "wrong data": (manifest(config=CONFIG | {"data": base64.b64encode(b"1234567").decode()}), ""),
    "data that is no base64": (manifest(config=CONFIG | {"data": "***"}), ""),
    "platform nonsense": (manifest(config=CONFIG | {"platform": {"os": 5}}), ""),
    "key in wrong case": (manifest(Layers=[], layers=...), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_manifests_are_refused(name):
    with pytest.raises(OrlopError) as caught:
        parse_manifest(*REFUSED[name])

    assert caught.value.kind.value == "invalid"


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (b'{"schemaVersion":1,"fsLayers":[]}', ""),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
)
def test_schema_1_is_refused_with_a_hint(raw, media_type):
    with pytest.raises(UnsupportedManifest) as caught:
        parse_manifest(raw, media_type)

    assert "schema 1" in caught.value.message
    assert caught.value.hint


def test_right_embedded_data_is_accepted():
    data = b"1234567"
    config = CONFIG | {
        "digest": "sha256:" + hashlib.sha256(data).hexdigest(),
        "data": base64.b64encode(data).decode(),
    }

    assert parse_manifest(manifest(config=config)).config.size_bytes == 7


def test_an_artifact_is_a_manifest_but_no_image():
    assert not parse_manifest(manifest(config=CONFIG | {"mediaType": "application/vnd.example"})).is_image


def test_a_document_is_what_its_media_type_says():
    assert isinstance(parse_document(manifest(), ""), Manifest)
    assert isinstance(parse_document(index(), ""), Index)
    with pytest.raises(MalformedDocument):
        parse_index(manifest())
    with pytest.raises(MalformedDocument):
        parse_index(index(*([None] * 4097)))


ARM = {"architecture": "arm", "os": "linux"}


@pytest.mark.parametrize(
    ("platforms", "wanted", "chosen"),
    [
        (
            [{"architecture": "arm64", "os": "linux"}, {"architecture": "amd64", "os": "linux"}],
            Platform("linux", "amd64"),
            1,
        ),
        ([{"architecture": "x86_64", "os": "Linux"}], Platform("linux", "amd64"), 0),
        ([{"architecture": "amd64", "os": "windows"}], Platform("linux", "amd64"), None),
        (
            [ARM | {"variant": "v5"}, ARM | {"variant": "v7"}, ARM | {"variant": "v6"}],
            Platform("linux", "arm", "v7"),
            1,
        ),
        ([ARM | {"variant": "v5"}, ARM | {"variant": "v7"}], Platform("linux", "arm", "v6"), 0),
        ([{"architecture": "amd64", "os": "linux"}] * 2, Platform("linux", "amd64"), 0),
        ([{"architecture": "unknown", "os": "unknown"}], Platform("linux", "amd64"), None),
        ([None], Platform("linux", "amd64"), 0),
        ([None, None], Platform("linux", "amd64"), None),
        ([], Platform("linux", "amd64"), None),
    ],
)
def test_the_best_platform_is_selected(platforms, wanted, chosen):
    parsed = parse_index(index(*platforms))

    found = select(parsed, wanted)

    assert found == (None if chosen is None else parsed.manifests[chosen])
