"""Composition root of `orlop-registry`: a registry server in the foreground.

`orlop registry serve` executes it. SIGTERM and SIGINT end it; `kill -9` is a supported way to stop it,
too: every start is a recovery.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from orlop.aio.http_server import HttpServer, Limits, listen_tcp
from orlop.aio.scope import Background
from orlop.base import failpoints, log
from orlop.base.clock import SystemClock
from orlop.base.errors import InvalidInput, Kind, OrlopError, describe_os_error
from orlop.base.version import VERSION
from orlop.registry.client import Registry
from orlop.registry.endpoints import RegistryOptions
from orlop.registryd.access.accounts import Accounts, CheckHash
from orlop.registryd.access.gate import Gate
from orlop.registryd.access.policy import OPEN, accounts_only
from orlop.registryd.access.tokens import Tokens
from orlop.registryd.app import RegistryApp
from orlop.registryd.cache import PullThrough
from orlop.registryd.calls import Services
from orlop.registryd.meters import Meters
from orlop.registryd.settings import RegistrySettings, parse_settings_file
from orlop.registryd.storage.directory import DirectoryStorage, open_directory

__all__ = ["main"]

DEFAULT_ROOT = "/var/lib/orlop-registry"
DEFAULT_LISTEN = "127.0.0.1:5000"
_FIRST_COLLECTION_S = 60.0
_IDLE_CHECK_S = 20.0
_LIMITS = Limits(head_timeout_s=15.0, idle_timeout_s=120.0)
_MAX_CONFIG_BYTES = 4 << 20


class RegistryInUse(OrlopError):
    """Another server has this directory."""

    kind = Kind.CONFLICT
    code = "registry-in-use"


@dataclass(slots=True)
class _Plant:
    """Everything that runs, and ends together."""

    storage: DirectoryStorage
    services: Services
    meters: Meters


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server until it is told to end; the process's exit code."""
    try:
        options = _parser().parse_args(argv)
        log.set_level(options.log_level)
        failpoints.configure(os.environ.get("ORLOP_FAILPOINTS", ""))
        if record := os.environ.get("ORLOP_FAILPOINTS_RECORD"):
            failpoints.record_hits(record)
        lock = _lock(options.data_root)
        try:
            asyncio.run(_serve(options))
        finally:
            os.close(lock)
    except (OrlopError, ValueError) as error:
        log.error(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("orlop-registry", description="A registry server (OCI distribution 1.1)")
    add = parser.add_argument
    add("--data-root", default=DEFAULT_ROOT, help="directory of blobs and the database")
    add("--listen", default=DEFAULT_LISTEN, help="address and port")
    add("--tls-cert", default="", help="certificate chain in PEM form")
    add("--tls-key", default="", help="key of the certificate")
    add("--config", default="", help="JSON file with upstreams and policy")
    add("--htpasswd", default="", help="accounts: lines of user:bcrypt")
    add("--auth", choices=("basic", "token"), default="basic", help="how clients show who they are")
    add("--public-url", default="", help="how clients reach this server, for the token endpoint")
    add("--read-only", action="store_true", help="serve only")
    add("--delete", action="store_true", help="allow deletion of tags, manifests and blobs")
    add("--allow-sparse", action="store_true", help="accept manifests that name what is not here")
    add("--metrics", action="store_true", help="serve Prometheus metrics at /metrics")
    add("--max-blob-size", type=int, default=0, help="largest blob in bytes; 0 is any")
    add("--chunk-min-size", type=int, default=0, help="smallest chunk that clients are asked to send")
    add("--gc-interval", type=float, default=3600.0, help="seconds between collections; 0 is never")
    add("--gc-grace", type=float, default=86_400.0, help="seconds that unused blobs are kept")
    add("--remove-untagged", action="store_true", help="collection takes untagged manifests, too")
    add("--no-access-log", action="store_true", help="log no line for each request")
    add("--log-level", default="info", help="debug, info, warn or error")
    return parser


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    plant = await _build(options)
    app = RegistryApp(plant.services, plant.meters, has_access_log=not options.no_access_log)
    server = HttpServer(app.handle, limits=_LIMITS)
    try:
        async with Background("registry") as tasks:
            host, port = _address(options.listen)
            listener = listen_tcp(host, port)
            where = listener.getsockname()
            tls = _tls(options.tls_cert, options.tls_key)
            await server.start(listener, tls)
            tasks.start(_keep(plant, options.gc_interval), name="upkeep")
            log.info("registry is ready", address=f"{where[0]}:{where[1]}", tls=tls is not None)
            await stop.wait()
            log.info("registry ends")
            await server.close(grace_s=2.0)
    finally:
        if plant.services.cache is not None:
            await plant.services.cache.close()
        await plant.storage.close()


async def _build(options: argparse.Namespace) -> _Plant:
    clock = SystemClock()
    settings = _settings(options)
    storage = await open_directory(
        options.data_root, clock=clock, grace_s=options.gc_grace, removes_untagged=options.remove_untagged
    )
    accounts = Accounts(options.htpasswd, _bcrypt(), clock) if options.htpasswd else None
    tokens = None
    if accounts is not None and options.auth == "token":
        tokens = Tokens(_token_key(options.data_root), settings.service, clock)
    gate = Gate(settings.policy, accounts, tokens, settings.service, settings.public_url)
    meters = Meters(is_public=options.metrics)
    cache = None
    if settings.upstreams:
        insecure = tuple(entry.registry for entry in settings.upstreams if entry.is_insecure)
        client = Registry(RegistryOptions(insecure=insecure), user_agent=f"orlop-registry/{VERSION}")
        cache = PullThrough(storage, settings, client, clock, meters)
    return _Plant(storage, Services(storage, settings, gate, cache), meters)


def _settings(options: argparse.Namespace) -> RegistrySettings:
    found = parse_settings_file(_read(options.config)) if options.config else {}
    policy = found.get("policy") or (accounts_only() if options.htpasswd else OPEN)
    return RegistrySettings(
        is_read_only=options.read_only,
        allows_delete=options.delete,
        allows_sparse=options.allow_sparse,
        chunk_min_bytes=options.chunk_min_size,
        max_blob_bytes=options.max_blob_size,
        public_url=options.public_url,
        policy=policy,  # type: ignore[arg-type]
        upstreams=found.get("upstreams", ()),  # type: ignore[arg-type]
    )


async def _keep(plant: _Plant, interval_s: float) -> None:
    """Close idle uploads, and collect now and then."""
    clock = SystemClock()
    due_s = clock.monotonic_s() + min(_FIRST_COLLECTION_S, interval_s)
    while True:
        await asyncio.sleep(min(_IDLE_CHECK_S, interval_s or _IDLE_CHECK_S))
        await plant.storage.close_idle_uploads()
        if not interval_s or clock.monotonic_s() < due_s:
            continue
        due_s = clock.monotonic_s() + interval_s
        try:
            count, freed = await plant.storage.collect()
        except (OrlopError, OSError) as error:
            log.error("collection failed", error=error)
            continue
        plant.meters.collections += 1
        plant.meters.freed_bytes += freed
        log.info("collected", things=count, freed_bytes=freed)


def _lock(root: str) -> int:
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        fd = os.open(os.path.join(root, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise InvalidInput(f'cannot use "{root}": {describe_os_error(error)}') from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise RegistryInUse(f'another server uses "{root}"') from error
    return fd


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"invalid address {text!r}", hint="use HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


def _tls(cert: str, key: str) -> ssl.SSLContext | None:
    if not cert and not key:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"cannot load the certificate: {error}") from error
    return context


def _token_key(root: str) -> bytes:
    """The key that signs tokens: made once, kept beside the data."""
    path = os.path.join(root, "token.key")
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        key = _read(path)
        if len(key) == 32:
            return key
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)  # a crash while it was made
    key = os.urandom(32)
    with open(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _bcrypt() -> CheckHash:
    try:
        import bcrypt
    except ImportError as error:
        raise InvalidInput(
            "accounts need the library bcrypt", hint="pip install 'orlop[registry]'"
        ) from error
    return bcrypt.checkpw


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_CONFIG_BYTES)
    except OSError as error:
        raise InvalidInput(f'cannot read "{path}": {describe_os_error(error)}') from error


if __name__ == "__main__":
    sys.exit(main())
