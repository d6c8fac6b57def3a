"""A sealed process, tried from inside: each call in a child of its own."""

import subprocess
import sys

import pytest

from orlop.kernel import landlock
from orlop.procs import sealing

SEALED = """
import errno, os, socket, sys
from orlop.kernel.process import set_no_new_privs
from orlop.procs import sealing
given, outside = sys.argv[1:3]
fds = [os.open(given, os.O_RDONLY | os.O_DIRECTORY)] if given else [os.open("/dev/null", os.O_RDONLY)]
set_no_new_privs()
sealing.prepare()
sealing.seal(fds)
try:
    {code}
    print("done")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
needs_landlock = pytest.mark.skipif(not landlock.abi(), reason="no Landlock here")


def attempt(code, given="", outside=""):
    words = [sys.executable, "-c", SEALED.replace("{code}", code), str(given), str(outside)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket()",
        "socket.socketpair()",
        "os.execv('/bin/true', ['true'])",
        "os.fork()",
        "os.kill(os.getppid(), 0)",
        "os.pidfd_open(os.getppid())",
        "os.chroot('/')",
    ],
)
def test_no_way_to_others(code):
    assert attempt(code) == "EPERM"


@needs_landlock
def test_no_file_but_those_below_what_was_given(tmp_path):
    given, outside = tmp_path / "given", tmp_path / "outside"
    given.mkdir()
    outside.write_text("secret")

    assert attempt("open(outside)", given, outside) == "EACCES"
    assert attempt("open(outside)", "", outside) == "EACCES"
    assert attempt("os.unlink(outside)", given, outside) == "EACCES"
    assert attempt("open('/proc/self/environ')", given) == "EACCES"
    inside = "fd = os.open('new', os.O_CREAT | os.O_RDWR, dir_fd=fds[0]); os.write(fd, b'x'); os.unlink('new', dir_fd=fds[0])"
    assert attempt(inside, given) == "done"
    assert outside.read_text() == "secret"


def test_a_job_without_a_directory_has_no_capability():
    assert attempt("os.chown(fds[0], 12345, 12345)") == "EPERM"


def test_memory_is_bounded():
    assert "MemoryError" in attempt("bytearray(5 << 30)")


def test_the_kernel_knows_the_calls():
    assert len(sealing.prepare()) > 8 * 40
