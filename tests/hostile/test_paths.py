"""Host files that an image or a running container tries to reach through paths and links.

Archives through every way in are in tests/system/test_hostile.py; here are races, and what configs name.
"""

import io
import json
import os
import tarfile

import pytest

from support import images
from support.contexts import write
from support.hostile import DIR, FILE, LINK, SECRET, UP, Exchange, for_a_while, load, pid_of, tar_of

pytestmark = pytest.mark.system


def prepared(door, started, canary, *, host=None):
    """A running container with a directory and a link out, ready to be exchanged; its id and its root."""
    name = started(host=host)
    made = door.execute(
        name,
        "sh",
        "-c",
        f"mkdir -p /work/dir/in && echo inside > /work/dir/file && ln -s {canary} /work/link",
    )
    assert made.code == 0, made.output
    return name, f"/proc/{pid_of(door, name)}/root"


@pytest.mark.parametrize("way", ["in", "out", "stat"])
def test_copies_while_a_directory_and_a_link_change_places(door, started, canary, way):
    """CVE-2018-15664: the path that was checked is not the path that is used."""
    name, root = prepared(door, started, canary)
    place = f"/containers/{name}/archive"
    evil = tar_of(("file", FILE, b"overwritten", 0o777), ("inside", DIR, ""), ("inside/x", FILE, b"x"))
    statuses = []

    with Exchange(root, "work/dir", "work/link"):
        for _ in for_a_while():
            if way == "in":
                reply = door.ask("PUT", place, evil, path="/work/dir")
            elif way == "out":
                reply = door.ask("GET", place, path="/work/dir/file")
                assert SECRET.encode() not in reply.body
            else:
                reply = door.ask("HEAD", place, path="/work/dir/file")
            statuses.append(reply.status)

    assert 200 in statuses  # some won, none got out
    assert set(statuses) <= {200, 400, 404, 409, 0}  # 0: it changed after the head of the answer


def test_a_volume_s_place_while_the_directory_above_it_is_a_link(door, started, canary):
    """CVE-2026-41568, CVE-2026-42306, CVE-2021-30465, CVE-2024-45310, CVE-2022-1708: `cp` into a stopped
    container and its start mount a volume below a directory that a sharer of that volume exchanges."""
    attacker, root = prepared(door, started, canary, host={"Binds": ["shared:/work"]})
    binds = ["shared:/work", "inner:/work/dir/deep", f"{canary}/inside:/work/dir/other:ro"]
    made = door.create("busybox", "true", host={"Binds": binds})
    victim = made.value()["Id"]
    statuses, ends = [], []

    with Exchange(root, "work/dir", "work/link"):
        for turn in for_a_while(2):
            data = tar_of(("deep/file", FILE, b"x"))
            reply = door.ask("PUT", f"/containers/{victim}/archive", data, path="/work/dir")
            statuses.append(reply.status)
            if turn % 3 == 0:
                ends.append(door.ask("POST", f"/containers/{victim}/start").status)
                door.ask("POST", f"/containers/{victim}/wait")
    door.ask("DELETE", f"/containers/{victim}", force=1)
    door.ask("DELETE", f"/containers/{attacker}", force=1)
    for volume in ("shared", "inner"):
        door.ask("DELETE", f"/volumes/{volume}")

    assert 204 in ends
    assert set(statuses) <= {200, 400, 404, 409}


def test_links_inside_the_image_still_work_for_copies(engine, door, started):
    """CVE-2026-42306, the other side: absolute links and `..` mean the container's own paths."""
    load(
        engine,
        "linked:1",
        ("data/real", DIR, ""),
        ("data/up", LINK, f"{UP}data/real"),
        ("abs", LINK, "/data/real"),
    )
    name = started("linked:1")

    for way in ("/abs", "/data/up", "/data/up/.."):
        assert (
            door.ask("PUT", f"/containers/{name}/archive", tar_of(("f", FILE, b"1")), path=way).status == 200
        )

    assert door.execute(name, "ls", "/data/real/f", "/data/f").code == 0


@pytest.mark.parametrize("volume", ["/x", "/x/deep", "/x/../x/inside", "/y/file/z", "x", "/"])
def test_a_volume_of_an_image_whose_place_is_a_link(engine, door, canary, volume):
    """CVE-2022-23648: the copy of the image's files into a new volume follows a link to the host."""
    load(engine, "evil:1", ("x", LINK, str(canary)), ("y", LINK, UP + str(canary)), Volumes={volume: {}})

    done = door.run("evil:1", "sh", "-c", "cat /x/file /x/*/file /y/file; mount")

    assert SECRET not in done.output
    volumes = door.ask("GET", "/volumes").value()["Volumes"]
    assert all(SECRET not in text_below(item["Mountpoint"]) for item in volumes)


def text_below(directory):
    found = ""
    for parent, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(parent, name), errors="replace") as file:
                found += file.read()
    return found


@pytest.mark.parametrize("link", ["{}", f"{UP}{{}}", "/proc/1/root{}", "/proc/self/cwd"])
def test_a_working_directory_below_a_link(engine, door, started, canary, tmp_path, link):
    """CVE-2026-55686: directories that WORKDIR names are made, and may be made on the host."""
    entries = (("l", LINK, link.format(canary)),)
    load(engine, "evil:1", *entries, WorkingDir="/l/x/y")
    (tmp_path / "Dockerfile").write_text(
        "FROM evil:1\nWORKDIR /l/built/deep\nCOPY Dockerfile .\nRUN touch here; pwd\n"
    )

    door.run("evil:1", "touch", "here")
    door.run("evil:1", "touch", "here", WorkingDir="/l/z")
    name = started("evil:1", WorkingDir="/")
    door.execute(name, "touch", "here", WorkingDir="/l/w")
    engine.docker("build", "-t", "built:1", tmp_path, check=False)

    assert sorted(os.listdir(canary)) == ["file", "inside"]


def test_names_inside_an_archive_of_images_are_no_paths(engine, door, canary):
    """CVE-2014-6407, CVE-2014-9356, CVE-2014-9357, CVE-2014-9358: ids and file names of an archive lead out."""
    layer = images.busybox_layer()
    config = b'{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'
    for name in (f"{UP}{canary}/file", f"{canary}/file", "../../x.json", "link", "dir/../../up"):
        manifest = [{"Config": name, "RepoTags": ["evil:9"], "Layers": [name]}]
        members = (
            ("link", LINK, f"{canary}/file"),
            (name, FILE, config),
            (f"{UP}{canary}/layer.tar", FILE, layer),
            ("repositories", FILE, json.dumps({"evil": {"9": name}}).encode()),
            ("manifest.json", FILE, json.dumps(manifest).encode()),
        )
        reply = door.ask("POST", "/images/load", tar_of(*members), {"Content-Type": "application/x-tar"})
        assert reply.status in (200, 400, 404)
        assert reply.status != 200 or b"error" in reply.body
    assert door.ask("GET", "/images/evil:9/json").status == 404
    assert os.listdir(engine.data_root / "staging") == []


def test_files_that_the_engine_makes_in_a_container(engine, door, canary):
    """CVE-2022-4318, CVE-2024-5154, CVE-2015-3629: hosts, hostname, resolv.conf, mtab and passwd are links out,
    and stay what they are between two starts."""
    names = ("hosts", "hostname", "resolv.conf", "mtab", "passwd", "group", "localtime")
    load(engine, "evil:1", *((f"etc/{name}", LINK, f"{canary}/file") for name in names))
    made = door.create(
        "evil:1", "sh", "-c", f"rm -f /etc/*; ln -s {canary}/file /etc/mtab; echo x > /etc/hosts"
    )
    name = made.value()["Id"]

    for _ in range(2):
        door.ask("POST", f"/containers/{name}/start")
        door.ask("POST", f"/containers/{name}/wait")
    stored = door.ask("GET", f"/containers/{name}/json").value()
    for path in (stored["HostsPath"], stored["HostnamePath"], stored["ResolvConfPath"]):
        assert not path or not os.path.islink(path)


def test_what_comes_out_of_a_container_is_not_of_the_host(engine, door, canary):
    """CVE-2024-9341, CVE-2023-0778: export, diff, commit and cp of a tree of links."""
    load(
        engine, "evil:1", ("d", LINK, str(canary)), ("f", LINK, f"{canary}/file"), ("p", LINK, "/proc/1/root")
    )
    name = door.create("evil:1", "true").value()["Id"]
    door.ask("POST", f"/containers/{name}/start")
    door.ask("POST", f"/containers/{name}/wait")

    exported = door.ask("GET", f"/containers/{name}/export").body
    copied = [
        door.ask("GET", f"/containers/{name}/archive", path=path)
        for path in (
            "/d/file",
            "/d/",
            "/f",
            "/p/etc",
            f"{UP}{canary}/file",
            "/d/../../../etc/shadow",
            "/proc/1/root/d/",
        )
    ]
    committed = door.ask("POST", "/commit", container=name, repo="evil", tag="2")
    saved = door.ask("GET", "/images/evil:2/get").body

    assert committed.status == 201
    for data in (exported, saved, *(reply.body for reply in copied)):
        assert SECRET.encode() not in data
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        assert tar.getmember("d").issym()


def test_a_copy_of_the_whole_root_of_a_running_container(door, started):
    """CVE-2018-15664 and its kind: files without an end, that block or that are the kernel's, end no copy."""
    name = started()
    assert (
        door.execute(
            name, "sh", "-c", "mkfifo /pipe; ln -s /dev/zero /zero; mkdir /last; echo x > /last/file"
        ).code
        == 0
    )

    reply = door.ask("GET", f"/containers/{name}/archive", path="/")

    assert reply.status == 200
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as tar:
        names = [member.name.strip("/") for member in tar.getmembers()]
    assert {"last/file", "pipe", "proc", "sys", "dev/null"} <= set(names)
    assert not [item for item in names if item.startswith(("proc/", "sys/", "dev/pts/"))]


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile"])
def test_a_file_that_directs_a_build_is_a_link(engine, canary, tmp_path, name):
    """CVE-2022-4122, CVE-2022-4123, CVE-2025-9566: ignore files and Dockerfiles that are links of the context."""
    context = tar_of((name, LINK, f"{canary}/file"), ("x", FILE, b"x"))
    if name != "Dockerfile":
        context = tar_of(
            ("Dockerfile", FILE, b"FROM busybox\nCOPY . /all\nRUN cat /all/.dockerignore || true\n"),
            (name, LINK, f"{canary}/file"),
        )

    done = engine.docker("build", "-", input=context, check=False)

    assert SECRET.encode() not in done.stdout + done.stderr


def test_mounts_of_steps_with_links_in_their_place(engine, canary, tmp_path):
    """CVE-2024-23652, CVE-2024-1753, CVE-2024-9675: what a RUN or COPY finds in its place is a link to the host,
    and is cleared away afterwards."""
    directory = write(
        tmp_path / "context",
        {
            "Dockerfile": f"FROM busybox\nRUN rm -rf /tmp && ln -s {canary} /tmp && ln -s {canary} /l\n"
            f"RUN rm -f /etc/hosts /etc/resolv.conf; ln -s {canary}/file /etc/resolv.conf || true\n"
            "COPY Dockerfile /l/new/\nADD Dockerfile /tmp/\nWORKDIR /l/../l/inside\nVOLUME /l\nRUN touch x /l/y\n"
        },
    )

    engine.docker("build", "--no-cache", directory, check=False)

    assert sorted(os.listdir(canary / "inside")) == []
