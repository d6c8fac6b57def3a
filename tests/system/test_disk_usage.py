"""`docker system df -v` says what is really on the disk: its numbers against what du(1) counts."""

import json
import os
import subprocess

import pytest

from support import images, orlopd

pytestmark = pytest.mark.system

MIB = 1 << 20


def usage(engine):
    return engine.api().df()


def bytes_below(path):
    """Bytes of the files below a path, as du counts them, without its directories."""
    shown = subprocess.run(
        ["find", str(path), "-type", "f", "-printf", "%b\\n"], capture_output=True, text=True, check=True
    )
    return sum(int(line) * 512 for line in shown.stdout.split())


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """An engine with an image of 3 MiB more, a container that wrote 5, a volume of 7 and a cached step of 2."""
    with orlopd.Orlopd() as engine:
        engine.docker("load", input=images.busybox_archive("busybox:latest"))
        context = tmp_path_factory.mktemp("context")
        (context / "data").write_bytes(os.urandom(3 * MIB))
        (context / "Dockerfile").write_text(
            "FROM busybox\nCOPY data /data\nRUN head -c 2097152 /dev/urandom > /made\n"
        )
        engine.docker("build", "-t", "grown", str(context))
        engine.docker(
            "run", "--name", "writer", "-v", "kept:/kept", "busybox", "sh", "-c",
            "head -c 5242880 /dev/urandom > /own; head -c 7340032 /dev/urandom > /kept/data; sync",
        )  # fmt: skip
        yield engine


def test_a_container_has_the_size_of_what_it_wrote(filled):
    (container,) = usage(filled)["Containers"]
    (row,) = filled.docker("system", "df", "-v", "--format", "{{json .}}").stdout.splitlines()

    on_disk = bytes_below(filled.data_root / "snapshots")
    assert container["SizeRw"] == pytest.approx(on_disk, abs=64 << 10)
    assert container["SizeRw"] >= 5 * MIB
    assert container["SizeRootFs"] > container["SizeRw"]
    assert json.loads(row)["Containers"][0]["Size"].startswith("5.2")


def test_a_volume_has_the_size_of_its_files_and_its_user(filled):
    (volume,) = usage(filled)["Volumes"]

    assert volume["UsageData"] == {
        "Size": pytest.approx(bytes_below(filled.data_root / "volumes"), abs=64 << 10),
        "RefCount": 1,
    }
    assert volume["UsageData"]["Size"] >= 7 * MIB


def test_layers_are_counted_once_and_no_image_is_larger_than_the_disk_says(filled):
    shown = usage(filled)
    sizes = {tag: image for image in shown["Images"] for tag in image["RepoTags"] or ()}
    base, grown = sizes["busybox:latest"], sizes["grown:latest"]

    layers = bytes_below(filled.data_root / "layers")
    assert shown["LayersSize"] == pytest.approx(layers, rel=0.05)
    assert grown["Size"] - base["Size"] == pytest.approx(5 * MIB, abs=MIB // 4)
    assert grown["Size"] <= layers
    assert (base["Containers"], grown["Containers"]) == (1, 0)


def test_the_build_cache_has_what_its_steps_added(filled):
    records = usage(filled)["BuildCache"]

    made = [record for record in records if "RUN head" in record["Description"]]
    assert [record["Size"] for record in made] == [pytest.approx(2 * MIB, abs=64 << 10)]


def test_what_is_reclaimed_is_what_the_disk_gets_back(filled):
    before = bytes_below(filled.data_root / "volumes")
    filled.docker("rm", "writer")

    shown = filled.api().api.prune_volumes({"all": ["true"]})

    assert shown["SpaceReclaimed"] == pytest.approx(
        before - bytes_below(filled.data_root / "volumes"), abs=64 << 10
    )
    assert usage(filled)["Volumes"] in ([], None)
