"""Unmodified clients push to and pull from the registry server; digests are equal on both sides."""

import base64
import json
import os
import shutil
import subprocess

import pytest

from support import images
from support.peers import Dockerd, Podman, Unavailable
from support.registryd import RegistryServer, digest_of

USER, PASSWORD = "alice", "secret"
POLICY = {
    "policy": {
        "groups": {"readers": ["bob"]},
        "rules": [
            {"repositories": ["public/**"], "users": ["anonymous"], "actions": ["pull"]},
            {"repositories": ["**"], "users": [USER], "actions": ["*"]},
            {"repositories": ["team/*"], "users": ["@readers"], "actions": ["pull"]},
            {"repositories": ["home/{user}/**"], "users": ["*"], "actions": ["*"]},
        ],
    }
}


@pytest.fixture(scope="module")
def server():
    with RegistryServer("--delete") as server:
        yield server


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    path.write_bytes(images.busybox_archive("busybox:latest", marker="registry server"))
    return path


def skopeo(*words, check=True):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    done = subprocess.run(
        ["skopeo", *map(str, words)], check=False, capture_output=True, text=True, timeout=100
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def digest_in(server, name, tag="1"):
    return server.client().ask("HEAD", f"/v2/{name}/manifests/{tag}").headers["Docker-Content-Digest"]


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_skopeo_copies_both_ways(server, archive, tmp_path, form):
    name = f"skopeo/{form}"
    skopeo(
        "copy",
        "-f",
        form,
        "--dest-tls-verify=false",
        f"docker-archive:{archive}",
        f"docker://{server.address}/{name}:1",
    )
    skopeo("copy", "--src-tls-verify=false", f"docker://{server.address}/{name}:1", f"dir:{tmp_path}/back")
    skopeo("copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
           f"docker://{server.address}/{name}:1", f"docker://{server.address}/{name}-again:1")  # fmt: skip
    inspected = json.loads(
        skopeo("inspect", "--tls-verify=false", f"docker://{server.address}/{name}:1").stdout
    )

    digest = digest_in(server, name)
    assert digest == digest_in(server, f"{name}-again") == inspected["Digest"]
    assert digest_of((tmp_path / "back" / "manifest.json").read_bytes()) == digest
    assert inspected["RepoTags"] == ["1"]
    skopeo("delete", "--tls-verify=false", f"docker://{server.address}/{name}-again:1")
    assert server.client().ask("GET", f"/v2/{name}-again/manifests/1").status == 404


def test_podman_pushes_and_pulls(server, archive):
    try:
        with Podman() as podman:
            podman.podman("load", "-i", str(archive))
            target = f"{server.address}/podman/app:1"
            podman.podman("tag", "busybox:latest", target)
            podman.podman("push", "--tls-verify=false", target)
            podman.podman("rmi", "-f", "-a")
            podman.podman("pull", "--tls-verify=false", target)
            shown = json.loads(podman.podman("image", "inspect", target).stdout)
    except Unavailable as reason:
        pytest.skip(str(reason))

    assert shown[0]["Digest"] == digest_in(server, "podman/app")


def test_dockerd_pushes_and_pulls(server, archive):
    try:
        with Dockerd() as dockerd:
            dockerd.docker("load", "-i", str(archive))
            target = f"{server.address}/dockerd/app:1"
            dockerd.docker("tag", "busybox:latest", target)
            pushed = dockerd.docker("push", target).stdout.decode()
            dockerd.docker("rmi", target, "busybox:latest")
            dockerd.docker("pull", target)
            shown = json.loads(dockerd.docker("image", "inspect", target).stdout)
    except Unavailable as reason:
        pytest.skip(str(reason))

    digest = digest_in(server, "dockerd/app")
    assert f"digest: {digest}" in pushed
    assert shown[0]["RepoDigests"] == [f"{server.address}/dockerd/app@{digest}"]


@pytest.mark.parametrize("client", ["docker", "orlop"])
def test_our_engine_pushes_and_pulls(server, engine, client):
    target = f"{server.address}/engine/{client}:1"
    run = getattr(engine, client)
    before = engine.docker("image", "inspect", "-f", "{{.Id}}", "busybox").stdout

    engine.docker("tag", "busybox", target)
    run("push", target)
    engine.docker("rmi", target)
    run("pull", target)

    assert engine.docker("image", "inspect", "-f", "{{.Id}}", target).stdout == before
    shown = json.loads(engine.docker("image", "inspect", "-f", "{{json .RepoDigests}}", target).stdout)
    assert f"{server.address}/engine/{client}@{digest_in(server, f'engine/{client}')}" in shown


def test_what_one_client_pushes_another_pulls(server, engine, archive):
    name = f"{server.address}/mixed/app:1"
    skopeo("copy", "-f", "oci", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name}")

    engine.docker("pull", name)

    assert engine.docker("run", "--rm", name, "echo", "hello").stdout == "hello\n"


@pytest.fixture(params=["basic", "token"])
def guarded(request, tmp_path):
    bcrypt = pytest.importorskip("bcrypt")
    stored = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"{USER}:{stored}\nbob:{stored}\n")
    (tmp_path / "config").write_text(json.dumps(POLICY))
    flags = (
        "--htpasswd",
        str(tmp_path / "htpasswd"),
        "--config",
        str(tmp_path / "config"),
        "--auth",
        request.param,
    )
    with RegistryServer(*flags) as server:
        yield server


def test_accounts_and_policy(guarded, archive, tmp_path):
    source, base = f"docker-archive:{archive}", f"docker://{guarded.address}"
    plain = "--dest-tls-verify=false"
    push = ("copy", plain, f"--dest-creds={USER}:{PASSWORD}", source)
    skopeo(*push, f"{base}/team/app:1")
    skopeo(*push, f"{base}/public/app:1")
    look = ("inspect", "--tls-verify=false")

    skopeo(*look, f"--creds=bob:{PASSWORD}", f"{base}/team/app:1")
    skopeo(*look, "--no-creds", f"{base}/public/app:1")
    refused = [
        skopeo("copy", plain, f"--dest-creds=bob:{PASSWORD}", source, f"{base}/team/app:2", check=False),
        skopeo("copy", plain, "--dest-no-creds", source, f"{base}/public/app:2", check=False),
        skopeo(*look, f"--creds={USER}:wrong", f"{base}/team/app:1", check=False),
        skopeo(*look, "--no-creds", f"{base}/team/app:1", check=False),
    ]

    assert [done.returncode for done in refused] == [1, 1, 1, 1]
    assert guarded.client().ask("GET", "/v2/").status == 401
    assert guarded.client().ask("GET", "/v2/_catalog").status == 401


def test_only_what_one_may_read_can_be_mounted_and_listed(guarded):
    def client_of(user):
        value = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        return guarded.client(Authorization=f"Basic {value}")

    alice, bob = client_of(USER), client_of("bob")
    secret, shared = alice.push_blob("secret/app", b"secret"), alice.push_blob("team/app", b"shared")

    def mount(digest, source):
        return bob.ask("POST", f"/v2/home/bob/app/blobs/uploads/?mount={digest}{source}").status

    assert mount(secret, "&from=secret/app") == 202
    assert mount(secret, "") == 202
    assert bob.ask("HEAD", f"/v2/home/bob/app/blobs/{secret}").status == 404
    assert bob.ask("GET", f"/v2/secret/app/blobs/{secret}").status in {401, 403}
    assert mount(shared, "&from=team/app") == 201
    assert mount(shared, "") == 201
    assert bob.ask("GET", "/v2/_catalog").json()["repositories"] == ["home/bob/app", "team/app"]
    assert bob.ask("POST", "/v2/home/alice/app/blobs/uploads/").status in {401, 403}


def test_docker_login_push_and_pull(guarded, engine):
    target = f"{guarded.address}/team/docker:1"
    engine.docker("tag", "busybox", target)

    refused = engine.docker("push", target, check=False)
    engine.docker("login", "-u", USER, "--password-stdin", guarded.address, input=PASSWORD)
    try:
        engine.docker("push", target)
        engine.docker("rmi", target)
        engine.docker("pull", target)
    finally:
        engine.docker("logout", guarded.address)

    assert refused.returncode == 1


def test_tls(tmp_path, archive):
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    places = [
        "-keyout",
        str(tmp_path / "key.pem"),
        "-out",
        str(tmp_path / "ca.crt"),
        "-subj",
        "/CN=127.0.0.1",
    ]
    subprocess.run(
        [*words, *places, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    flags = ("--tls-cert", str(tmp_path / "ca.crt"), "--tls-key", str(tmp_path / "key.pem"))
    with RegistryServer(*flags) as server:
        (tmp_path / "certs").mkdir()
        shutil.copy(tmp_path / "ca.crt", tmp_path / "certs" / "ca.crt")
        target, where = f"docker://{server.address}/tls/app:1", tmp_path / "certs"
        skopeo("copy", "-f", "oci", "--dest-cert-dir", where, f"docker-archive:{archive}", target)
        skopeo("copy", "--src-cert-dir", where, target, f"oci:{tmp_path}/back:1")
        unverified = skopeo("inspect", target, check=False)

    assert unverified.returncode == 1
    assert any((tmp_path / "back" / "blobs" / "sha256").iterdir())


@pytest.mark.skipif(
    not shutil.which("oci-distribution-conformance"), reason="the conformance suite is not installed"
)
@pytest.mark.timeout(300)
def test_the_conformance_suite(tmp_path):
    more = ("BLOBS_DIGEST_HEADER", "BLOBS_UPLOAD_CANCEL", "MANIFESTS_DIGEST_HEADER", "MANIFESTS_TAG_PARAM")
    with RegistryServer("--delete", "--allow-sparse", "--no-access-log") as server:
        env = {**os.environ, "OCI_REGISTRY": server.address, "OCI_TLS": "disabled", "OCI_DATA_SPARSE": "true"}
        env |= {f"OCI_API_{name}": "true" for name in more}
        done = subprocess.run(
            ["oci-distribution-conformance"],
            check=False,
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )

    assert done.returncode == 0, done.stdout[-5000:]
    assert ": FAIL" not in done.stdout
