"""Which file a program's name means, and what is said when there is none.

The rules and the texts are those of Go's `exec.LookPath` as runc applies them inside the
container: clients show them, and the docker CLI derives 126 and 127 from them. Only raw
system calls: this runs in the container's tree.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

__all__ = ["ExecFailed", "describe_errno", "exec_failure", "find_program"]

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
_NOT_FOUND = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class ExecFailed(Exception):
    """The program cannot be executed; `exit_code` is 126 or 127."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def describe_errno(number: int) -> str:
    """The text as Go prints it: lower case."""
    return os.strerror(number).lower()


def find_program(name: bytes, environment: Mapping[bytes, bytes]) -> bytes:
    """The path to execute.

    Raises:
        ExecFailed: not there, a directory, or not executable by us.
    """
    quoted = _quote(name)
    if b"/" in name:
        number = _refusal(name)
        if not number:
            return name
        if number in _NOT_FOUND:
            text = f"exec: {quoted}: stat {os.fsdecode(name)}: {describe_errno(number)}"
            raise ExecFailed(text, EXIT_NOT_FOUND)
        raise ExecFailed(f"exec: {quoted}: {describe_errno(number)}", EXIT_NOT_EXECUTABLE)
    for directory in environment.get(b"PATH", b"").split(b":") if name else ():
        candidate = (directory or b".") + b"/" + name
        if not _refusal(candidate):
            return candidate
    raise ExecFailed(f"exec: {quoted}: executable file not found in $PATH", EXIT_NOT_FOUND)


def exec_failure(path: bytes, number: int) -> ExecFailed:
    """What execve itself answered: a wrong format, a missing interpreter, an argument list too long."""
    code = EXIT_NOT_FOUND if number in _NOT_FOUND else EXIT_NOT_EXECUTABLE
    return ExecFailed(f"exec {os.fsdecode(path)}: {describe_errno(number)}", code)


def _refusal(path: bytes) -> int:
    """0 when we may execute it, else the errno that says why not."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.errno or errno.EINVAL
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    # Root needs one x bit as anybody else does.
    if not mode & 0o111 or not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES
    return 0


def _quote(name: bytes) -> str:
    """Go's %q, as far as program names need it."""
    text = os.fsdecode(name)
    return (
        '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
    )
