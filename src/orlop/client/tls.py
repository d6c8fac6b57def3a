"""TLS to an engine on TCP; loaded only for such endpoints, because `ssl` is slow to import.

The engine's certificate is always verified: by `ca.pem` where there is one, else by the system's
authorities. Source: docker CLI reference, "DOCKER_CERT_PATH": ca.pem, cert.pem, key.pem.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import threading

from orlop.base.errors import InvalidInput

__all__ = ["plain_socket", "wrap"]

_READ_BYTES = 64 * 1024


def wrap(connection: socket.socket, host: str, directory: str) -> ssl.SSLSocket:
    """Do the handshake on a connected socket, which from then on belongs to the result.

    Args:
        connection: to the engine.
        host: the name that its certificate must be for.
        directory: where the PEM files are; "" for none.

    Raises:
        InvalidInput: the files cannot be used.
        OSError: the handshake failed; `ssl.SSLCertVerificationError` when the engine is not who it says.
    """
    return _context(directory).wrap_socket(connection, server_hostname=host)


def _context(directory: str) -> ssl.SSLContext:
    authority, certificate, key = (_existing(directory, f"{name}.pem") for name in ("ca", "cert", "key"))
    try:
        context = ssl.create_default_context(cafile=authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"cannot use the certificates in {directory}: {error}",
            hint="DOCKER_CERT_PATH names a directory with ca.pem, cert.pem and key.pem",
        ) from error
    return context


def _existing(directory: str, name: str) -> str | None:
    path = os.path.join(directory, name)
    return path if directory and os.path.exists(path) else None


def plain_socket(connection: socket.socket) -> socket.socket:
    """A hijacked connection as a socket that can be polled and half-closed; the caller closes it.

    A thread carries the bytes; it ends with either side, and never keeps the process alive.
    """
    assert isinstance(connection, ssl.SSLSocket), "plain ones need no help"
    ours, inner = socket.socketpair()
    threading.Thread(target=_carry, args=(connection, inner), daemon=True).start()
    return ours


def _carry(outer: ssl.SSLSocket, inner: socket.socket) -> None:
    with outer, inner, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        outer.settimeout(0)
        selector.register(outer, selectors.EVENT_READ)
        selector.register(inner, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if outer in ready and not _take(outer, inner):
                return
            if inner in ready:
                data = inner.recv(_READ_BYTES)
                if not data:
                    selector.unregister(inner)
                    _end_of_input(outer)
                elif not _send(outer, inner, data):
                    return


def _take(outer: ssl.SSLSocket, inner: socket.socket) -> bool:
    """Pass on all that has arrived, records that OpenSSL still holds, too; False at the end."""
    while True:
        try:
            data = outer.recv(_READ_BYTES)
        except ssl.SSLWantReadError:
            return True
        if not data:
            return False
        inner.sendall(data)


def _send(outer: ssl.SSLSocket, inner: socket.socket, data: bytes) -> bool:
    """Send, and read meanwhile: an engine that waits for us to read would wait for ever; False at the end."""
    view = memoryview(data)
    with selectors.DefaultSelector() as selector:
        selector.register(outer, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while view:
            try:
                view = view[outer.send(view) :]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                selector.select()
                if not _take(outer, inner):
                    return False
    return True


def _end_of_input(outer: ssl.SSLSocket) -> None:
    """Say that nothing more comes, and go on reading.

    By the end of the TCP stream: a close_notify of Python's makes OpenSSL read, and what it finds then
    instead of the engine's own is an error and lost. The engine takes both for the end of input.
    """
    socket.socket.shutdown(outer, socket.SHUT_WR)
