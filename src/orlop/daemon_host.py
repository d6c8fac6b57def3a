"""The engine's place on its host: directories, locks, mount namespace, listening sockets, notification.

Everything here happens before or beside the event loop and is undone by the kernel when the process
ends: locks and namespaces have no residue, a pid file or socket left behind is replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from orlop.base import log
from orlop.base.errors import InvalidInput, Kind, OrlopError, describe_os_error
from orlop.daemon_flags import Settings
from orlop.kernel import mount
from orlop.kernel.namespaces import CLONE_NEWNS, namespace_id, open_namespace, setns, unshare

if TYPE_CHECKING:
    import ssl

__all__ = [
    "AlreadyRunning",
    "enter_mount_namespace",
    "live_supervisors",
    "lock_root",
    "lock_roots",
    "notify",
    "open_listeners",
    "prepare_roots",
    "remove_pidfile",
    "remove_sockets",
    "tls_context",
    "write_pidfile",
]

_FIRST_PASSED_FD = 3  # sd_listen_fds(3)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_DIRECTORY_MODE = 0o711  # passable, so that clients reach the socket; what is inside is closed


class AlreadyRunning(OrlopError):
    """Another engine uses the same state."""

    kind = Kind.CONFLICT
    code = "already-running"


class CannotUseHost(OrlopError):
    """The host does not let the engine work."""

    kind = Kind.FORBIDDEN
    code = "cannot-use-host"


def prepare_roots(settings: Settings) -> None:
    """Make the state directories.

    Raises:
        CannotUseHost: not root, or the directories cannot be made.
    """
    if os.geteuid() != 0:
        raise CannotUseHost("orlopd needs root", hint="start it with sudo")
    for path in (settings.data_root, settings.exec_root):
        try:
            os.makedirs(path, mode=_DIRECTORY_MODE, exist_ok=True)
        except OSError as error:
            raise CannotUseHost(f'cannot make "{path}": {describe_os_error(error)}') from error


def lock_roots(settings: Settings) -> list[int]:
    """Take both roots for this process, as fds to keep open until it ends.

    Raises:
        AlreadyRunning: another engine has one of them; its process id is in the message.
    """
    held: list[int] = []
    try:
        for path in dict.fromkeys((settings.data_root, settings.exec_root)):
            held.append(lock_root(path))  # noqa: PERF401 - what was taken is let go on failure
    except BaseException:
        for fd in held:
            os.close(fd)
        raise
    return held


def lock_root(path: str) -> int:
    """Take one root for this process, as an fd to keep open while it is used. Raises AlreadyRunning."""
    fd = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        if error.errno != errno.EWOULDBLOCK:
            raise
        raise AlreadyRunning(
            f'another engine uses "{path}" (pid {owner or "unknown"})',
            hint="stop it, or give this one its own --data-root and --exec-root",
        ) from error
    os.ftruncate(fd, 0)
    # Who holds it is for people: a full disk is no reason not to start.
    with suppress(OSError):
        os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def enter_mount_namespace(exec_root: str, supervisors: Mapping[str, int]) -> int:
    """Live in a mount namespace of our own: that of the engine before us when its containers still do.

    Must be called while the process has one thread. See docs/decisions/0002-mount-namespace.md.

    Args:
        exec_root: for messages.
        supervisors: process ids of live supervisors by container.

    Returns:
        The namespace that we were started in, as an fd: where mounts for people are made.
    """
    outside = open_namespace(os.getpid(), "mnt")
    own = namespace_id(outside)
    for container, pid in supervisors.items():
        try:
            fd = open_namespace(pid, "mnt")
        except OSError:
            continue
        try:
            if namespace_id(fd) == own:
                return outside
            setns(fd, CLONE_NEWNS)
        except OSError as error:
            log.warning("cannot enter the mount namespace of a supervisor", container=container, error=error)
            continue
        finally:
            os.close(fd)
        log.debug("entered the mount namespace of running containers", root=exec_root, container=container)
        return outside
    unshare(CLONE_NEWNS)
    # slave: mounts of the host still appear here, ours never appear there
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)
    return outside


def live_supervisors(exec_root: str) -> dict[str, int]:
    """Process ids of the supervisors that outlived the engine before us, by container."""
    from orlop.runtime import rundir

    found: dict[str, int] = {}
    root = os.path.join(exec_root, "containers")
    with suppress(FileNotFoundError):
        for name in os.listdir(root):
            record = rundir.read_record(os.path.join(root, name))
            if record is not None and rundir.is_alive(record.supervisor_pid, record.supervisor_ticks):
                found[name] = record.supervisor_pid
    return found


def _is_running(pid: int) -> bool:
    """False for a zombie too: a killed engine whose parent is slow to reap is gone."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return False


def write_pidfile(path: str) -> None:
    """Write our process id; refuse when the one there is a living process.

    Raises:
        AlreadyRunning: with dockerd's text.
    """
    if not path:
        return
    with suppress(FileNotFoundError, ValueError), open(path, encoding="ascii") as file:
        other = int(file.read(32).strip() or 0)
        if other not in (0, os.getpid()) and _is_running(other):
            raise AlreadyRunning(
                f"process with PID {other} is still running", hint=f"delete {path} if that is another program"
            )
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}")


def remove_pidfile(path: str) -> None:
    """Take it away; fine when it is gone."""
    if path:
        with suppress(FileNotFoundError):
            os.unlink(path)


def open_listeners(settings: Settings, environ: Mapping[str, str]) -> list[tuple[socket.socket, bool]]:
    """Listening sockets of all hosts, each with whether it wants TLS.

    Raises:
        InvalidInput: an address that is none, or a TCP socket that would be open to everybody.
        CannotListen: the kernel refuses.
    """
    from orlop.aio.http_server import listen_tcp, listen_unix

    hosts = settings.hosts or (f"unix://{settings.exec_root}/orlop.sock",)
    listeners: list[tuple[socket.socket, bool]] = []
    try:
        for host in hosts:
            scheme, separator, rest = host.partition("://")
            if not separator:
                scheme, rest = "tcp", host
            match scheme:
                case "unix":
                    path = rest or f"{settings.exec_root}/orlop.sock"
                    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
                    listeners.append((listen_unix(path, gid=_group_id(settings.group)), False))
                case "tcp":
                    name, port = _split_address(rest, settings)
                    uses_tls = _wants_tls(settings, host, name)
                    listeners.append((listen_tcp(name, port), uses_tls))
                case "fd":
                    for sock in _passed_sockets(rest, environ):
                        listeners.append((sock, _is_tls_socket(sock, settings)))  # noqa: PERF401 - cleaned up
                case _:
                    raise InvalidInput(f"invalid bind address format: {host[:200]}")  # noqa: TRY301 - cleans up
    except BaseException:
        for sock, _ in listeners:
            sock.close()
        raise
    return listeners


def remove_sockets(settings: Settings) -> None:
    """Unlink the unix sockets that were ours; what was passed to us stays."""
    for host in settings.hosts or (f"unix://{settings.exec_root}/orlop.sock",):
        if host.startswith("unix://"):
            with suppress(OSError):
                os.unlink(host.removeprefix("unix://") or f"{settings.exec_root}/orlop.sock")


def _split_address(text: str, settings: Settings) -> tuple[str, int]:
    address = text.partition("/")[0]
    default = 2376 if settings.is_tls or settings.is_tls_verify else 2375
    if address.startswith("["):
        name, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = address.rpartition(":") if ":" in address else (address, "", "")
    if port and (not port.isdecimal() or not 0 < int(port[:6]) < 65536):
        raise InvalidInput(f"invalid bind address: tcp://{text[:200]}")
    return name or "127.0.0.1", int(port or default)


def _wants_tls(settings: Settings, host: str, name: str) -> bool:
    if settings.is_tls or settings.is_tls_verify:
        return True
    if name not in _LOOPBACK and settings.is_tls is None:
        raise InvalidInput(
            f"refusing to listen on {host} without TLS: whoever reaches it is root here",
            hint="use --tlsverify with certificates, or say --tls=false if you mean it",
        )
    log.warning("API is served without TLS: every local user and page that reaches it is root", host=host)
    return False


def _group_id(name: str) -> int | None:
    """The group that may use the socket; the default one need not exist."""
    import grp

    if not name:
        return None
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name == "docker":
            return None
        raise InvalidInput(f"group {name[:60]} not found") from None


def _passed_sockets(which: str, environ: Mapping[str, str]) -> list[socket.socket]:
    """Sockets of a service manager, by the protocol of sd_listen_fds(3).

    Args:
        which: what follows `fd://`: a descriptor, or "" and "*" for all.
        environ: of this process.
    """
    count = int(environ.get("LISTEN_FDS", "0") or 0) if environ.get("LISTEN_PID") == str(os.getpid()) else 0
    if count < 1:
        raise InvalidInput(
            "no sockets found via socket activation: make sure the service was started by systemd"
        )
    fds = range(_FIRST_PASSED_FD, _FIRST_PASSED_FD + count)
    if which not in ("", "*"):
        if not which.isdecimal() or int(which[:9]) not in fds:
            raise InvalidInput(
                f"fd://{which[:60]} is not a socket that was passed", hint=f"there are {count}"
            )
        fds = range(int(which), int(which) + 1)
    return [_passed_socket(fd) for fd in fds]


def _passed_socket(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InvalidInput(f"file descriptor {fd} is not a socket: {describe_os_error(error)}") from error
    if not is_listening or sock.type != socket.SOCK_STREAM:
        raise InvalidInput(f"file descriptor {fd} is not a listening stream socket")
    return sock


def _is_tls_socket(sock: socket.socket, settings: Settings) -> bool:
    if sock.family == socket.AF_UNIX:
        return False
    name, port = sock.getsockname()[:2]
    return _wants_tls(settings, f"tcp://{name}:{port}", name)


def tls_context(settings: Settings) -> ssl.SSLContext:
    """The context for TCP sockets; clients are asked for certificates with `--tlsverify`."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not settings.tls_cert or not settings.tls_key:
        raise InvalidInput("TLS needs --tlscert and --tlskey")
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
        if settings.is_tls_verify:
            if not settings.tls_ca:
                raise InvalidInput("--tlsverify needs --tlscacert")
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(settings.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"cannot load the TLS certificates: {error}") from error
    return context


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Tell the service manager, by the protocol of sd_notify(3); silent without one."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, suppress(OSError):
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.sendall(state.encode())
