"""Several platforms under one name: pulled side by side, listed, saved, loaded, removed, pushed unchanged."""

import io
import json
import shutil
import subprocess
import tarfile

import pytest

from support.multiplatform import Layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    return Layout(tmp_path_factory.mktemp("layout") / "oci")


@pytest.fixture
def name(docker_registry, layout):
    """The layout in the registry."""
    layout.push(f"{docker_registry.address}/multi:v1")
    return f"{docker_registry.address}/multi:v1"


@pytest.fixture
def both(engine, name):
    """Both platforms on the engine."""
    for arch in ("arm64", "amd64"):
        engine.docker("pull", "-q", f"--platform=linux/{arch}", name)
    yield name
    engine.docker("rmi", "-f", name, check=False)


def inspect(engine, *args):
    return json.loads(engine.docker("image", "inspect", *args).stdout)[0]


def manifests(engine, name):
    found = engine.api().api._get(  # docker-py has no word for it
        engine.api().api._url("/images/{0}/json", name), params={"manifests": "1"}
    )
    return {item["Descriptor"]["digest"]: item for item in found.json()["Manifests"]}


def test_two_platforms_live_under_one_name(engine, both, layout):
    first, second = inspect(engine, both), inspect(engine, "--platform=linux/arm64", both)

    assert first["Architecture"] == "amd64"
    assert first["Id"] == layout.config_digest("amd64")
    assert second["Id"] == layout.config_digest("arm64")
    assert first["Descriptor"]["digest"] == second["Descriptor"]["digest"] == layout.index["digest"]
    assert second["RepoTags"] == [both]


def test_run_takes_the_platform_that_was_asked_for(engine, both):
    assert engine.docker("run", "--rm", both).stdout == "for amd64"
    assert engine.docker("run", "--rm", "--platform=linux/arm64", both).stdout == "for arm64"


def test_manifests_tell_what_is_here(engine, name, layout):
    engine.docker("pull", "-q", name)
    try:
        found = manifests(engine, name)
        tree = engine.docker("image", "ls", "--tree", name).stdout
    finally:
        engine.docker("rmi", name)

    kinds = {digest: (item["Kind"], item["Available"]) for digest, item in found.items()}
    assert kinds == {
        layout.images["amd64"]["digest"]: ("image", True),
        layout.images["arm64"]["digest"]: ("image", False),
        layout.attestation["digest"]: ("attestation", True),
    }
    assert found[layout.attestation["digest"]]["AttestationData"]["For"] == layout.images["amd64"]["digest"]
    assert "linux/amd64" in tree
    assert "linux/arm64" in tree


def test_the_list_shows_the_name_once(engine, both):
    listed = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}", both).stdout.split()
    dangling = engine.docker("images", "-q", "--filter", "dangling=true").stdout

    assert listed == [both]
    assert dangling == ""


def test_prune_leaves_the_other_platform(engine, both):
    engine.docker("image", "prune", "-f")

    assert inspect(engine, "--platform=linux/arm64", both)["Architecture"] == "arm64"


def test_one_platform_is_removed_and_the_name_stays(engine, both):
    engine.docker("rmi", "--platform=linux/amd64", both)

    assert inspect(engine, both)["Architecture"] == "arm64"


def test_removing_the_name_removes_all_of_it(engine, both, layout):
    engine.docker("rmi", both)

    ids = engine.docker("images", "-aq", "--no-trunc").stdout.split()
    assert not {layout.config_digest("amd64"), layout.config_digest("arm64")} & set(ids)
    assert engine.docker("image", "inspect", layout.config_digest("arm64"), check=False).returncode == 1


def test_a_tag_takes_all_platforms_along(engine, both):
    engine.docker("tag", both, "again:1")
    engine.docker("rmi", both)

    try:
        assert inspect(engine, "--platform=linux/arm64", "again:1")["Architecture"] == "arm64"
    finally:
        engine.docker("rmi", "again:1")


def test_the_index_is_pushed_byte_for_byte(engine, both, layout, docker_registry):
    elsewhere = f"{docker_registry.address}/elsewhere/multi:v2"
    engine.docker("tag", both, elsewhere)

    said = engine.docker("push", elsewhere).stdout

    engine.docker("rmi", elsewhere)
    assert layout.index["digest"] in said
    assert docker_registry.manifest("elsewhere/multi", "v2") == layout.read(layout.index["digest"])


def test_a_single_platform_is_pushed_with_a_note(engine, name, layout, docker_registry):
    engine.docker("pull", "-q", name)
    elsewhere = f"{docker_registry.address}/one/multi:v3"
    engine.docker("tag", name, elsewhere)

    said = engine.docker("push", elsewhere)

    engine.docker("rmi", elsewhere, name)
    assert "single-platform" in said.stdout + said.stderr
    assert docker_registry.digest("one/multi", "v3") == layout.images["amd64"]["digest"]


def test_save_and_load_keep_both_platforms(engine, fresh_engine, both, layout):
    saved = engine.docker("save", both, input=b"").stdout

    fresh_engine.docker("load", input=saved)

    found = {
        arch: inspect(fresh_engine, f"--platform=linux/{arch}", both)["Id"] for arch in ("amd64", "arm64")
    }
    assert found == {arch: layout.config_digest(arch) for arch in ("amd64", "arm64")}
    only = engine.docker("save", "--platform=linux/arm64", both, input=b"").stdout
    with tarfile.open(fileobj=io.BytesIO(only)) as tar:
        entries = json.load(tar.extractfile("manifest.json"))
    assert [entry["Config"][-64:] for entry in entries] == [layout.config_digest("arm64")[7:]]


def test_others_read_an_archive_of_two_platforms(engine, both, layout, tmp_path):
    archive = tmp_path / "both.tar"
    engine.docker("save", "-o", archive, both)

    def skopeo(*args):
        return json.loads(subprocess.run(["skopeo", *args], check=True, capture_output=True).stdout)

    index = skopeo("inspect", "--raw", f"oci-archive:{archive}")
    config = skopeo("inspect", "--config", "--raw", f"docker-archive:{archive}:{both}")
    assert [item["platform"]["architecture"] for item in index["manifests"]] == ["amd64", "arm64"]
    assert config == json.loads(layout.read(layout.config_digest("amd64")))


def test_a_layout_of_others_loads_exactly(fresh_engine, layout):
    packed = subprocess.run(["tar", "-C", layout.root, "-c", "."], check=True, capture_output=True).stdout

    fresh_engine.docker("load", input=packed)

    found = fresh_engine.docker("images", "-q", "--no-trunc").stdout.split()
    assert layout.config_digest("amd64") in found
    kinds = sorted(item["Kind"] for item in manifests(fresh_engine, layout.config_digest("amd64")).values())
    assert kinds == ["attestation", "image", "image"]


def test_our_own_command_line_knows_platforms(engine, both, layout):
    tree = engine.orlop("images", "--tree", both).stdout
    inspected = engine.orlop("inspect", "--platform=linux/arm64", "-f", "{{.Architecture}}", both).stdout
    history = engine.orlop("history", "--platform=linux/arm64", "-q", "--no-trunc", both).stdout
    saved = engine.orlop("save", "--platform=linux/arm64", both, input=b"").stdout

    lines = tree.splitlines()[1:]
    assert lines[0].startswith(both)
    assert [line.split()[1] for line in lines[1:]] == ["linux/amd64", "linux/arm64", "attestation"]
    assert inspected == "arm64\n"
    assert layout.config_digest("arm64") in history
    assert layout.config_digest("arm64")[7:].encode() in saved
    assert layout.config_digest("amd64")[7:].encode() not in saved


def test_disk_use_tells_where_compressed_bytes_are(engine, both):
    shown = engine.orlop("system", "df", "-v").stdout
    facts = inspect(engine, both)["Orlop"]["Layers"]

    assert [layer["Compressed"] for layer in facts] == ["re-fetchable"]
    assert both.removesuffix(":v1") in facts[0]["Sources"]
    assert "re-fetchable" in shown.split("Image layers:")[1]


def test_what_a_container_needs_is_not_reclaimable(fresh_engine):
    before = fresh_engine.orlop("system", "df").stdout.splitlines()[1].split()
    fresh_engine.docker("create", "busybox")
    after = fresh_engine.orlop("system", "df").stdout.splitlines()[1].split()

    assert before[3] == before[4] != "0B"
    assert after[4] == "0B"


def test_a_push_that_changes_the_digest_says_so(fresh_engine, layout, docker_registry):
    packed = subprocess.run(["tar", "-C", layout.root, "-c", "."], check=True, capture_output=True).stdout
    fresh_engine.docker("load", input=packed)
    target = f"{docker_registry.address}/changed/loaded:1"
    fresh_engine.docker("tag", layout.config_digest("amd64"), target)

    told = fresh_engine.docker("push", target).stdout

    assert f"the digest changes from {layout.images['amd64']['digest']} to sha256:" in told


def test_a_foreign_image_is_told_when_nobody_asked_for_it(fresh_engine, name):
    fresh_engine.docker("pull", "-q", "--platform=linux/arm64", name)

    plain = fresh_engine.docker("run", "--rm", name)
    asked = fresh_engine.docker("run", "--rm", "--platform=linux/arm64", name)

    text = (
        "The requested image's platform (linux/arm64) does not match the detected host platform (linux/amd64)"
    )
    assert text in plain.stderr
    assert text not in asked.stderr


def test_attestations_are_shown(engine, both, layout):
    (found,) = json.loads(engine.orlop("image", "attestations", "--format", "json", both).stdout)

    assert found["Manifest"] == layout.images["amd64"]["digest"]
    assert found["PredicateType"] == "https://slsa.dev/provenance/v0.2"
    assert found["Statement"] == {"predicateType": "https://slsa.dev/provenance/v0.2"}
    assert "slsa.dev" in engine.orlop("image", "attestations", both).stdout
