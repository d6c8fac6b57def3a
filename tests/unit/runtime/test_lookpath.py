import errno
import os

import pytest

from orlop.runtime.lookpath import ExecFailed, exec_failure, find_program


@pytest.fixture
def bin_dir(tmp_path):
    directory = tmp_path / "bin"
    directory.mkdir()
    tool = directory / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    (directory / "plain").write_text("x")
    (directory / "folder").mkdir()
    return directory


def refused(name, environment=None):
    with pytest.raises(ExecFailed) as caught:
        find_program(name, environment or {})
    return caught.value.message, caught.value.exit_code


def test_names_are_looked_up_in_path_in_order(bin_dir):
    path = b"/nonexistent:" + os.fsencode(bin_dir)

    assert find_program(b"tool", {b"PATH": path}) == os.fsencode(bin_dir / "tool")


def test_names_that_are_nowhere_or_not_executable_are_not_found(bin_dir):
    environment = {b"PATH": os.fsencode(bin_dir)}

    for name in (b"other", b"plain", b"folder", b""):
        message, code = refused(name, environment)
        assert message == f'exec: "{name.decode()}": executable file not found in $PATH'
        assert code == 127


def test_without_path_nothing_is_found():
    assert refused(b"sh")[1] == 127


def test_paths_tell_why_not(bin_dir):
    base = str(bin_dir)

    assert refused(os.fsencode(f"{base}/no")) == (
        f'exec: "{base}/no": stat {base}/no: no such file or directory',
        127,
    )
    assert refused(os.fsencode(f"{base}/plain")) == (f'exec: "{base}/plain": permission denied', 126)
    assert refused(os.fsencode(f"{base}/folder")) == (f'exec: "{base}/folder": is a directory', 126)
    assert refused(os.fsencode(f"{base}/tool/x")) == (
        f'exec: "{base}/tool/x": stat {base}/tool/x: not a directory',
        127,
    )


def test_quotes_are_gos():
    assert refused(b'a"\\\n')[0] == 'exec: "a\\"\\\\\\n": executable file not found in $PATH'


def test_what_execve_says():
    assert exec_failure(b"/x", errno.ENOEXEC).message == "exec /x: exec format error"
    assert exec_failure(b"/x", errno.ENOEXEC).exit_code == 126
    assert exec_failure(b"/x", errno.ENOENT).exit_code == 127
