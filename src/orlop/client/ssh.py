"""Engines behind ssh: `ssh HOST orlop system dial-stdio` is the connection, as docker's client does it.

The user's own ssh does it all: keys, agents, jump hosts, known hosts. ORLOP_SSH_COMMAND names another
program or more arguments.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess  # noqa: TID251 - ssh is a program with a pipe

from orlop.base.errors import InvalidInput

__all__ = ["connect", "split_target"]

# no blank and no leading dash: the host is an argument of a program
_TARGET = re.compile(
    r"((?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]))(?::([0-9]{1,5}))?\Z"
)


def split_target(text: str) -> tuple[str, int]:
    """`[user@]host[:port]`; 0 is ssh's own port.

    Raises:
        InvalidInput: anything else, a password among it.
    """
    match = _TARGET.match(text)
    if match is None:
        raise InvalidInput(f"invalid ssh host {text[:200]!r}", hint="use ssh://[user@]host[:port]")
    return match[1].replace("[", "").replace("]", ""), int(match[2] or 0)


def connect(host: str, port: int) -> socket.socket:
    """A socket to the engine at `host`; ssh ends when it is closed.

    Raises:
        OSError: there is no ssh.
    """
    ours, its = socket.socketpair()
    command = shlex.split(os.environ.get("ORLOP_SSH_COMMAND", "ssh"))
    ports = ["-p", str(port)] if port else []
    try:
        with its:
            subprocess.Popen(
                [*command, "-C", "-T", *ports, "--", host, "orlop", "system", "dial-stdio"],
                stdin=its.fileno(),
                stdout=its.fileno(),
            )
    except BaseException:
        ours.close()
        raise
    return ours
