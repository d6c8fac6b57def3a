"""Archives made to reach the host, through every way in; images made to mislead the start of a container.

Nothing here says whether a way refuses or contains: a canary on the host stays as it was, the engine goes on
answering, and what was refused leaves nothing in its store.
"""

import io
import os
import tarfile

import pytest

from support import hostile, images
from support.contexts import write

UP = "../" * 30


@pytest.fixture
def canary():
    """A directory of the host whose content, modes, owners and times are compared at the end."""
    with hostile.new_canary() as place:
        yield str(place)


def tar_of(*entries):
    """(name, type, link or data or mode) of each member, in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, value in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o777
            data = b""
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                entry.linkname = value
            elif kind == tarfile.REGTYPE:
                data = value
                entry.size = len(data)
            elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                entry.devmajor, entry.devminor = value
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


FILE, LINK, HARD, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
EVIL = b"overwritten"
ARCHIVES = {
    "dots": lambda c: tar_of((f"{UP}{c}/file", FILE, EVIL)),
    "dots-inside": lambda c: tar_of(("a/", DIR, ""), (f"a/{UP}{c}/file", FILE, EVIL)),
    "absolute": lambda c: tar_of((f"{c}/file", FILE, EVIL)),
    "through-a-link": lambda c: tar_of(("way", LINK, c), ("way/file", FILE, EVIL)),
    "through-a-link-of-dots": lambda c: tar_of(("way", LINK, UP + c), ("way/file", FILE, EVIL)),
    "through-two-links": lambda c: tar_of(
        ("one", LINK, "/"), ("two", LINK, f"one{c}"), ("two/file", FILE, EVIL)
    ),
    "a-link-as-the-file": lambda c: tar_of(("way", LINK, f"{c}/file"), ("way", FILE, EVIL)),
    "a-directory-over-a-link": lambda c: tar_of(("way", LINK, c), ("way/", DIR, "")),
    "a-hard-link-out": lambda c: tar_of(("way", HARD, f"{c}/file"), ("way", FILE, EVIL)),
    "a-hard-link-of-dots": lambda c: tar_of(("way", HARD, f"{UP}{c}/file"), ("way", FILE, EVIL)),
    "a-hard-link-to-a-link": lambda c: tar_of(
        ("to", LINK, f"{c}/file"), ("way", HARD, "to"), ("way", FILE, EVIL)
    ),
    "a-link-as-the-root": lambda c: tar_of((".", LINK, c), ("file", FILE, EVIL)),
    "a-whiteout-through-a-link": lambda c: tar_of(("way", LINK, c), ("way/.wh.file", FILE, b"")),
    "a-whiteout-of-dots": lambda c: tar_of((f"{UP}{c}/.wh.file", FILE, b"")),
    "an-opaque-link": lambda c: tar_of(("way", LINK, c), ("way/.wh..wh..opq", FILE, b"")),
    "a-disk": lambda c: tar_of(("disk", tarfile.BLKTYPE, (8, 0)), ("memory", tarfile.CHRTYPE, (1, 1))),
}


def load(engine, archive, tmp_path):
    layers = [images.busybox_layer(), archive]
    done = engine.docker("load", input=images.archive(layers, ("evil:1",), {"Cmd": ["sh"]}), check=False)
    return run_evil(engine) if done.returncode == 0 and b"Loaded" in done.stdout else None


def import_(engine, archive, tmp_path):
    done = engine.docker("import", "-", "evil:1", input=archive, check=False)
    if done.returncode == 0:
        engine.docker("create", "--name", "evil", "evil:1", "/nothing", check=False)
        engine.docker("start", "evil", check=False)
        engine.docker("export", "evil", input=b"", check=False)


def copy_in(engine, archive, tmp_path):
    engine.docker("create", "--name", "evil", "-v", "/volume", "busybox", "sh", "-c", "ls -la / /volume")
    engine.docker("cp", "-", "evil:/", input=archive, check=False)
    engine.docker("cp", "-", "evil:/volume", input=archive, check=False)
    engine.docker("start", "-a", "evil", check=False)
    engine.docker("cp", "-", "evil:/volume", input=archive, check=False)
    engine.docker("cp", "evil:/volume", "-", input=b"", check=False)


def add(engine, archive, tmp_path):
    directory = write(tmp_path / "context", {"evil.tar": archive})
    write(
        directory, {"Dockerfile": "FROM busybox\nADD evil.tar /\nADD evil.tar /volume/\nRUN ls -la /volume\n"}
    )
    done = engine.docker("build", "-t", "evil:1", directory, check=False)
    return run_evil(engine) if done.returncode == 0 else None


def context(engine, archive, tmp_path):
    engine.docker("build", "-t", "evil:1", "-", input=archive, check=False)


def run_evil(engine):
    script = "ls -la /; for f in /way/file /two/file /way /file; do echo x > $f; done; chmod 777 /way; rm -f /way/file; cat /disk /memory"
    return engine.docker("run", "--rm", "-v", "evil-volume:/way", "evil:1", "sh", "-c", script, check=False)


@pytest.mark.parametrize("way", [load, import_, copy_in, add, context])
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_does_not_reach_the_host(engine, canary, tmp_path, name, way):
    way(engine, ARCHIVES[name](canary), tmp_path)

    engine.docker("rm", "-fv", "evil", check=False)
    engine.docker("volume", "rm", "-f", "evil-volume", check=False)
    assert engine.docker("run", "--rm", "busybox", "echo", "alive").stdout == "alive\n"
    assert os.listdir(engine.data_root / "staging") == []
    assert "Traceback" not in engine.log()


ROOTS = {
    "proc": [("proc", LINK)],
    "sys": [("sys", LINK)],
    "dev": [("dev", LINK)],
    "etc": [("etc", LINK)],
    "etc-files": [("etc/hosts", LINK), ("etc/resolv.conf", LINK), ("etc/hostname", LINK), ("etc/mtab", LINK)],
    "passwd": [("etc/passwd", LINK), ("etc/group", LINK)],
    "volume": [("volume", LINK)],
    "work": [("work", LINK)],
    "dev-names": [
        ("dev/null", LINK),
        ("dev/console", LINK),
        ("dev/ptmx", LINK),
        ("dev/pts", LINK),
        ("dev/shm", LINK),
    ],
}


def misleading(canary, names, target):
    """A busybox whose directories are links out of it."""
    buffer = io.BytesIO()
    taken = {name for name, _ in names}
    with (
        tarfile.open(fileobj=buffer, mode="w") as out,
        tarfile.open(fileobj=io.BytesIO(images.busybox_layer())) as base,
    ):
        for member in base:
            if not any(member.name == name or member.name.startswith(f"{name}/") for name in taken):
                out.addfile(member, base.extractfile(member) if member.isfile() else None)
        for name, kind in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target.format(canary)
            out.addfile(entry)
    return buffer.getvalue()


@pytest.mark.parametrize("target", ["{}", f"{UP}{{}}", "{}/file", "/proc/1/root{}"])
@pytest.mark.parametrize("name", ROOTS)
def test_an_image_cannot_mislead_the_start(engine, canary, name, target):
    layer = misleading(canary, ROOTS[name], target)
    engine.docker("load", input=images.archive([layer], ("evil:2",), {"Cmd": ["sh"]}))
    script = "echo x > /etc/hosts; echo x > /dev/evil; touch /volume/x /work/x /etc/passwd; echo done"

    for flags in (["-u", "user", "-w", "/work/deep", "-v", "/volume"], ["-t", "--tmpfs", "/volume"]):
        done = engine.docker("run", "--rm", *flags, "evil:2", "sh", "-c", script, check=False, timeout=20)
        assert done.returncode in (0, 1, 125, 126, 127), done.stderr

    assert engine.docker("run", "--rm", "busybox", "echo", "alive").stdout == "alive\n"
    assert "Traceback" not in engine.log()


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_users_are_not_read_from_what_is_no_file(engine, kind):
    layer = misleading("", [("etc/passwd", kind), ("etc/group", kind)], "")
    engine.docker("load", input=images.archive([layer], ("evil:3",), {"Cmd": ["sh"]}))

    named = engine.docker("run", "--rm", "-u", "user", "evil:3", "true", check=False, timeout=20)
    numbered = engine.docker("run", "--rm", "-u", "1000", "evil:3", "echo", "ran", check=False, timeout=20)

    assert named.returncode in (125, 126)
    assert numbered.stdout.strip() == "ran"
