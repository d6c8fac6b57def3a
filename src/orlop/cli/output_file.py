"""A stream of the engine becomes a file, which appears whole or not at all, or goes to standard output."""

from __future__ import annotations

import os
import stat
import sys

from orlop.base.errors import InvalidInput
from orlop.cli.context import is_terminal
from orlop.client.connection import Exchange

__all__ = ["refuse_terminal", "write_stream"]


def refuse_terminal(path: str, verb: str) -> None:
    """Archives are not for eyes.

    Raises:
        InvalidInput: no path is given and standard output is a terminal.
    """
    if not path and is_terminal(sys.stdout):
        raise InvalidInput(f"cowardly refusing to {verb} to a terminal. Use the -o flag or redirect")


def write_stream(exchange: Exchange, path: str) -> None:
    """Write the answer to a file; without a path to standard output.

    Raises:
        InvalidInput: the path is a device, a pipe or the like, or cannot be written.
    """
    if not path:
        for piece in exchange.chunks():
            sys.stdout.buffer.write(piece)
        return
    _refuse_special(path)
    part = f"{path}.part-{os.getpid()}"
    try:
        with open(part, "xb") as file:
            file.writelines(exchange.chunks())
        os.rename(part, path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _refuse_special(path: str) -> None:
    """The rename would put a file in the place of /dev/null."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # not there, or the write tells why not
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InvalidInput(
            f'invalid output path: "{path}" must be a directory or a regular file',
            hint="without -o the archive goes to standard output",
        )
