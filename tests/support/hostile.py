"""What hostile tests share: layers entry by entry, canaries on the host, a process that exchanges two names."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from support import images

FILE, LINK, HARD, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
UP = "../" * 30
SECRET = "what only the host knows"
RACE_S = 1.5

# A process of its own: renameat2(RENAME_EXCHANGE) as fast as it can, on names below one directory.
_EXCHANGE = """
import ctypes, os, sys
root, one, two = os.open(sys.argv[1], os.O_PATH), os.fsencode(sys.argv[2]), os.fsencode(sys.argv[3])
rename = ctypes.CDLL(None, use_errno=True).renameat2
count = 0
while os.getppid() == int(sys.argv[4]):
    if rename(root, one, root, two, 2) == 0:
        count += 1
    elif ctypes.get_errno() not in (2, 16):
        sys.exit(os.strerror(ctypes.get_errno()))
    if count == 1:
        print("going", flush=True)
"""


def tar_of(*entries) -> bytes:
    """(name, type, link or content[, mode[, owner]]) of each member, in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, value, *more in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, more[0] if more else 0o755
            entry.uid = entry.gid = more[1] if len(more) > 1 else 0
            data = b""
            if kind in (LINK, HARD):
                entry.linkname = value
            elif kind == FILE:
                data = value
                entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def load(engine, tag: str, *entries, **config) -> str:
    """Load a busybox with one more layer, in which links may take the place of directories."""
    layers = [images.busybox_layer(), *([tar_of(*entries)] if entries else [])]
    path = {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sh"]}
    engine.docker("load", input=images.archive(layers, (tag,), path | config))
    return tag


def look(directory: Path) -> dict:
    """Everything of a tree that an escape could change."""
    found = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_nlink,
            content,
        )
    return found


@contextlib.contextmanager
def new_canary():
    """A directory of the host that must be the same at the end.

    Not below /tmp: workers that look at a stopped container cover that with the container's root.
    """
    with tempfile.TemporaryDirectory(prefix="orlop-canary-", dir="/var/tmp") as directory:
        place = Path(directory, "canary")
        (place / "inside").mkdir(parents=True)
        (place / "file").write_text(SECRET)
        os.utime(place / "file", (1, 1))
        place.chmod(0o750)
        before = look(place)
        yield place
        assert look(place) == before


class Exchange:
    """While it is entered, `one` and `two` below `root` change places without a pause."""

    def __init__(self, root, one: str, two: str):
        self._command = [sys.executable, "-I", "-c", _EXCHANGE, str(root), one, two, str(os.getpid())]

    def __enter__(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout.readline() == b"going\n"
        return self

    def __exit__(self, kind, error, traceback):
        self._process.stdout.close()
        self._process.kill()
        code = self._process.wait()
        assert kind is not None or code == -9, "the exchange ended by itself"


def for_a_while(seconds: float = RACE_S):
    """Counts up until the time is over."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield count
        count += 1


def pid_of(door, container: str) -> int:
    """The host's number of a container's first process."""
    return door.ask("GET", f"/containers/{container}/json").value()["State"]["Pid"]


def as_user(uid: int, call):
    """What `call` returns, as text, in a child with that uid, no groups and no capabilities."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            ctypes.CDLL(None).prctl(4, 0)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writer, str(call()).encode()[:60000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(child, 0)
    return text
