"""What other engines do not have: layers one by one, differences, pins, the budget, mounted images."""

import json

import pytest

from support import images, orlopd

DOCKERFILE = """\
FROM busybox
RUN dd if=/dev/zero of=/big bs=1k count=2048 && echo one > /changed && echo gone > /gone
RUN rm /gone && echo other > /changed && chmod 600 /big && mkdir /made
ENV WHO=world
"""
STATUS = "Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n"


@pytest.fixture
def built(engine, tmp_path):
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    engine.docker("build", "-t", "insight:1", tmp_path)
    yield "insight:1"
    engine.docker("rmi", "-f", "insight:1", check=False)


def said(engine, *args):
    return json.loads(engine.orlop("image", *args, "--format", "json").stdout)


def test_layers_tell_what_is_wasted(engine, built):
    found = said(engine, "layers", built, "--files")

    base, first, second = found["Layers"]
    assert (first["Added"], first["Changed"], first["Removed"]) == (3, 0, 0)
    assert first["Hidden"] == 2048 * 1024 + len("one\ngone\n")
    assert base["Hidden"] == second["Hidden"] == 0
    assert {(item["Kind"], item["Path"]) for item in second["Changes"]} == {
        ("A", "/made"), ("C", "/big"), ("C", "/changed"), ("D", "/gone"),
    }  # fmt: skip
    assert found["LargestWasted"][0] == {"Path": "/big", "Size": 2048 * 1024, "Layer": 1, "HiddenBy": 2}
    assert "/big" in engine.orlop("image", "layers", built).stdout


def test_diff_compares_files_settings_and_packages(engine, built, tmp_path):
    context = tmp_path / "next"
    context.mkdir()
    (context / "status").write_text(
        STATUS.format(name="zlib", version="2") + STATUS.format(name="new", version="1")
    )
    (context / "Dockerfile").write_text(
        f"FROM {built}\nCOPY status /var/lib/dpkg/status\nRUN rm -r /made\nENV WHO=all\nLABEL team=x\n"
    )
    engine.docker("build", "-t", "insight:2", context)

    try:
        found = said(engine, "diff", built, "insight:2")
        shown = engine.orlop("image", "diff", built, "insight:2").stdout
    finally:
        engine.docker("rmi", "insight:2")

    kinds = {item["Path"]: item["Kind"] for item in found["Changes"]}
    assert kinds["/made"] == "D"
    assert kinds["/var/lib/dpkg/status"] == "A"
    assert {item["Key"]: (item["Old"], item["New"]) for item in found["Config"]} == {
        "Env.WHO": ("world", "all"), "Labels.team": (None, "x"),
    }  # fmt: skip
    assert [item["Name"] for item in found["Packages"]] == ["new", "zlib"]
    assert "package zlib: (none) -> 2" in shown


def test_an_image_does_not_differ_from_itself(engine, built):
    found = said(engine, "diff", built, built)

    assert (found["Changes"], found["Config"], found["Packages"], found["Size"]) == ([], [], [], 0)


def test_the_budget_removes_what_is_unused_for_longest(fresh_engine):
    engine = fresh_engine
    for name in ("old", "pinned", "used"):
        engine.docker("build", "-q", "-t", name, "-", input=f"FROM busybox\nRUN echo {name} > /{name}\n")
    engine.orlop("image", "pin", "pinned")
    engine.docker("create", "--name", "user", "used")
    engine.docker("builder", "prune", "-af")

    plan = said(engine, "gc", "--dry-run", "--max-size", "1")
    engine.docker("image", "inspect", "old")

    # nothing goes that was used within the last day
    assert {item["Action"] for item in plan["Items"]} == {"keep"}
    reasons = {item["Name"]: item["Reason"] for item in plan["Items"]}
    assert reasons["pinned:latest"] == "pinned"
    assert reasons["used:latest"].startswith("used by container")
    assert reasons["old:latest"] == "used recently"
    assert json.loads(engine.docker("image", "inspect", "pinned").stdout)[0]["Orlop"]["Pinned"]


def test_an_engine_with_a_budget_keeps_it(engine_with_budget):
    engine = engine_with_budget
    for name in ("old", "pinned", "used"):
        engine.docker("build", "-q", "-t", name, "-", input=f"FROM busybox\nRUN echo {name} > /{name}\n")
    engine.orlop("image", "pin", "pinned")
    engine.docker("create", "--name", "user", "used")

    engine.orlop("image", "gc")

    left = set(engine.docker("images", "--format", "{{.Repository}}").stdout.split())
    assert {"pinned", "used"} <= left
    assert "old" not in left
    assert engine.docker("run", "--rm", "pinned", "cat", "/pinned").stdout == "pinned\n"


@pytest.fixture
def engine_with_budget():
    with orlopd.Orlopd("--image-gc", "max-size=1", "--image-gc", "keep=0s") as running:
        running.docker("load", input=images.busybox_archive("busybox:latest"))
        yield running


def test_an_image_is_a_directory_of_the_host(fresh_engine, tmp_path):
    engine = fresh_engine
    place = tmp_path / "here"
    place.mkdir()

    engine.orlop("image", "mount", "busybox", place)
    try:
        listed = engine.orlop("image", "mount").stdout
        names = {item.name for item in place.iterdir()}
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").write_text("x")
        engine.restart()
    finally:
        engine.orlop("image", "unmount", place)

    assert {"bin", "etc"} <= names
    assert str(place) in listed
    assert not list(place.iterdir())
    default = engine.orlop("image", "mount", "busybox").stdout.strip()
    engine.orlop("image", "unmount", "busybox")
    assert default.startswith(str(engine.exec_root))


def test_inspect_tells_how_compressed_bytes_can_be_had(engine, built):
    shown = json.loads(engine.docker("image", "inspect", built).stdout)[0]["Orlop"]

    # the base may have been pushed by another test
    assert [layer["Compressed"] for layer in shown["Layers"][1:]] == ["re-creatable"] * 2
