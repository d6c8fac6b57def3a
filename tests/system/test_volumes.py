"""Volumes and mounts through the unmodified docker CLI."""

import json
import os
import time

import pytest

from support import orlopd

RUN = ("run", "--rm", "--network", "none")


def refusal(engine, *words):
    answer = engine.docker(*words, check=False)
    assert answer.returncode != 0, answer.stdout
    return answer.stderr


@pytest.fixture(autouse=True)
def _no_volumes(engine):
    yield
    engine.remove_containers()
    engine.docker("volume", "prune", "-af")


def sh(engine, *words):
    """The last word is a script, before it are flags of run."""
    *flags, script = words
    return engine.docker(*RUN, *flags, "busybox", "sh", "-c", script).stdout


def data_of(engine, name):
    return engine.data_root / "volumes" / name / "_data"


def own_mounts(engine):
    """What is mounted below the engine's roots as the engine sees it, layers left out."""
    with open(f"/proc/{engine.pid}/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    return [point for point in points if "/volumes/" in point or "/staged/" in point]


def wait_mounts(engine, count=0):
    deadline = time.monotonic() + 20
    while len(own_mounts(engine)) != count:
        assert time.monotonic() < deadline, own_mounts(engine)
        time.sleep(0.02)


def test_a_subpath_of_a_volume_is_mounted(engine):
    sh(engine, "-v", "data:/d", "mkdir -p /d/a/b; echo deep > /d/a/b/f; echo one > /d/file")

    folder = sh(engine, "--mount", "type=volume,src=data,dst=/x,volume-subpath=a/b", "cat /x/f; ls /x")
    file = sh(engine, "--mount", "type=volume,src=data,dst=/x,volume-subpath=file,readonly", "cat /x")

    assert folder == "deep\nf\n"
    assert file == "one\n"
    assert own_mounts(engine) == []


def test_a_subpath_that_is_missing_or_leads_outside_is_refused(engine):
    sh(
        engine,
        "-v",
        "data:/d",
        "ln -s /etc /d/abs; ln -s ../../.. /d/up; mkdir /d/in; ln -s in /d/fine; mkfifo /d/p",
    )

    def start(subpath):
        return refusal(
            engine, *RUN, "--mount", f"type=volume,src=data,dst=/x,volume-subpath={subpath}", "busybox"
        )

    assert f"cannot access path {data_of(engine, 'data')}/no: no such file or directory" in start("no")
    for link in ("abs", "up", "abs/passwd"):
        assert "path concatenation escapes the base directory" in start(link)
    assert "neither a file nor a directory" in start("p")
    assert "subpath must be a relative path within the volume" in start("../x")
    sh(engine, "--mount", "type=volume,src=data,dst=/x,volume-subpath=fine", "touch /x/here")
    assert (data_of(engine, "data") / "in" / "here").exists()
    assert own_mounts(engine) == []


def test_an_image_is_mounted_read_only_and_held(engine):
    engine.docker("tag", "busybox", "tools:1")
    mount = "type=image,source=tools:1,target=/tools"

    out = sh(engine, "--mount", mount, "ls /tools/bin/sh; touch /tools/x 2>&1; true")
    part = sh(engine, "--mount", f"{mount},image-subpath=etc", "ls /tools/passwd")

    assert out.startswith("/tools/bin/sh\n")
    assert "Read-only file system" in out
    assert part == "/tools/passwd\n"
    engine.docker("create", "--network", "none", "--name", "user", "--mount", mount, "busybox")
    point = json.loads(engine.docker("inspect", "user").stdout)[0]["Mounts"][0]
    assert (point["Type"], point["Name"], point["RW"]) == ("image", "tools:1", False)
    assert own_mounts(engine) == []


def test_an_image_that_is_mounted_somewhere_is_not_removed(engine, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    (tmp_path / "file").write_text("content")
    engine.docker("build", "-q", "-t", "files", str(tmp_path))
    mount = "type=image,source=files,target=/f"
    engine.docker(
        "create", "--network", "none", "--name", "user", "--mount", mount, "busybox", "cat", "/f/file"
    )

    assert "is using its referenced image" in refusal(engine, "rmi", "files")
    assert engine.docker("start", "-a", "user").stdout == "content"
    assert engine.docker("cp", "user:/f/file", str(tmp_path / "copy")).returncode == 0
    assert (tmp_path / "copy").read_text() == "content"
    engine.docker("rm", "user")
    engine.docker("rmi", "files")


def test_a_tmpfs_volume_is_there_while_somebody_uses_it(engine):
    options = ("--driver", "local", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=0750")
    engine.docker("volume", "create", *options, "mem")

    kind = sh(engine, "-v", "mem:/m", "grep ' /m ' /proc/mounts; touch /m/gone; stat -c %a /m")

    assert kind.startswith("tmpfs /m tmpfs ")
    assert "size=1024k" in kind
    assert kind.endswith("750\n")
    wait_mounts(engine)
    engine.docker(
        "run", "-d", "--network", "none", "--name", "one", "-v", "mem:/m", "busybox", "sleep", "600"
    )
    sh(engine, "-v", "mem:/m", "ls /m; echo shared > /m/f")
    assert engine.docker("exec", "one", "cat", "/m/f").stdout == "shared\n"
    assert engine.docker("exec", "one", "ls", "/m").stdout == "f\n"
    engine.docker("rm", "-f", "one")
    wait_mounts(engine)
    found = json.loads(engine.docker("volume", "inspect", "mem").stdout)[0]
    assert found["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0750"}


def test_a_bind_volume_shows_a_directory_and_its_removal_spares_it(engine, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "f").write_text("mine")
    engine.docker("volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o", f"device={kept}", "mine")

    out = sh(engine, "-v", "mine:/m", "cat /m/f; touch /m/x 2>&1; true")

    assert out.startswith("mine")
    assert "Read-only file system" in out
    engine.docker("create", "--network", "none", "--name", "look", "-v", "mine:/m", "busybox")
    assert engine.docker("cp", "look:/m/f", "-").stdout
    engine.docker("rm", "look")
    engine.docker("volume", "rm", "mine")
    assert (kept / "f").read_text() == "mine"


def test_mounts_that_fail_are_told_in_dockerds_words(engine):
    engine.docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no/such/place", "bad")

    text = refusal(engine, *RUN, "-v", "bad:/m", "busybox")

    path = data_of(engine, "bad")
    assert (
        f"error while mounting volume '{path}': failed to mount local volume: mount /no/such/place:{path}"
        in text
    )
    assert "flags: 0x1000: no such file or directory" in text
    assert own_mounts(engine) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("colour=red",), 'invalid option: "colour"'),
        (("o=bind",), 'missing required option: "device"'),
        (("type=tmpfs",), 'missing required option: "device"'),
        (("size=much",), "invalid size: 'much'"),
        (("size=10m",), "quota size requested but no quota support"),
    ],
)
def test_bad_options_make_no_volume(engine, options, text):
    words = [word for option in options for word in ("-o", option)]

    assert text in refusal(engine, "volume", "create", *words, "odd")
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_creating_a_volume_again_gives_it_unless_options_differ(engine):
    tmpfs = ("-o", "type=tmpfs", "-o", "device=tmpfs")
    for _ in range(2):
        assert engine.docker("volume", "create", *tmpfs, "twice").stdout == "twice\n"

    assert engine.docker("volume", "create", "twice").stdout == "twice\n"
    text = refusal(engine, "volume", "create", *tmpfs, "-o", "o=size=1m", "twice")
    assert 'volume "twice" exists but has different options' in text


def test_a_mount_in_use_survives_the_engine_and_one_of_nobody_does_not(fresh_engine):
    engine = fresh_engine
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "used")
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "left")
    for volume in ("used", "left"):
        script = "echo kept > /m/f; exec sleep 600"
        engine.docker(
            *(
                "run",
                "-d",
                "--network",
                "none",
                "--name",
                volume,
                "-v",
                f"{volume}:/m",
                "busybox",
                "sh",
                "-c",
                script,
            )
        )
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "left").stdout)
    engine.kill()
    os.kill(pid, 9)
    engine.start()

    wait_mounts(engine, 1)
    assert sh(engine, "-v", "used:/m", "cat /m/f") == "kept\n"
    engine.docker("rm", "-f", "used", "left")
    wait_mounts(engine)


def test_prune_takes_anonymous_volumes_unless_told_otherwise(engine):
    engine.docker("volume", "create", "--label", "keep=1", "named")
    anonymous = engine.docker("volume", "create").stdout.strip()

    assert engine.docker("volume", "prune", "-f").stdout.splitlines()[1] == anonymous
    engine.docker("volume", "prune", "-af", "--filter", "label!=keep")
    assert engine.docker("volume", "ls", "-q").stdout == "named\n"
    engine.docker("volume", "prune", "-af", "--filter", "label=keep=1")
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_an_option_reaches_only_the_top_of_a_bind(engine, tmp_path):
    mount = f"type=bind,src={tmp_path},dst=/b,readonly,bind-recursive=writable"
    assert "Read-only file system" in sh(engine, "--mount", mount, "touch /b/x 2>&1; true")
    created = tmp_path / "made"
    engine.docker(
        *RUN, "--mount", f"type=bind,src={created},dst=/b,bind-create-src", "busybox", "true", check=False
    )
    text = refusal(engine, *RUN, "-v", "vol:/x", "-v", f"{tmp_path}:/x", "busybox")
    assert "Duplicate mount point: /x" in text


def test_a_volume_goes_out_as_an_archive_and_comes_back(engine, tmp_path):
    sh(
        engine,
        "-v",
        "data:/d",
        "mkdir /d/sub; echo x > /d/sub/f; ln /d/sub/f /d/g; chown 7:8 /d/g; ln -s /etc /d/l",
    )
    archive = tmp_path / "data.tar"

    engine.orlop("volume", "export", "-o", archive, "data")
    assert engine.orlop("volume", "import", "-i", archive, "back").stdout == "back\n"

    look = "cd /d; cat sub/f; stat -c '%u:%g %h' g; readlink l"
    assert sh(engine, "-v", "back:/d", look) == sh(engine, "-v", "data:/d", look) == "x\n7:8 2\n/etc\n"
    part = engine.orlop("volume", "export", "--path", "sub", "data", input=b"").stdout
    assert b"sub/f" in part
    listing = engine.orlop("volume", "browse", "data").stdout
    assert "lrwxrwxrwx" in listing
    assert "sub" in listing


def test_an_archive_that_is_none_leaves_no_volume(engine):
    answer = engine.orlop("volume", "import", "fresh", input=b"no tar at all" * 100, check=False)

    assert answer.returncode != 0
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_volumes_are_cloned_renamed_and_kept_as_snapshots(engine):
    engine.docker("volume", "create", "--label", "team=a", "data")
    sh(engine, "-v", "data:/d", "echo one > /d/f; chown 5:6 /d/f; chmod 4751 /d/f")

    assert engine.orlop("volume", "clone", "data", "copy").stdout == "copy\n"
    sh(engine, "-v", "data:/d", "echo two > /d/f")
    assert sh(engine, "-v", "copy:/d", "cat /d/f; stat -c '%a %u:%g' /d/f") == "one\n4751 5:6\n"
    assert json.loads(engine.docker("volume", "inspect", "copy").stdout)[0]["Labels"] == {"team": "a"}
    text = engine.orlop("volume", "clone", "data", "copy", check=False).stderr
    assert 'volume "copy" already exists' in text

    name = engine.orlop("volume", "snapshot", "data").stdout.strip()
    assert name.startswith("data-2")
    labels = json.loads(engine.docker("volume", "inspect", name).stdout)[0]["Labels"]
    assert labels == {"team": "a", "orlop.snapshot-of": "data"}

    engine.orlop("volume", "rename", "copy", "other")
    assert sh(engine, "-v", "other:/d", "cat /d/f") == "one\n"
    engine.docker("create", "--network", "none", "-v", "other:/d", "busybox")
    text = engine.orlop("volume", "rename", "other", "third", check=False).stderr
    assert "rename other: volume is in use" in text
    assert engine.orlop("volume", "ls", "-q").stdout.split() == ["data", name, "other"]


def test_a_volume_that_is_a_mount_is_exported_and_cloned_with_what_is_mounted(engine, tmp_path):
    (tmp_path / "f").write_text("mine")
    engine.docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}", "mine")

    assert b"mine" in engine.orlop("volume", "export", "mine", input=b"").stdout
    engine.orlop("volume", "clone", "mine", "own")

    assert sh(engine, "-v", "own:/d", "cat /d/f; touch /d/g") == "mine"
    assert not (tmp_path / "g").exists()
    wait_mounts(engine)


@pytest.mark.parametrize(
    ("point", "verb", "left"),
    [
        ("volume.clone.copied", ("clone", "data", "new"), ["data"]),
        ("volume.clone.before-row", ("clone", "data", "new"), ["data"]),
        ("volume.rename.both-rows", ("rename", "data", "new"), ["data"]),
        ("volume.rename.moved", ("rename", "data", "new"), ["new"]),
    ],
)
def test_an_engine_killed_in_between_leaves_all_or_nothing(point, verb, left):
    with orlopd.Orlopd(environ={"ORLOP_FAILPOINTS": f"{point}=crash"}) as engine:
        engine.docker("volume", "create", "data")
        (data_of(engine, "data") / "f").write_text("kept")
        engine.orlop("volume", *verb, check=False)
        engine.process.wait(20)
        engine.environ = {}
        engine.start()

        assert engine.docker("volume", "ls", "-q").stdout.split() == left
        assert sorted(path.name for path in (engine.data_root / "volumes").iterdir()) == left
        assert (data_of(engine, left[0]) / "f").read_text() == "kept"


def test_parts_of_volumes_and_images_in_a_user_namespace(engine):
    own = ("--security-opt", "userns=auto")
    sh(engine, "-v", "data:/d", "mkdir -p /d/a; echo deep > /d/a/f; chown -R 0:0 /d/a; chmod 700 /d/a")
    part = "type=volume,src=data,dst=/x,volume-subpath=a"

    out = sh(engine, *own, "--mount", part, "cat /x/f; stat -c %u /x/f; touch /x/new; stat -c %u /x/new")
    image = sh(
        engine, *own, "--mount", "type=image,source=busybox,target=/t", "ls -d /t/bin; touch /t/x 2>&1; true"
    )

    assert out == "deep\n0\n0\n"
    assert image.startswith("/t/bin\n")
    assert "Read-only file system" in image
    assert own_mounts(engine) == []


def test_what_a_mount_lacks_is_not_taken_for_a_missing_image(engine):
    image = refusal(engine, *RUN, "--mount", "type=image,source=nosuch,target=/x", "busybox")
    driver = refusal(engine, *RUN, "--mount", "type=volume,src=vol,dst=/x,volume-driver=foo", "busybox")

    assert "No such image: nosuch" in image
    assert 'error looking up volume plugin foo: plugin "foo" not found' in driver
    assert "Unable to find image" not in image + driver


def test_a_new_volume_gets_all_that_the_image_has_there(engine, tmp_path):
    script = "mkdir -p /v/sub; echo x > /v/a; ln /v/a /v/sub/b; ln -s a /v/l; chown -R 5:6 /v; chmod 2750 /v"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN {script}\n")
    engine.docker("build", "-q", "-t", "filled", str(tmp_path))
    look = "cd /v; stat -c '%n %a %u:%g %h' . a sub/b; readlink l"

    def run(*flags):
        return engine.docker(*RUN, *flags, "filled", "sh", "-c", look, check=False).stdout

    wanted = ". 2750 5:6 3\na 644 5:6 2\nsub/b 644 5:6 2\na\n"
    assert run("-v", "one:/v") == wanted
    assert run("--security-opt", "userns=auto", "-v", "two:/v") == wanted
    assert run("-v", "three:/v:nocopy").splitlines()[:1] == [". 755 0:0 2"]


@pytest.mark.parametrize("point", ["volume.stage.made", "volume.mount.made"])
def test_an_engine_killed_in_a_start_leaves_no_mount(fresh_engine, point):
    engine = fresh_engine
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem")
    sh(engine, "-v", "data:/d", "mkdir /d/a")
    # whoever runs keeps the namespace with its mounts alive
    engine.docker("run", "-d", "--network", "none", "--name", "runs", "busybox", "sleep", "600")
    engine.environ = {"ORLOP_FAILPOINTS": f"{point}=crash"}
    engine.restart()
    mounts = ("-v", "mem:/m", "--mount", "type=volume,src=data,dst=/x,volume-subpath=a")

    engine.docker("run", "--network", "none", *mounts, "busybox", "true", check=False)
    engine.process.wait(20)
    engine.environ = {}
    engine.start()

    assert own_mounts(engine) == []
