"""Push and pull with the docker client, against Debian's docker-registry; skopeo looks at the result."""

import json
import re
import shutil
import subprocess

import pytest

from support import images, registry
from support.contexts import build_web, image_id, write


def test_push_and_pull_keep_every_digest(engine, web, docker_registry):
    build_web(engine, web)
    before = image_id(engine, "web")
    name = f"{docker_registry.address}/team/web:1"

    engine.docker("tag", "web", name)
    pushed = engine.docker("push", name).stdout
    engine.docker("rmi", "-f", before)
    pulled = engine.docker("pull", name).stdout

    digest = docker_registry.digest("team/web", "1")
    repo_digests = json.loads(engine.docker("image", "inspect", "-f", "{{json .RepoDigests}}", name).stdout)
    assert repo_digests == [f"{docker_registry.address}/team/web@{digest}"]
    assert re.search(rf"^1: digest: {digest} size: \d+$", pushed, re.MULTILINE)
    assert f"Digest: {digest}\nStatus: Downloaded newer image for {name}\n{name}\n" in pulled
    assert image_id(engine, name) == before
    assert engine.docker("run", "--rm", name).stdout.startswith("hello\n")


def test_a_second_push_sends_nothing(engine, web, docker_registry):
    build_web(engine, web)
    name = f"{docker_registry.address}/team/again"
    engine.docker("tag", "web", name)
    engine.docker("push", name)

    shown = engine.docker("push", name).stdout

    layers = set(re.findall(r"^([0-9a-f]{12}): ", shown, re.MULTILINE))
    assert set(re.findall(r"^([0-9a-f]{12}): Layer already exists$", shown, re.MULTILINE)) == layers
    assert "Pushed" not in shown


def test_pull_by_digest(engine, web, docker_registry):
    build_web(engine, web)
    name = f"{docker_registry.address}/team/bydigest"
    engine.docker("tag", "web", name)
    engine.docker("push", name)
    pinned = f"{name}@{docker_registry.digest('team/bydigest', 'latest')}"
    engine.docker("rmi", "-f", image_id(engine, "web"))

    engine.docker("pull", pinned)

    assert engine.docker("run", "--rm", pinned, "cat", "/app/app.sh").stdout == "app 1\n"


def test_a_missing_image_is_refused_as_docker_refuses(engine, docker_registry):
    done = engine.docker("pull", f"{docker_registry.address}/team/none", check=False)

    assert done.returncode == 1
    assert done.stderr == (
        f"Error response from daemon: manifest for {docker_registry.address}/team/none:latest not found: "
        "manifest unknown: manifest unknown\n"
    )


@pytest.fixture
def skopeo():
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")

    def run(*args):
        return subprocess.run(
            ["skopeo", *args], capture_output=True, text=True, check=True, timeout=60
        ).stdout

    return run


def test_skopeo_accepts_what_was_pushed(engine, web, docker_registry, skopeo, tmp_path):
    build_web(engine, web)
    name = f"{docker_registry.address}/team/inspected"
    engine.docker("tag", "web", name)
    engine.docker("push", name)

    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/copied")

    assert shown["Digest"] == docker_registry.digest("team/inspected", "latest")
    assert shown["Labels"] == {"a": "b"}
    assert len(shown["Layers"]) == len(
        json.loads(engine.docker("image", "inspect", "web").stdout)[0]["RootFS"]["Layers"]
    )
    assert (tmp_path / "copied" / "manifest.json").read_bytes() == docker_registry.manifest(
        "team/inspected", "latest"
    )


def test_what_skopeo_copied_there_is_pulled_bit_for_bit(engine, docker_registry, skopeo, tmp_path):
    (tmp_path / "image.tar").write_bytes(images.busybox_archive("other:latest", marker="copied"))
    source, name = f"docker-archive:{tmp_path}/image.tar", f"{docker_registry.address}/team/copied:oci"
    skopeo("copy", "--format=oci", "--dest-tls-verify=false", source, f"docker://{name}")

    engine.docker("pull", name)

    digest = docker_registry.digest("team/copied", "oci")
    shown = json.loads(engine.docker("image", "inspect", name).stdout)[0]
    config = json.loads(docker_registry.manifest("team/copied", "oci"))["config"]["digest"]
    assert shown["RepoDigests"] == [f"{docker_registry.address}/team/copied@{digest}"]
    assert shown["Id"] == config
    assert engine.docker("run", "--rm", name, "cat", "/etc/marker").stdout == "copied"


@pytest.fixture
def closed_registry():
    if reason := registry.missing():
        pytest.skip(reason)
    with registry.DockerRegistry(has_accounts=True) as running:
        yield running


@pytest.fixture
def logged_out(engine):
    """Whatever a test logs in to is forgotten after it."""
    config = engine.home / ".docker" / "config.json"
    before = config.read_text()
    yield
    config.write_text(before)


def login(engine, address, password):
    return engine.docker(
        "login", "-u", registry.USER, "--password-stdin", address, input=password, check=False
    )


@pytest.mark.usefixtures("logged_out")
def test_a_login_opens_a_closed_registry(engine, closed_registry):
    name = f"{closed_registry.address}/own/box:1"
    engine.docker("tag", "busybox", name)
    refused = engine.docker("push", name, check=False)

    wrong = login(engine, closed_registry.address, "wrong")
    right = login(engine, closed_registry.address, registry.PASSWORD)
    engine.docker("push", name)
    engine.docker("rmi", name)
    pulled = engine.docker("pull", name).stdout

    assert refused.returncode == 1
    assert "unauthorized: authentication required" in refused.stderr
    assert wrong.returncode == 1
    assert "unauthorized: incorrect username or password" in wrong.stderr
    assert "Login Succeeded" in right.stdout
    assert f"Status: Downloaded newer image for {name}" in pulled
    assert registry.PASSWORD not in engine.log()


@pytest.mark.usefixtures("logged_out")
def test_builds_pull_with_the_login_too(engine, closed_registry, tmp_path):
    name = f"{closed_registry.address}/own/base:1"
    engine.docker("load", input=images.busybox_archive(name, marker="closed"))
    login(engine, closed_registry.address, registry.PASSWORD)
    engine.docker("push", name)
    engine.docker("rmi", name)
    directory = write(tmp_path / "context", {"Dockerfile": f"FROM {name}\nCMD cat /etc/marker\n"})

    engine.docker("build", "-t", "from-closed", directory)

    assert engine.docker("run", "--rm", "from-closed").stdout == "closed"
