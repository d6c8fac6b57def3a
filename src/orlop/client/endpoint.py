"""Where the engine listens: ORLOP_HOST, DOCKER_HOST, a docker context, or the default socket.

Source: docker CLI reference, "docker context"; `~/.docker/contexts/meta/<sha256 of name>/meta.json`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from orlop.base.errors import InvalidInput, Kind, OrlopError

__all__ = ["DEFAULT_SOCKET", "CannotConnect", "Endpoint", "resolve_endpoint"]

DEFAULT_SOCKET = "/run/orlop/orlop.sock"
_TCP_PORT = 2375
_TLS_PORT = 2376


class CannotConnect(OrlopError):
    """Nothing answers at the endpoint."""

    kind = Kind.UNAVAILABLE
    code = "cannot-connect"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A unix socket's path, or a host and port. `url` is what the user wrote.

    With `is_tls`, `certificates` is the directory of ca.pem, cert.pem and key.pem, "" for none.
    """

    url: str
    path: str = ""
    host: str = ""
    port: int = 0
    is_default: bool = False
    is_tls: bool = False
    certificates: str = ""
    ssh: bool = False

    @property
    def authority(self) -> str:
        """What the Host header says."""
        if self.path or self.ssh:
            return "orlop"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        """A connected blocking socket; the caller closes it.

        Raises:
            CannotConnect: nobody listens there.
        """
        try:
            if self.ssh:
                from orlop.client.ssh import connect

                return connect(self.host, self.port)
            if not self.path:
                return self._connect_tcp()
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                connection.connect(self.path)
            except OSError:
                connection.close()
                raise
        except OSError as error:
            reason = getattr(error, "verify_message", "") or error.strerror or str(error)
            raise CannotConnect(
                f"cannot connect to the engine at {self.url}: {reason.lower()}",
                hint="is orlopd running there, and may you open its socket?",
            ) from error
        return connection

    def _connect_tcp(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=None)
        if not self.is_tls:
            return connection
        from orlop.client import tls

        try:
            return tls.wrap(connection, self.host, self.certificates)
        except BaseException:
            connection.close()
            raise


def _parse(url: str, *, is_default: bool = False, is_tls: bool = False, certificates: str = "") -> Endpoint:
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = ("unix", url) if url.startswith("/") else ("tcp", url)
    if scheme == "unix" and rest:
        return Endpoint(url, path=rest, is_default=is_default)
    if scheme == "ssh":
        from orlop.client.ssh import split_target

        host, number = split_target(rest.rstrip("/"))
        return Endpoint(url, host=host, port=number, ssh=True)
    if scheme in {"tcp", "http", "https"}:
        is_tls = scheme == "https" or (is_tls and scheme == "tcp")
        host, colon, port = rest.rstrip("/").rpartition(":")
        if not colon:
            host, port = port, str(_TLS_PORT if is_tls else _TCP_PORT)
        if port.isdecimal():
            name = host.strip("[]") or "localhost"
            files = certificates if is_tls else ""
            return Endpoint(url, host=name, port=int(port), is_tls=is_tls, certificates=files)
    raise InvalidInput(
        f"invalid host {url!r}", hint="use unix:///path, tcp://host:port, https://host:port or ssh://host"
    )


def _context_host(name: str, config_dir: str) -> str | None:
    import hashlib

    digest = hashlib.sha256(name.encode()).hexdigest()
    path = os.path.join(config_dir, "contexts", "meta", digest, "meta.json")
    try:
        with open(path, encoding="utf-8") as file:
            meta = json.load(file)
        host = meta["Endpoints"]["docker"]["Host"]
    except FileNotFoundError as error:
        raise InvalidInput(f'context "{name}": context not found') from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f'context "{name}" cannot be read: {error}') from error
    return str(host)


def _context_certificates(name: str, config_dir: str) -> str:
    """The directory of a context's PEM files, "" when it has none."""
    import hashlib

    digest = hashlib.sha256(name.encode()).hexdigest()
    path = os.path.join(config_dir, "contexts", "tls", digest, "docker")
    return path if os.path.isdir(path) else ""


def _current_context(config_dir: str) -> str:
    try:
        with open(os.path.join(config_dir, "config.json"), encoding="utf-8") as file:
            return str(json.load(file).get("currentContext") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def resolve_endpoint(environ: Mapping[str, str], *, host: str = "", context: str = "") -> Endpoint:
    """The endpoint to talk to; flags come before the environment, that before docker's context.

    TCP means TLS with DOCKER_TLS_VERIFY, with https://, and for contexts that have certificates.

    Raises:
        InvalidInput: the host is malformed or the context does not exist.
    """
    chosen = host or ("" if context else environ.get("ORLOP_HOST") or environ.get("DOCKER_HOST") or "")
    config_dir = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", "/root"), ".docker")
    if chosen:
        is_tls = bool(environ.get("DOCKER_TLS_VERIFY"))
        return _parse(chosen, is_tls=is_tls, certificates=environ.get("DOCKER_CERT_PATH") or config_dir)
    name = context or environ.get("DOCKER_CONTEXT") or _current_context(config_dir)
    if name and name != "default":
        files = _context_certificates(name, config_dir)
        return _parse(_context_host(name, config_dir) or "", is_tls=bool(files), certificates=files)
    return _parse(f"unix://{DEFAULT_SOCKET}", is_default=True)
