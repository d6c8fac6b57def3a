"""Images that ship what the engine would load if it ran its own code inside of them.

The poison is a file that appears when a module, a library, a program or a hook of the image is used by anybody
but the image's own process, which is a static busybox that needs none of them.
"""

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

from support.contexts import write
from support.hostile import DIR, FILE, tar_of
from support.images import archive, busybox_layer

pytestmark = pytest.mark.system
MARKER = "poisoned"
PYTHON = f"import os\nos.close(os.open('/{MARKER}', os.O_CREAT))\n".encode()
SCRIPT = f"#!/bin/sh\n: > /{MARKER}\n".encode()
LIBRARY = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void begin(void) { close(open("/%s", O_CREAT | O_RDWR, 0666)); }
int gconv_init(void *step) { begin(); return 0; }
"""
LIBRARIES = (
    "libnss_files.so.2 libnss_compat.so.2 libnss_dns.so.2 libnss_systemd.so.2 libnss_poison.so.2 libgcc_s.so.1 "
    "libc.so.6 libz.so.1 liblzma.so.5 libzstd.so.1 libcrypto.so.3 libpython3.so"
).split()
PROGRAMS = (
    "xz gzip unpigz pigz zstd bzip2 unxz git runc iptables nft modprobe python3 ldconfig mount tar".split()
)
PROBE = {"Test": ["CMD", "true"], "Interval": 10**8, "Timeout": 5 * 10**9, "Retries": 1}


def modules():
    """Every module of the interpreter, of its codecs and of its customisation, where this machine has them."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {place for place in sys.path if place.startswith("/")} | {"/", "/root"}
    names = {f"{name}.py" for name in (*sys.stdlib_module_names, "sitecustomize", "usercustomize")}
    names |= {
        f"encodings/{name}" for name in os.listdir(os.path.join(os.path.dirname(os.__file__), "encodings"))
    }
    for place in sorted(places):
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.join(place, name).lstrip("/"), FILE, PYTHON
        yield os.path.join(place, "poison.pth").lstrip("/"), FILE, b"import os; os.mkdir('/poisoned')\n"


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    """A layer of poison, libraries included where there is a compiler."""
    entries = list(modules())
    entries += [
        (f"{place}/{name}", FILE, SCRIPT)
        for name in PROGRAMS
        for place in ("usr/local/bin", "usr/sbin", "usr/bin")
    ]
    entries += [
        ("etc/nsswitch.conf", FILE, b"passwd: poison\ngroup: poison\nhosts: poison\n"),
        ("etc/ld.so.preload", FILE, b"/lib/libnss_poison.so.2\n"),
        ("etc/profile", FILE, SCRIPT),
        ("etc/gitconfig", FILE, b"[core]\n\tfsmonitor = /usr/bin/git\n\tpager = /usr/bin/git\n"),
        ("usr/lib/locale", DIR, ""),
    ]
    if shutil.which("gcc"):
        place = tmp_path_factory.mktemp("poison")
        (place / "poison.c").write_text(LIBRARY % MARKER)
        command = ["gcc", "-shared", "-fPIC", "-o", place / "poison.so", place / "poison.c"]
        subprocess.run(command, check=True, capture_output=True)
        data = (place / "poison.so").read_bytes()
        for where in ("lib", "lib64", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
            entries += [(f"{where}/{name}", FILE, data) for name in LIBRARIES]
        entries += [
            (f"usr/lib/x86_64-linux-gnu/gconv/{name}.so", FILE, data) for name in ("UTF-16", "ISO8859-1")
        ]
    return tar_of(*entries)


@pytest.fixture
def poisoned(engine, layer):
    """The image, with an environment that would lead a careless helper to it; no marker on the host afterwards."""
    environment = [
        *(
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin",
            "LD_PRELOAD=/lib/libnss_poison.so.2",
            "LD_LIBRARY_PATH=/lib",
        ),
        *(
            "PYTHONPATH=/root",
            "PYTHONHOME=/",
            "PYTHONSTARTUP=/root/os.py",
            "PYTHONINSPECT=1",
            "ENV=/etc/profile",
        ),
        *("GCONV_PATH=/usr/lib/x86_64-linux-gnu/gconv", "LC_ALL=xx_XX.UTF-16", "LOCPATH=/usr/lib/locale"),
        *("TMPDIR=/root", "HOME=/root", "BASH_ENV=/etc/profile", "GIT_DIR=/root"),
    ]
    config = {"Env": environment, "Cmd": ["/bin/busybox", "sleep", "1000"], "Healthcheck": PROBE}
    engine.docker("load", input=archive([busybox_layer(), layer], ("poison:1",), config))
    yield "poison:1"
    assert not os.path.exists(f"/{MARKER}")


def is_clean(door, name):
    """Nobody has used anything of it: no marker in the container."""
    return all(
        item["Path"] != f"/{MARKER}" for item in door.ask("GET", f"/containers/{name}/changes").value() or ()
    )


def test_start_and_exec_use_nothing_of_the_image(door, started, poisoned):
    """CVE-2019-14271, CVE-2021-3602: users, groups, terminals and names are looked up without the image's code."""
    for words, config in (
        (("/bin/busybox", "sleep", "1000"), {"User": "user", "Tty": True}),
        (("/bin/busybox", "sleep", "1000"), {"Hostname": "bücher", "WorkingDir": "/räksmörgås/\u202e"}),
    ):
        name = started(poisoned, *words, **config)
        for user in ("", "user", "user:extra", "1000:2000", "nobody-here"):
            door.execute(name, "/bin/busybox", "true", User=user, WorkingDir="/tmp")
        door.execute(name, "/not/there")
        door.ask("POST", f"/containers/{name}/resize", h=10, w=10)
        assert door.ask("GET", f"/containers/{name}/top").status == 200
        assert door.ask("GET", f"/containers/{name}/stats", stream=0, **{"one-shot": 1}).status == 200
        door.ask("POST", f"/containers/{name}/restart", t=0)
        assert is_clean(door, name)


def test_health_checks_use_nothing_of_the_image(door, started, poisoned):
    """CVE-2019-14271 and its like for probes."""
    name = started(poisoned)
    for _ in range(100):
        health = door.ask("GET", f"/containers/{name}/json").value()["State"]["Health"]
        if health["Status"] == "healthy":
            break
        door.execute(name, "/bin/busybox", "sleep", "0.1")

    assert health["Status"] == "healthy"
    assert is_clean(door, name)


@pytest.mark.parametrize("runs", [True, False])
def test_copies_use_nothing_of_the_image(door, started, poisoned, runs):
    """CVE-2019-14271, CVE-2026-41567: cp in and out, also of archives that are compressed, export and diff."""
    name = started(poisoned) if runs else door.create(poisoned).value()["Id"]
    place = f"/containers/{name}/archive"
    plain = tar_of(
        ("f", FILE, b"x", 0o644, 1000),
        ("b\udcfcch".encode("utf-8", "surrogateescape").decode("latin-1"), FILE, b""),
    )

    for data in (plain, *packed(plain)):
        assert door.ask("PUT", place, data, path="/tmp", copyUIDGID=1).status in (200, 400)
    assert door.ask("GET", place, path="/tmp").status == 200
    assert door.ask("GET", place, path="/etc/passwd").status == 200
    assert door.ask("HEAD", place, path="/root").status == 200
    assert door.ask("GET", f"/containers/{name}/export").status == 200
    assert is_clean(door, name)
    door.ask("DELETE", f"/containers/{name}", force=1)


def packed(data):
    import bz2
    import gzip
    import lzma

    yield from (gzip.compress(data), bz2.compress(data), lzma.compress(data))
    yield b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"  # zstd, empty
    yield lzma.compress(data)[:40]


def test_builds_and_commits_use_nothing_of_the_image(engine, door, started, poisoned, tmp_path):
    """CVE-2019-14271, CVE-2026-41567 for builds: RUN, COPY, ADD of archives, USER and ONBUILD in such an image."""
    import gzip

    directory = write(
        tmp_path / "context",
        {
            "Dockerfile": f"FROM {poisoned}\n"
            'SHELL ["/bin/busybox", "sh", "-c"]\nUSER user\nRUN echo run\nUSER 0\n'
            "COPY --chown=user:extra x.tar.gz /copied/\nADD --chown=nobody x.tar.gz /added/\nWORKDIR /w/new\n"
            f"ENV A=b\nRUN test ! -e /{MARKER}\n",
            "x.tar.gz": gzip.compress(tar_of(("f", FILE, b"x"))),
        },
    )
    name = started(poisoned)

    built = engine.docker("build", "--no-cache", "-t", "built:1", directory, check=False, timeout=60)
    committed = door.ask("POST", "/commit", container=name, repo="committed", tag="1", changes="USER user")

    assert built.returncode == 0, built.stdout + built.stderr
    assert committed.status == 201
    for image in ("built:1", "committed:1"):
        done = door.run(image, "/bin/busybox", "ls", "/", Entrypoint=[])
        assert MARKER not in done.output.split()
        assert "bin" in done.output.split()
    assert is_clean(door, name)


def test_the_poison_works_on_whoever_takes_it(door, poisoned):
    """The other side: a program of the image that uses it does make the marker."""
    done = door.run(poisoned, "/bin/busybox", "sh", "-c", f". /etc/profile; ls /{MARKER}")

    assert done.output.split() == [f"/{MARKER}"]
