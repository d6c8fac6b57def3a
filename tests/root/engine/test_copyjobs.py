"""`docker cp` against containers that want to get out: every job runs as in a worker, in a fork."""

import io
import json
import os
import stat
import tarfile
import threading

import pytest

from orlop.base.errors import OrlopError
from orlop.engine import copyjobs, copyup
from orlop.engine.files import go_file_mode
from orlop.procs.channel import Channel, channel_pair
from orlop.procs.errors import decode_error
from orlop.procs.worker import run_worker

pytestmark = pytest.mark.root

JOBS = {
    "archive": copyjobs.archive,
    "export": copyjobs.export,
    "extract": copyjobs.extract,
    "stat": copyjobs.stat_path,
    "copy-up": copyup.copy_up,
}


def run(job, payload, fds=(), feed=b""):
    """Run a job in a forked worker; its result and the bytes it wrote to the first fd."""
    ours, theirs = channel_pair()
    if (pid := os.fork()) == 0:
        ours.close()
        code = run_worker(JOBS, Channel(theirs.socket), {"job": job, "payload": payload}, list(fds))
        os._exit(code)
    theirs.close()
    for fd in fds:
        os.close(fd)
    reports = []
    while True:
        body = ours.receive().body
        if "progress" not in body:
            break
        reports.append(body["progress"])
    os.waitpid(pid, 0)
    ours.close()
    if "error" in body:
        raise decode_error(body["error"])
    return body["result"], reports


class Box:
    """A stopped container: a lower with files, an empty upper, and a canary outside."""

    def __init__(self, root):
        self.root = root
        self.lower, self.upper, self.work = (root / name for name in ("lower", "upper", "work"))
        for folder in (self.lower, self.upper, self.work, root / "outside"):
            folder.mkdir()
        self.canary = root / "outside" / "canary"
        self.canary.write_text("alive")
        (self.lower / "etc").mkdir()
        (self.lower / "etc" / "passwd").write_text("root:x:0:0::/:/x\napp:x:7:8::/:/x\n")
        (self.lower / "data").mkdir()

    def view(self, *mounts):
        return {
            "lowers": [str(self.lower)],
            "upper": str(self.upper),
            "work": str(self.work),
            "mounts": [
                {"source": str(source), "target": target, "is_read_only": is_read_only}
                for source, target, is_read_only in mounts
            ],
        }

    def stat(self, path):
        return run("stat", {"root": self.view(), "path": path})[0]

    def archive(self, path, *mounts, base=None):
        reader, writer = os.pipe()
        out = bytearray()

        def drain():
            while chunk := os.read(reader, 1 << 16):
                out.extend(chunk)

        thread = threading.Thread(target=drain)
        thread.start()
        try:
            name = base or path.rstrip("/").rpartition("/")[2] or "/"
            run("archive", {"root": self.view(*mounts), "path": path, "base": name}, [writer])
        finally:
            thread.join()
            os.close(reader)
        return tarfile.open(fileobj=io.BytesIO(bytes(out)))

    def extract(self, archive, path="/data", mounts=(), **options):
        reader, writer = os.pipe()
        os.set_blocking(writer, True)
        if (pid := os.fork()) == 0:
            os.close(reader)
            with os.fdopen(writer, "wb") as file:
                file.write(archive)
            os._exit(0)
        os.close(writer)
        try:
            return run("extract", {"root": self.view(*mounts), "path": path, **options}, [reader])
        finally:
            os.waitpid(pid, 0)


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def tar_of(*members):
    """(name, kind, content or link) of each member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o644 if kind != tarfile.DIRTYPE else 0o755
            data = b""
            if kind == tarfile.REGTYPE:
                data = content
                info.size = len(data)
            else:
                info.linkname = content
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_a_file_comes_out_as_it_is(box):
    (box.lower / "data" / "f").write_bytes(b"x" * 100_000)
    os.chmod(box.lower / "data" / "f", 0o4755)

    archive = box.archive("/data/f")

    (member,) = archive.getmembers()
    assert (member.name, member.mode, member.size) == ("f", 0o4755, 100_000)
    assert archive.extractfile(member).read() == b"x" * 100_000


def test_a_directory_comes_with_its_name_and_its_hard_links(box):
    (box.lower / "data" / "sub").mkdir()
    (box.lower / "data" / "sub" / "a").write_text("a")
    os.link(box.lower / "data" / "sub" / "a", box.lower / "data" / "sub" / "b")
    os.symlink("/etc/passwd", box.lower / "data" / "link")

    members = {member.name: member for member in box.archive("/data").getmembers()}

    assert set(members) == {"data", "data/sub", "data/sub/a", "data/sub/b", "data/link"}
    assert members["data/sub/b"].islnk()
    assert members["data/link"].linkname == "/etc/passwd"


def test_a_link_is_told_not_followed(box):
    os.symlink("../etc/passwd", box.lower / "data" / "link")

    facts = box.stat("/data/link")

    assert stat.S_ISLNK(facts["mode"])
    assert facts["link_target"] == "/etc/passwd"


def test_what_a_volume_covers_is_seen_through_it(box):
    volume = box.root / "volume"
    volume.mkdir()
    (volume / "inside").write_text("v")

    archive = box.archive("/data/inside", (volume, "/data", False))

    assert archive.extractfile("inside").read() == b"v"


@pytest.mark.parametrize("target", ["outside", "/", "../../../../.."])
def test_links_out_of_the_root_end_inside_it(box, target):
    where = str(box.root / "outside") if target == "outside" else target
    os.symlink(where, box.lower / "out")

    with pytest.raises(OrlopError):
        box.stat("/out/canary")
    archive = tar_of(("evil", tarfile.REGTYPE, b"evil"))
    if target == "outside":
        with pytest.raises(OrlopError):
            box.extract(archive, "/out")
    else:
        box.extract(archive, "/out")
        assert (box.upper / "evil").read_text() == "evil"

    assert box.canary.read_text() == "alive"
    assert sorted(os.listdir(box.root / "outside")) == ["canary"]


def test_names_of_an_archive_stay_below_the_destination(box):
    archive = tar_of(
        ("../../escape", tarfile.REGTYPE, b"1"),
        ("/absolute", tarfile.REGTYPE, b"2"),
        ("a/../../b", tarfile.REGTYPE, b"3"),
    )

    box.extract(archive)

    assert sorted(os.listdir(box.upper / "data")) == ["a", "absolute", "escape"]
    assert os.listdir(box.upper) == ["data"]


def test_a_link_in_the_archive_leads_nowhere_outside(box):
    archive = tar_of(
        ("door", tarfile.SYMTYPE, str(box.root / "outside")),
        ("door/canary", tarfile.REGTYPE, b"dead"),
    )

    box.extract(archive)

    assert box.canary.read_text() == "alive"


def test_a_hard_link_cannot_name_a_file_outside(box):
    os.symlink(str(box.root / "outside"), box.lower / "data" / "door")
    archive = tar_of(("grab", tarfile.LNKTYPE, "door/canary"), ("grab", tarfile.REGTYPE, b"dead"))

    with pytest.raises(OrlopError):
        box.extract(archive)

    assert box.canary.read_text() == "alive"


def test_an_existing_link_is_replaced_not_written_through(box):
    os.symlink("/etc/passwd", box.lower / "data" / "f")

    box.extract(tar_of(("f", tarfile.REGTYPE, b"new")))

    assert (box.upper / "data" / "f").read_bytes() == b"new"
    assert not (box.upper / "etc").exists()


def test_kinds_are_kept_when_asked_for(box):
    (box.lower / "data" / "x").mkdir()

    with pytest.raises(OrlopError, match="cannot overwrite directory"):
        box.extract(tar_of(("x", tarfile.REGTYPE, b"")), keeps_kinds=True)


def test_files_get_the_owner_of_the_container_s_user(box):
    box.extract(tar_of(("f", tarfile.REGTYPE, b"")), user="app")

    status = os.stat(box.upper / "data" / "f")
    assert (status.st_uid, status.st_gid) == (7, 8)
    with pytest.raises(OrlopError, match="unable to find user"):
        box.extract(tar_of(("f", tarfile.REGTYPE, b"")), user="nobody-here")


def test_a_read_only_volume_is_not_written(box):
    volume = box.root / "volume"
    volume.mkdir()

    with pytest.raises(OrlopError, match="read-only"):
        box.extract(tar_of(("f", tarfile.REGTYPE, b"x")), mounts=((volume, "/data", True),))

    assert os.listdir(volume) == []


@pytest.mark.parametrize("archive", [b"garbage" * 100, tar_of(("f", tarfile.REGTYPE, b"x" * 2000))[:1000]])
def test_a_broken_archive_is_refused(box, archive):
    with pytest.raises(OrlopError):
        box.extract(archive)


def test_the_place_must_be_a_directory_that_is_there(box):
    with pytest.raises(OrlopError):
        box.extract(tar_of(), "/etc/passwd")
    with pytest.raises(OrlopError, match="no such file"):
        box.extract(tar_of(), "/nope")


def test_an_export_has_everything_but_mounts(box):
    (box.lower / "data" / "f").write_text("x")
    reader, writer = os.pipe()
    run("export", {"root": box.view()}, [writer])
    with os.fdopen(reader, "rb") as file, tarfile.open(fileobj=io.BytesIO(file.read())) as archive:
        names = archive.getnames()

    assert {"data", "data/f", "etc", "etc/passwd"} <= set(names)


def test_a_new_volume_is_filled_from_the_image(box):
    volume = box.root / "volume"
    volume.mkdir()
    source = box.lower / "data"
    (source / "sub").mkdir(mode=0o750)
    (source / "sub" / "f").write_text("content")
    os.chown(source / "sub" / "f", 5, 6)
    os.utime(source / "sub" / "f", ns=(10**9, 10**9))
    os.link(source / "sub" / "f", source / "again")
    os.symlink(str(box.canary), source / "link")
    os.mkfifo(source / "pipe")
    payload = {"lowers": [str(box.lower)], "upper": str(box.upper), "source": "/data", "target": str(volume)}

    assert run("copy-up", payload)[0] == {"copied": True}
    assert run("copy-up", payload)[0] == {"copied": False}

    status = os.stat(volume / "sub" / "f")
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (5, 6, 10**9)
    assert os.stat(volume / "again").st_ino == status.st_ino
    assert os.readlink(volume / "link") == str(box.canary)
    assert stat.S_ISFIFO(os.stat(volume / "pipe").st_mode)
    assert stat.S_IMODE(os.stat(volume / "sub").st_mode) == 0o750


def test_a_volume_whose_place_is_a_link_is_filled_from_inside_the_root(box):
    volume = box.root / "volume"
    volume.mkdir()
    os.symlink(str(box.root / "outside"), box.lower / "vol")
    payload = {"lowers": [str(box.lower)], "upper": None, "source": "/vol", "target": str(volume)}

    assert run("copy-up", payload)[0] == {"copied": False}
    assert os.listdir(volume) == []


def test_modes_are_told_as_go_tells_them(box):
    facts = box.stat("/data")

    assert go_file_mode(facts["mode"]) == 0o755 | 1 << 31
    assert json.dumps(facts)
