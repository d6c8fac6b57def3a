"""Bytes that rot are found while the engine runs, set aside, and fetched again from where they came."""

import json
import os
import shutil

import pytest

from support.multiplatform import Layout


@pytest.fixture
def pulled(fresh_engine, docker_registry, tmp_path):
    """An image of one layer from a registry."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    name = f"{docker_registry.address}/healing:v1"
    Layout(tmp_path / "oci").push(name)
    fresh_engine.docker("pull", "-q", name)
    return name


def layer_file(engine, name):
    shown = json.loads(engine.docker("image", "inspect", name).stdout)[0]
    return engine.data_root / "layers" / shown["RootFS"]["Layers"][0][7:]


def rot(path):
    """Flip one bit in the middle of a file."""
    fd = os.open(path, os.O_RDWR)
    at = os.fstat(fd).st_size // 2
    byte = os.pread(fd, 1, at)[0]
    os.pwrite(fd, bytes([byte ^ 1]), at)
    os.close(fd)


def test_a_whole_store_has_nothing_to_tell(fresh_engine):
    done = fresh_engine.orlop("system", "fsck")

    assert done.stdout.splitlines() == ["2 layers and documents checked"]


def test_damage_is_told_and_nothing_is_changed_without_repair(fresh_engine, pulled):
    path = layer_file(fresh_engine, pulled)
    rot(path)
    before = path.read_bytes()

    done = fresh_engine.orlop("system", "fsck", check=False)

    assert done.returncode == 1
    assert f"damaged: layer sha256:{path.name}" in done.stdout
    assert f"used by {pulled}" in done.stdout
    assert path.read_bytes() == before


def test_a_damaged_layer_is_fetched_again(fresh_engine, pulled):
    path = layer_file(fresh_engine, pulled)
    rot(path)

    done = fresh_engine.orlop("system", "fsck", "--repair")

    assert "healed: layer" in done.stdout
    assert fresh_engine.orlop("system", "fsck").returncode == 0
    assert (fresh_engine.data_root / "quarantine" / path.name).exists()
    assert fresh_engine.docker("run", "--rm", pulled).stdout == "for amd64"


def test_damaged_documents_are_fetched_again(fresh_engine, pulled):
    shown = json.loads(fresh_engine.docker("image", "inspect", pulled).stdout)[0]
    (statement,) = json.loads(fresh_engine.orlop("image", "attestations", "--format", "json", pulled).stdout)
    for digest in (shown["Id"], shown["Descriptor"]["digest"], statement["Digest"]):
        rot(fresh_engine.data_root / "blobs" / "sha256" / digest[7:])

    done = fresh_engine.orlop("system", "fsck", "--repair")

    assert done.stdout.count("healed: blob") == 3
    assert fresh_engine.orlop("system", "fsck").returncode == 0


def test_what_no_registry_has_stays_and_is_named(fresh_engine):
    path = layer_file(fresh_engine, "busybox")
    rot(path)

    done = fresh_engine.orlop("system", "fsck", "--repair", check=False)

    assert done.returncode == 1
    assert "lost: layer" in done.stdout
    assert path.exists()
