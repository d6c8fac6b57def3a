"""Images of Orlop on other engines, and theirs on Orlop."""

import json

import pytest

from support import images
from support.peers import Dockerd, Podman, Unavailable

DOCKERFILE = """\
FROM busybox
RUN mkdir -p /data/deep && echo made > /data/deep/file && ln -s file /data/deep/link && rm -r /home/user
RUN rm -r /data/deep && mkdir /data/deep && echo again > /data/deep/new && chown -R 1000:1000 /data
ENV WHO=world
USER 1000
WORKDIR /data
ENTRYPOINT ["sh", "-c"]
CMD ["echo hello $WHO; id -u; ls /data/deep; cat /data/deep/new; ls /home"]
"""
SAID = "hello world\n1000\nnew\nagain\n"


@pytest.fixture(scope="module")
def podman():
    try:
        with Podman() as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def dockerd():
    try:
        with Dockerd() as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def saved(engine, tmp_path):
    """`docker save` of an image with whiteouts, links and owners that Orlop built."""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    engine.docker("build", "-t", "ours:1", tmp_path)
    return engine.docker("save", "ours:1", input=b"").stdout


def test_our_image_says_so_here(engine, saved):
    del saved

    assert engine.docker("run", "--rm", "ours:1", check=False).stdout == SAID


def test_podman_runs_our_image(podman, saved):
    podman.podman("load", input=saved)

    shown = podman.run("ours:1")

    assert shown.stdout.decode() == SAID, shown.stderr


def test_dockerd_runs_our_image(dockerd, saved, engine):
    loaded = dockerd.docker("load", input=saved).stdout

    shown = dockerd.docker("run", "--rm", "--network", "none", "ours:1", check=False)

    assert loaded == b"Loaded image: ours:1\n"
    assert shown.stdout.decode() == SAID, shown.stderr
    theirs = json.loads(dockerd.docker("image", "inspect", "ours:1").stdout)[0]
    ours = json.loads(engine.docker("image", "inspect", "ours:1").stdout)[0]
    assert theirs["Id"] == ours["Id"]
    assert theirs["RootFS"] == ours["RootFS"]
    assert {
        name: ours["Config"].get(name) for name in ("Env", "Cmd", "Entrypoint", "User", "WorkingDir")
    } == {name: theirs["Config"].get(name) for name in ("Env", "Cmd", "Entrypoint", "User", "WorkingDir")}


def test_we_run_the_image_of_dockerd(engine, dockerd, tmp_path):
    dockerd.docker("load", input=images.busybox_archive("busybox:latest"))
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    dockerd.docker("build", "-t", "theirs:1", "--network", "none", str(tmp_path))

    engine.docker("load", input=dockerd.docker("save", "theirs:1").stdout)

    assert engine.docker("run", "--rm", "theirs:1", check=False).stdout == SAID


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_we_run_the_image_of_podman(engine, podman, form):
    podman.podman("load", input=images.busybox_archive("localhost/base:1", marker=form))
    made = (
        podman.podman("create", "--network", "none", "localhost/base:1", "cat", "/etc/marker")
        .stdout.decode()
        .strip()
    )
    podman.podman("commit", "-q", "--change", 'CMD ["cat", "/etc/marker"]', made, f"localhost/theirs:{form}")

    engine.docker("load", input=podman.podman("save", "--format", form, f"localhost/theirs:{form}").stdout)

    assert engine.docker("run", "--rm", f"localhost/theirs:{form}").stdout == form
