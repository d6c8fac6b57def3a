"""The registry server spoken to word by word: errors, ranges, resumed uploads, mounts, switches, hostile input."""

import concurrent.futures
import json
import os
import socket
import subprocess
import sys

import pytest

from orlop.cli import registry_verb
from orlop.registry_daemon import _parser
from support.registryd import OCI_MANIFEST, RegistryServer, digest_of, manifest_of

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server():
    with RegistryServer("--delete", "--metrics", "--max-blob-size", str(64 << 20)) as server:
        yield server


@pytest.fixture
def client(server):
    return server.client()


def test_the_verb_has_the_flags_of_the_server():
    known = {option for action in _parser()._actions for option in action.option_strings}

    assert {f"--{flag.name}" for flag in registry_verb.COMMAND.flags} == known - {"-h", "--help"}


def test_the_verb_becomes_the_server(tmp_path):
    words = [sys.executable, "-m", "orlop.cli.main", "registry", "serve", f"--data-root={tmp_path}/x/y"]
    words += ["--listen", "nowhere"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert "invalid address" in done.stderr


def test_an_upload_goes_on_where_it_was(server, client):
    data = os.urandom(300_000)
    where = client.ask("POST", "/v2/resume/blobs/uploads/").headers["Location"]

    first = client.ask("PATCH", where, data[:100_000], Content_Range="0-99999")
    assert (first.status, first.headers["Range"]) == (202, "0-99999")
    wrong = client.ask("PATCH", where, data[:10], Content_Range="50-59")
    assert (wrong.status, wrong.headers["Range"], wrong.word) == (416, "0-99999", "BLOB_UPLOAD_INVALID")
    for header in ("200000-200009", f"{2**63}-{2**63 + 9}", "x", "9-1"):
        assert client.ask("PATCH", where, data[:10], Content_Range=header).status in {400, 416}
    server.stop(9)
    server.start()
    status = client.ask("GET", where)
    assert (status.status, status.headers["Range"]) == (204, "0-99999")
    assert client.ask("PATCH", where, data[100_000:200_000]).status == 202
    done = client.ask(
        "PUT", f"{where}?digest={digest_of(data)}", data[200_000:], Content_Range="200000-299999"
    )

    assert done.status == 201
    assert client.ask("GET", done.headers["Location"]).body == data
    assert client.ask("GET", where).word == "BLOB_UPLOAD_UNKNOWN"


def test_an_upload_that_breaks_off_keeps_what_came(server, client):
    where = client.ask("POST", "/v2/cut/blobs/uploads/").headers["Location"]
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        head = f"PATCH {where} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        raw.sendall(head.encode() + b"a" * 500_000)

    for _ in range(200):
        answer = client.ask("GET", where)
        if answer.headers["Range"] == "0-499999":
            break
    assert answer.headers["Range"] == "0-499999"


def test_a_wrong_digest_is_refused_and_nothing_is_visible(client):
    where = client.ask("POST", "/v2/wrong/blobs/uploads/").headers["Location"]
    promised = digest_of(b"other")

    assert client.ask("PUT", f"{where}?digest={promised}", b"these").word == "DIGEST_INVALID"
    assert client.ask("PUT", where, b"these").word == "DIGEST_INVALID"
    assert client.ask("HEAD", f"/v2/wrong/blobs/{promised}").status == 404
    assert client.ask("HEAD", f"/v2/wrong/blobs/{digest_of(b'these')}").status == 404


def test_an_upload_belongs_to_its_repository(client):
    where = client.ask("POST", "/v2/mine/blobs/uploads/").headers["Location"]

    assert client.ask("GET", where.replace("/mine/", "/yours/")).word == "BLOB_UPLOAD_UNKNOWN"


def test_too_large_is_refused_before_it_is_sent(client):
    where = client.ask("POST", "/v2/large/blobs/uploads/").headers["Location"]

    answer = client.ask("PATCH", where, b"", Content_Length=str(65 << 20))
    manifest = client.ask("PUT", "/v2/large/manifests/x", b"", Content_Length=str(5 << 20))

    assert (answer.status, answer.word) == (413, "SIZE_INVALID")
    assert (manifest.status, manifest.word) == (413, "SIZE_INVALID")


def test_bytes_are_stored_once_and_seen_where_they_were_pushed(server, client):
    data = os.urandom(1 << 20)
    digest = client.push_blob("here", data)

    assert client.ask("GET", f"/v2/there/blobs/{digest}").word == "BLOB_UNKNOWN"
    mounted = client.ask("POST", f"/v2/there/blobs/uploads/?mount={digest}&from=here")
    assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/there/blobs/{digest}")
    assert client.ask("POST", f"/v2/third/blobs/uploads/?mount={digest}").status == 201
    assert client.ask("POST", f"/v2/x/blobs/uploads/?mount={digest}&from=empty").status == 202
    assert client.ask("GET", f"/v2/there/blobs/{digest}").body == data
    files = [path for path in (server.root / "blobs").rglob("*") if path.stat().st_size == len(data)]
    assert len(files) == 1


def test_ranges_of_a_blob(client):
    data = os.urandom(70_000)
    path = f"/v2/ranges/blobs/{client.push_blob('ranges', data)}"

    part = client.ask("GET", path, Range="bytes=100-199")
    assert (part.status, part.body, part.headers["Content-Range"]) == (
        206,
        data[100:200],
        "bytes 100-199/70000",
    )
    assert client.ask("GET", path, Range="bytes=-5").body == data[-5:]
    assert client.ask("GET", path, Range="bytes=70000-").status == 416
    assert client.ask("GET", path, Range="bytes=0-1", If_Range='"other"').status == 200
    assert client.ask("HEAD", path).headers["Content-Length"] == "70000"
    assert client.ask("GET", path, If_None_Match=client.ask("HEAD", path).headers["Etag"]).status == 304


def test_a_manifest_needs_its_blobs(client):
    layer = os.urandom(100)
    client.push_blob("needs", b"{}")

    refused = client.put_manifest("needs", "x", manifest_of(b"{}", layer))

    assert (refused.status, refused.word) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert refused.json()["errors"][0]["detail"]["digests"] == [digest_of(layer)]
    assert client.ask("GET", "/v2/needs/manifests/x").word == "MANIFEST_UNKNOWN"
    assert client.ask("GET", "/v2/nobody/manifests/x").word == "NAME_UNKNOWN"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"{", OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        (b"[" * 100_000, OCI_MANIFEST),
        (b'{"schemaVersion": 2, "schemaVersion": 2}', OCI_MANIFEST),
        (b'{"schemaVersion": 1, "fsLayers": []}', "application/vnd.docker.distribution.manifest.v1+json"),
        (
            b'{"schemaVersion": 1, "signatures": []}',
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
        (manifest_of(b"{}"), "application/vnd.docker.distribution.manifest.v2+json"),
        (manifest_of(b"{}", subject={"mediaType": "x", "digest": "sha256:../..", "size": 1}), OCI_MANIFEST),
        (b'{"schemaVersion": 2, "config": {"digest": "md5:x"}, "layers": []}', OCI_MANIFEST),
        (b"\xff\xfe", OCI_MANIFEST),
    ],
)
def test_a_broken_manifest_is_refused(client, data, kind):
    answer = client.put_manifest("broken", "x", data, kind)

    assert (answer.status, answer.word) == (400, "MANIFEST_INVALID")


def test_a_manifest_under_a_wrong_digest_is_refused(client):
    client.push_blob("lies", b"{}")

    assert client.put_manifest("lies", digest_of(b"x"), manifest_of(b"{}")).word == "DIGEST_INVALID"


def test_tags_come_in_pages(client):
    for number in range(7):
        client.push_image("pages", f"t{number}")

    seen, path = [], "/v2/pages/tags/list?n=3"
    while path:
        answer = client.ask("GET", path)
        seen.append(answer.json()["tags"])
        path = answer.headers["Link"].partition(">")[0][1:] if answer.headers["Link"] else ""
    assert seen == [["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6"]]
    assert client.ask("GET", "/v2/pages/tags/list?n=0").json()["tags"] == []
    assert client.ask("GET", "/v2/pages/tags/list?n=-1").word == "PAGINATION_NUMBER_INVALID"
    assert client.ask("GET", "/v2/pages/tags/list?n=100000000").status == 200
    assert "pages" in client.ask("GET", "/v2/_catalog").json()["repositories"]
    first = client.ask("GET", "/v2/_catalog?n=1")
    assert len(first.json()["repositories"]) == 1
    assert first.headers["Link"].startswith("</v2/_catalog?n=1&last=")


def test_referrers_are_listed_and_filtered(client):
    digest, manifest = client.push_image("refs", "base")
    subject = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(manifest)}
    for kind in ("a/sbom", "a/signature"):
        data = manifest_of(b"{}", artifactType=kind, subject=subject, annotations={"is": kind})
        answer = client.put_manifest("refs", digest_of(data), data)
        assert (answer.status, answer.headers["OCI-Subject"]) == (201, digest)

    whole = client.ask("GET", f"/v2/refs/referrers/{digest}")
    some = client.ask("GET", f"/v2/refs/referrers/{digest}?artifactType=a/sbom")
    page = client.ask("GET", f"/v2/refs/referrers/{digest}?n=1")

    assert {entry["artifactType"] for entry in whole.json()["manifests"]} == {"a/sbom", "a/signature"}
    assert [entry["annotations"] for entry in some.json()["manifests"]] == [{"is": "a/sbom"}]
    assert some.headers["OCI-Filters-Applied"] == "artifactType"
    assert len(page.json()["manifests"]) == 1
    assert "rel=" in page.headers["Link"]
    assert client.ask("GET", f"/v2/none/referrers/{digest}").json()["manifests"] == []


def test_deletion(client):
    digest, _ = client.push_image("gone", "a", b"layer")
    client.push_image("gone", "b", b"layer")

    assert client.ask("DELETE", "/v2/gone/manifests/a").status == 202
    assert client.ask("GET", "/v2/gone/tags/list").json()["tags"] == ["b"]
    assert client.ask("DELETE", f"/v2/gone/manifests/{digest}").status == 202
    assert client.ask("GET", "/v2/gone/manifests/b").word == "MANIFEST_UNKNOWN"
    assert client.ask("DELETE", f"/v2/gone/manifests/{digest}").status == 404
    assert client.ask("DELETE", f"/v2/gone/blobs/{digest_of(b'layer')}").status == 202
    assert client.ask("DELETE", f"/v2/gone/blobs/{digest_of(b'layer')}").word == "BLOB_UNKNOWN"
    assert client.push_image("gone", "a", b"layer")[0] == digest


def test_health_and_metrics(client):
    assert client.ask("GET", "/healthz").json() == {"status": "ok"}
    client.ask("GET", "/v2/")
    text = client.ask("GET", "/metrics").body.decode()

    assert 'orlop_registry_requests_total{operation="base",method="GET",code="200"}' in text
    assert client.ask("GET", "/v3/").status == 404
    assert client.ask("PATCH", "/v2/a/tags/list").headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET /v2/ HTTP/1.1\nHost: x\n\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (2 << 20) + b"\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_differently_is_refused(server, request_):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        try:
            raw.sendall(request_)
        except ConnectionError:
            return
        assert raw.recv(12) in {b"HTTP/1.1 400", b"HTTP/1.1 431"}


def test_fifty_push_at_once(client):
    shared = os.urandom(200_000)

    def push(number):
        return client.push_image(f"parallel/r{number % 10}", f"t{number}", shared, b"%d" % number * 1000)[0]

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        digests = list(pool.map(push, range(50)))

    for number, digest in enumerate(digests):
        head = client.ask("HEAD", f"/v2/parallel/r{number % 10}/manifests/t{number}")
        assert head.headers["Docker-Content-Digest"] == digest


def test_switches(tmp_path):
    with RegistryServer(root=tmp_path / "data") as server:
        client = server.client()
        digest, manifest = client.push_image("a", "x", b"layer")
        assert client.ask("DELETE", f"/v2/a/manifests/{digest}").word == "UNSUPPORTED"
        assert client.ask("GET", "/metrics").status == 404
        second = subprocess.run(
            [sys.executable, "-m", "orlop.registry_daemon", "--data-root", str(server.root)],
            check=False, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert second.returncode == 1
        assert "another server uses" in second.stderr
    with RegistryServer("--read-only", "--delete", root=tmp_path / "data") as server:
        client = server.client()
        assert client.ask("GET", "/v2/a/manifests/x").body == manifest
        assert client.ask("POST", "/v2/a/blobs/uploads/").status == 405
        assert client.ask("DELETE", "/v2/a/manifests/x").status == 405
        assert json.loads(client.ask("GET", f"/v2/a/manifests/{digest}").body)["schemaVersion"] == 2
