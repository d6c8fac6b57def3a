"""Certificates of registries: files to TLS contexts.

In the folder of a registry `*.crt` are authorities, `*.cert` with `*.key` are ours (docker's
layout); a hosts.toml names its own files. A context is kept as long as its files are unchanged,
so a renewed certificate is used without a restart; connections of the old one are not reused.
"""

from __future__ import annotations

import glob
import os
import ssl
from dataclasses import dataclass, field

from orlop.aio.http_client import TlsFailed

__all__ = ["NO_FILES", "TlsContexts", "TlsFiles", "folder_files"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a server is verified with, beside the system's authorities, and what it is shown."""

    authorities: tuple[str, ...] = ()
    client_pairs: tuple[tuple[str, str], ...] = ()  # certificate, key


NO_FILES = TlsFiles()


def folder_files(folder: str) -> TlsFiles:
    """The certificates in a registry's folder."""

    def names(pattern: str) -> list[str]:
        return sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))

    pairs = tuple((path, path.removesuffix(".cert") + ".key") for path in names("*.cert"))
    return TlsFiles(tuple(names("*.crt")), pairs)


_Signature = tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class TlsContexts:
    """Makes and keeps TLS contexts: one per set of files, verified unless said otherwise."""

    _made: dict[tuple[TlsFiles, bool], tuple[_Signature, ssl.SSLContext]] = field(default_factory=dict)

    def of(self, files: TlsFiles, *, verify: bool = True) -> ssl.SSLContext:
        """The context for these files. Blocks shortly when they are new or have changed.

        Raises:
            TlsFailed: a configured certificate cannot be read.
        """
        signature = _signature(files)
        kept = self._made.get((files, verify))
        if kept is not None and kept[0] == signature:
            return kept[1]
        context = _make_context(files, verify=verify)
        self._made[files, verify] = signature, context
        return context


def _signature(files: TlsFiles) -> _Signature:
    found = []
    for path in (*files.authorities, *(name for pair in files.client_pairs for name in pair)):
        try:
            state = os.stat(path)
        except OSError:
            found.append((0, 0, 0))  # loading it says what is wrong
        else:
            found.append((state.st_ino, state.st_mtime_ns, state.st_size))
    return tuple(found)


def _make_context(files: TlsFiles, *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    path = ""
    try:
        for path in files.authorities:
            context.load_verify_locations(path)
        for path, key in files.client_pairs:
            context.load_cert_chain(path, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise TlsFailed(
            f'cannot use the certificate "{path}": {error}',
            hint="authorities are PEM; every client certificate needs its key, without a password",
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("its key has a password")  # else OpenSSL asks for it on the terminal
