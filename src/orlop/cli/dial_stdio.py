"""`orlop system dial-stdio`: standard input and output become a connection to the engine.

`docker -H ssh://host` runs this at the other end of ssh. Each half ends on its own: the end of standard
input is passed on as a half-close, and the engine's end ends the program, whatever the input does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

from orlop.cli.context import Context

__all__ = ["run"]

_READ_BYTES = 64 * 1024


def run(context: Context) -> int:
    """Connect (and start the engine where that is ours to do) and copy until the engine hangs up."""
    connection = context.client.endpoint.connect()
    if hasattr(connection, "unwrap"):
        from orlop.client.tls import plain_socket

        connection = plain_socket(connection)
    with connection:
        # a thread each: neither direction waits for the other, and this one may wait for ever
        threading.Thread(target=_send, args=(connection,), daemon=True).start()
        while data := _receive(connection):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    return 0


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_READ_BYTES)
    except ConnectionResetError:
        return b""


def _send(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the engine has hung up: the other direction ends the program
        while data := os.read(0, _READ_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
